//! Routes that CLI and SDKs ask without expecting much: plugins, and the check of credentials.
//!
//! In: requests. Out: an empty list of plugins. Credentials are used when something is pulled, and never kept.

use crate::AppState;
use crate::answer::{Answer, json};
use crate::call::Call;
use crate::error::ApiError;
use crate::route::{Route, refuse, serve};

pub(super) fn routes() -> Vec<Route<AppState>> {
    vec![
        serve!(GET "/plugins", 24, plugins, "list plugins: there are none"),
        refuse!(POST "/auth", 24, "credentials are checked when they are used; put them into the client's configuration"),
    ]
}

async fn plugins(_call: Call) -> Result<Answer, ApiError> {
    json::<[(); 0]>(&[])
}
