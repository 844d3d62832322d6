//! `login` and `logout`: credentials are checked by the daemon and kept in docker's `config.json`.
//!
//! In: a registry, a name, a password. Out: the file. Credential helpers are programs of their own and are not run.

use crate::client::Client;
use crate::output::{self, line};
use crate::{CliError, Outcome, credentials};
use clap::Args;
use std::io::Read as _;

/// `login [OPTIONS] [SERVER]`
#[derive(Debug, Args)]
pub struct Login {
    /// Password or Personal Access Token (PAT)
    #[arg(short, long)]
    password: Option<String>,
    /// Take the Password or Personal Access Token (PAT) from stdin
    #[arg(long)]
    password_stdin: bool,
    /// Username
    #[arg(short, long)]
    username: Option<String>,
    /// Registry; Docker Hub without one
    server: Option<String>,
}

/// `logout [SERVER]`
#[derive(Debug, Args)]
pub struct Logout {
    /// Registry; Docker Hub without one
    server: Option<String>,
}

impl Login {
    /// Asks the registry through the daemon, and keeps what it takes.
    pub async fn run(self, client: &Client) -> Outcome {
        let server = self.server.clone().unwrap_or_default();
        let (username, password) = self.answers()?;
        let key = credentials::key(&server);
        let auth = docker::AuthConfig {
            username: username.clone(),
            password: password.clone(),
            serveraddress: key.to_owned(),
            ..docker::AuthConfig::default()
        };
        let answer = client.post("/auth").json(&auth).value().await?;
        credentials::set(key, Some((&username, &password)))?;
        line(answer["Status"].as_str().unwrap_or("Login Succeeded"));
        Ok(())
    }

    /// Source: docker/cli, `cli/command/registry/login.go`, `verifyLoginOptions`.
    fn answers(self) -> Result<(String, String), CliError> {
        if self.password.is_some() {
            output::note("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
            if self.password_stdin {
                return Err(CliError::new("--password and --password-stdin are mutually exclusive"));
            }
        }
        if self.password_stdin && self.username.is_none() {
            return Err(CliError::new("Must provide --username with --password-stdin"));
        }
        let failed = |error: std::io::Error| CliError::file("read", "stdin", &error);
        let ask = |question: &str| {
            output::print(question);
            let mut answer = String::new();
            std::io::stdin().read_line(&mut answer).map_err(failed)?;
            Ok::<String, CliError>(answer.trim_end_matches(['\r', '\n']).to_owned())
        };
        let username = match self.username {
            Some(username) => username,
            None => ask("Username: ")?,
        };
        let password = match self.password {
            Some(password) => password,
            None if self.password_stdin => {
                let mut password = String::new();
                std::io::stdin().read_to_string(&mut password).map_err(failed)?;
                password.trim_end_matches(['\r', '\n']).to_owned()
            }
            None if crate::terminal::stdin_is_terminal() => {
                return Err(CliError::new(
                    "give the password with --password-stdin: it would be seen on a terminal",
                ));
            }
            None => ask("Password: ")?,
        };
        match username.is_empty() || password.is_empty() {
            true => Err(CliError::new("username and password required")),
            false => Ok((username, password)),
        }
    }
}

impl Logout {
    /// Forgets the password.
    pub fn run(self) -> Outcome {
        let server = self.server.unwrap_or_default();
        let key = credentials::key(&server);
        if credentials::set(key, None)? {
            line(&format!("Removing login credentials for {key}"));
        } else {
            line(&format!("Not logged in to {key}"));
        }
        Ok(())
    }
}
