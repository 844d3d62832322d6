//! `RUN`: a command in a container of the image so far; what it changes is the next layer.
//!
//! In: the state of a stage, a command. Out: the next image, and the command's output as it comes. A build that ends in
//! the middle leaves no container. Source: moby, `builder/dockerfile/{dispatchers,containerbackend}.go`.

use docker::{ContainerCreateRequest, HealthcheckConfig};
use dockerfile::CommandLine;
use engine::{AttachOptions, Engine, RemoveOptions, WaitCondition};
use logs::OutputStream;

use crate::arguments::Arguments;
use crate::error::BuildError;
use crate::options::BuildOptions;
use crate::output::Output;
use crate::step::{State, Steps};

/// Length of a short id. Source: moby, `pkg/stringid`.
pub(crate) const SHORT_ID: usize = 12;

/// The part of a build that runs commands.
pub(crate) struct Runner<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) options: &'a BuildOptions,
    pub(crate) out: &'a Output,
}

/// A container that goes when this is dropped before it was dealt with.
struct Temporary<'a> {
    engine: &'a Engine,
    id: String,
    is_settled: bool,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.engine.remove_soon(&self.id);
        }
    }
}

impl Runner<'_> {
    /// Carries out one `RUN`.
    pub(crate) async fn run(
        &self,
        steps: &Steps<'_>,
        state: &mut State,
        arguments: &Arguments,
        line: &CommandLine,
    ) -> Result<(), BuildError> {
        let command = match line {
            CommandLine::Exec(list) => list.clone(),
            CommandLine::Shell(text) => state.shell().into_iter().chain([text.clone()]).collect(),
        };
        let variables = arguments.for_command(&state.config.env);
        let created_by = history(&command, &variables, arguments);
        if steps.reuse(state, &created_by).await {
            return Ok(());
        }
        let mut container = self.create(state, &command, &variables).await?;
        let ended = self.follow(&container.id).await;
        let layer = match ended {
            Ok(0) => Ok(self.engine.changed_layer(&container.id).await?),
            Ok(code) => Err(BuildError::Command { command: command.join(" "), code }),
            Err(error) => Err(error),
        };
        let made = match layer {
            Ok(layer) => steps.make(state, created_by, Some(layer)).await,
            Err(error) => Err(error),
        };
        container.is_settled = true;
        let removes = self.options.always_removes || self.options.removes && made.is_ok();
        if removes {
            self.remove(&container.id).await?;
        }
        made
    }

    async fn create(
        &self,
        state: &State,
        command: &[String],
        variables: &[(String, String)],
    ) -> Result<Temporary<'_>, BuildError> {
        let mut config = state.config.clone();
        config.image = state.image.as_ref().map(|id| id.to_string()).unwrap_or_default();
        config.cmd = Some(command.to_vec().into());
        // One empty word: no entry point, not even the image's.
        config.entrypoint = Some(vec![String::new()].into());
        config.healthcheck =
            Some(HealthcheckConfig { test: vec!["NONE".to_owned()], ..HealthcheckConfig::default() });
        config.env.extend(variables.iter().map(|(name, value)| format!("{name}={value}")));
        let mut host_config = self.options.limits.0.clone();
        host_config.log_config.driver = "none".to_owned();
        let request = ContainerCreateRequest { config, host_config, ..ContainerCreateRequest::default() };
        let created = self.engine.create(request).await?;
        let temporary = Temporary { engine: self.engine, id: created.id, is_settled: false };
        for warning in created.warnings {
            self.out.text(format!(" ---> [Warning] {warning}\n")).await;
        }
        self.out.text(format!(" ---> Running in {}\n", &temporary.id[..SHORT_ID])).await;
        Ok(temporary)
    }

    /// Starts the container and passes on its output until it ends; its exit code.
    async fn follow(&self, id: &str) -> Result<i64, BuildError> {
        let streams = AttachOptions { stdin: false, stdout: true, stderr: true };
        let mut attached = self.engine.attach(id, streams).await?;
        let end = self.engine.wait(id, WaitCondition::NextExit).await?;
        self.engine.start(id).await?;
        while let Some((stream, bytes)) = attached.output.next().await {
            let text = String::from_utf8_lossy(&bytes);
            match stream {
                OutputStream::Stderr => self.out.red(&text).await,
                _ => self.out.text(text).await,
            }
        }
        Ok(end.finished().await.status_code)
    }

    async fn remove(&self, id: &str) -> Result<(), BuildError> {
        self.engine.remove(id, RemoveOptions { force: true, volumes: true }).await?;
        self.out.text(format!(" ---> Removed intermediate container {}\n", &id[..SHORT_ID])).await;
        Ok(())
    }
}

/// The command line with the build arguments that it could see. Source: moby, `prependEnvOnCmd`.
fn history(command: &[String], variables: &[(String, String)], arguments: &Arguments) -> String {
    let counted: Vec<String> = variables
        .iter()
        .filter(|(name, _)| arguments.counts(name))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let command = command.join(" ");
    match counted.is_empty() {
        // Only where there are none at all. Source: moby, `dispatchRun`, `len(buildArgs) > 0`.
        true if variables.is_empty() => command,
        true => format!("|0 {command}"),
        false => format!("|{} {} {command}", counted.len(), counted.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_of_a_command_holds_its_arguments() {
        let mut arguments = Arguments::new(Default::default());
        arguments.add("A", Some("1".to_owned()));
        let command = ["/bin/sh".to_owned(), "-c".to_owned(), "x".to_owned()];
        let variables = arguments.for_command(&[]);
        assert_eq!(history(&command, &variables, &arguments), "|1 A=1 /bin/sh -c x");
        assert_eq!(history(&command, &[], &arguments), "/bin/sh -c x");
    }
}
