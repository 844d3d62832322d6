//! Routes that CLI and SDKs ask without expecting much: plugins, and the check of credentials.
//!
//! In: requests. Out: an empty list of plugins, and what a registry says of credentials. They are never kept.

use docker::{AuthConfig, AuthResponse};

use crate::AppState;
use crate::answer::{Answer, json};
use crate::call::Call;
use crate::error::ApiError;
use crate::route::{Route, serve};

pub(super) fn routes() -> Vec<Route<AppState>> {
    vec![
        serve!(GET "/plugins", 24, plugins, "list plugins: there are none"),
        serve!(POST "/auth", 24, check, "ask a registry whether it takes credentials"),
    ]
}

async fn check(mut call: Call) -> Result<Answer, ApiError> {
    let credentials: AuthConfig = call.json().await?.value;
    call.state.images.check_login(&credentials).await?;
    json(&AuthResponse { status: "Login Succeeded".to_owned(), identity_token: String::new() })
}

async fn plugins(_call: Call) -> Result<Answer, ApiError> {
    json::<[(); 0]>(&[])
}
