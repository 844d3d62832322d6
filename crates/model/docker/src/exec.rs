//! Exec: a further process in a running container.
//!
//! In: create and start bodies. Out: inspect. Never resolves detach keys.

use crate::shape::{Words, is_default};

shape! {
    /// Body of `POST /containers/{id}/exec`.
    pub struct ExecConfig {
        pub user: String,
        pub privileged: bool,
        pub tty: bool,
        /// Rows, columns. Since API 1.42.
        pub console_size: Option<[u32; 2]>,
        pub attach_stdin: bool,
        pub attach_stderr: bool,
        pub attach_stdout: bool,
        pub detach: bool,
        pub detach_keys: String,
        pub env: Vec<String>,
        pub working_dir: String,
        pub cmd: Words,
    }

    /// Answer of `POST /containers/{id}/exec`.
    pub struct ExecCreateResponse {
        pub id: String,
    }

    /// Body of `POST /exec/{id}/start`.
    pub struct ExecStart {
        pub detach: bool,
        pub tty: bool,
        /// Rows, columns. Since API 1.42.
        pub console_size: Option<[u32; 2]>,
    }

    /// Answer of `GET /exec/{id}/json`.
    pub struct ExecInspect {
        #[serde(rename = "ID")]
        pub id: String,
        pub running: bool,
        pub exit_code: Option<i64>,
        pub process_config: ExecProcess,
        pub open_stdin: bool,
        pub open_stderr: bool,
        pub open_stdout: bool,
        pub can_remove: bool,
        #[serde(rename = "ContainerID")]
        pub container_id: String,
        pub detach_keys: String,
        pub pid: i64,
    }

    /// What an exec runs; the only shape of the API in camelCase.
    pub struct ExecProcess {
        #[serde(rename = "tty")]
        pub tty: bool,
        #[serde(rename = "entrypoint")]
        pub entrypoint: String,
        #[serde(rename = "arguments")]
        pub arguments: Vec<String>,
        #[serde(rename = "privileged", skip_serializing_if = "Option::is_none")]
        pub privileged: Option<bool>,
        #[serde(rename = "user", skip_serializing_if = "is_default")]
        pub user: String,
    }
}
