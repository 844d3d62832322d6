//! Starts execs: those of clients, and health probes.

use std::sync::Arc;
use std::time::Duration;

use docker::ExecConfig;
use runtime::{ExecSpec, WindowSize};
use shim::client::{AttachOptions, Ended, Handle, RequestError, SignalTarget, SpawnError, StartFailure};
use shim::{Launch, ShimSpec};
use tokio::sync::oneshot;

use super::create::check_state;
use super::{Exec, NOTE_FILE, Note, Phase};
use crate::container::attach::{AttachInput, AttachOutput, Attached};
use crate::container::{Container, Running, create_parts};
use crate::engine::{Engine, Inner, new_id};
use crate::error::EngineError;
use crate::files::{self, blocking};
use crate::health::{KILLED_WAIT, PROBE_OUTPUT, Probed};
use crate::spec_build::process;

/// Chosen: an exec that nobody starts, or whose result nobody asked for, is forgotten after so long. Source: moby,
/// `daemon/exec.go`.
const REMEMBERED: Duration = Duration::from_secs(300);
/// How long an engine that shuts down waits for a killed probe. Chosen: ten times what an end takes.
const SHUTDOWN_WAIT: Duration = Duration::from_millis(100);
/// The exit code of an exec whose shim died: it was killed with it.
const KILLED: i64 = 137;

/// How an exec is started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExecStartOptions {
    /// Nobody reads its output.
    pub detach: bool,
    /// Rows and columns of its terminal; `None` takes those of its creation.
    pub console_size: Option<(u16, u16)>,
}

/// What came of starting an exec.
pub enum ExecStarted {
    /// It runs on its own.
    Detached,
    /// Its streams.
    Attached(Attached),
}

impl Engine {
    /// Starts an exec. A command that can't be run is [`EngineError::ExecStart`], and the exec then shows its exit code.
    pub async fn exec_start(
        &self,
        exec: &str,
        options: ExecStartOptions,
    ) -> Result<ExecStarted, EngineError> {
        let exec = self.inner.execs.find(exec)?;
        let container = self.inner.registry.find(&exec.container)?;
        check_state(container.status(), &container.id)?;
        let engine = self.clone();
        self.to_the_end(async move { start(&engine, &container, &exec, options).await }).await
    }
}

async fn start(
    engine: &Engine,
    container: &Arc<Container>,
    exec: &Arc<Exec>,
    options: ExecStartOptions,
) -> Result<ExecStarted, EngineError> {
    let running = container.running()?;
    {
        let mut live = exec.live();
        match live.phase {
            Phase::Created => live.phase = Phase::Starting,
            Phase::Starting | Phase::Running => {
                return Err(EngineError::wrong_state(format!("exec {} is already running", exec.id)));
            }
            Phase::Over => {
                return Err(EngineError::wrong_state(format!("exec {} has already run", exec.id)));
            }
        }
    }
    match launch(&engine.inner, container, &running, exec, options).await {
        Ok((shim, attached)) => {
            let recorded = supervise(engine, container, exec, &shim);
            Ok(match attached {
                Some(attached) => {
                    ExecStarted::Attached(Attached { output: attached.output.until(recorded), ..attached })
                }
                None => ExecStarted::Detached,
            })
        }
        Err(error) => {
            // Source: moby, `daemon/exec.go`: 126 unless the runtime says that there is no such command.
            let exit_code = match &error {
                EngineError::ExecStart { exit_code, .. } => *exit_code,
                _ => 126,
            };
            {
                let mut live = exec.live();
                live.phase = Phase::Over;
                live.exit_code = Some(exit_code);
            }
            remove_dir(&engine.inner, &exec.id).await;
            forget_later(engine, exec);
            Err(error)
        }
    }
}

async fn launch(
    inner: &Inner,
    container: &Container,
    running: &Running,
    exec: &Exec,
    options: ExecStartOptions,
) -> Result<(Handle, Option<Attached>), EngineError> {
    let asked = options.console_size.map(|(rows, cols)| [rows.into(), cols.into()]);
    let config = ExecConfig { console_size: asked.or(exec.config.console_size), ..exec.config.clone() };
    let spec = spec(inner, container, running, &config)?;
    let dir = inner.roots.exec(&exec.id);
    if options.detach {
        let note =
            Note { id: exec.id.clone(), container: exec.container.clone(), config: exec.config.clone() };
        let text = serde_json::to_vec(&note).expect("a note has string keys and serialises always");
        files::make_dir(&dir, 0o700)?;
        files::write_file(&dir.join(NOTE_FILE), &text, 0o600)?;
    }
    let shim =
        shim::client::spawn(&dir, &spec, Some(inner.shim_program.path())).await.map_err(spawn_error)?;
    let attached = if options.detach { None } else { Some(attach(&shim, &exec.config).await?) };
    shim.go().await.map_err(go_error)?;
    {
        let mut live = exec.live();
        live.phase = Phase::Running;
        live.pid = shim.pid();
        live.shim = Some(shim.clone());
    }
    let action = format!("exec_start: {}", exec.config.cmd.join(" "));
    inner.events.container(container, &action, &[("execID", exec.id.clone())]);
    Ok((shim, attached))
}

async fn attach(shim: &Handle, config: &ExecConfig) -> Result<Attached, EngineError> {
    let wanted = AttachOptions {
        stdin: config.attach_stdin,
        stdout: config.attach_stdout,
        stderr: config.attach_stderr,
    };
    let both = shim.attach(wanted).await.map_err(|error| EngineError::Shim(Box::new(error)))?;
    Ok(Attached {
        tty: config.tty,
        output: AttachOutput::live(both.reader),
        input: config.attach_stdin.then(|| AttachInput::live(both.writer)),
    })
}

/// The container's own process with what the exec says differently.
fn spec(
    inner: &Inner,
    container: &Container,
    running: &Running,
    config: &ExecConfig,
) -> Result<ShimSpec, EngineError> {
    let record = container.record();
    let mut security = create_parts::security(&record.host_config)?;
    if config.privileged {
        security.seccomp = runtime::seccomp::Profile::Unconfined;
    }
    let mut process = process::build(&record, security, inner.config.open_files);
    process.args.clone_from(&config.cmd);
    if config.tty && !process.env.iter().any(|pair| pair.starts_with("TERM=")) {
        process.env.push("TERM=xterm".to_owned());
    }
    process::merge_env(&mut process.env, &config.env);
    if !config.user.is_empty() {
        process.user.clone_from(&config.user);
    }
    if !config.working_dir.is_empty() {
        process.cwd.clone_from(&config.working_dir);
    }
    if config.privileged {
        process.capabilities = runtime::defaults::all_capabilities();
        process.no_new_privileges = false;
    }
    let [rows, cols] = config.console_size.unwrap_or_default().map(|n| u16::try_from(n).unwrap_or(0));
    process.terminal = config.tty.then_some(WindowSize { rows, cols });
    process.stdin = config.attach_stdin;
    let spec = ExecSpec {
        target_pid: running.shim.pid(),
        target_start_time: running.shim.pid_start_time(),
        process,
    };
    Ok(ShimSpec::new(Launch::Exec(Box::new(spec)), logs::LogSpec::None, config.attach_stdin))
}

fn spawn_error(error: SpawnError) -> EngineError {
    match error {
        SpawnError::Create(failure) => start_failure(failure),
        other => EngineError::Shim(Box::new(other)),
    }
}

fn go_error(error: RequestError) -> EngineError {
    match error {
        RequestError::Start(failure) => start_failure(failure),
        other => EngineError::Shim(Box::new(other)),
    }
}

fn start_failure(failure: StartFailure) -> EngineError {
    let exit_code = if failure.exit_code == 127 { 127 } else { 126 };
    EngineError::ExecStart {
        text: format!("unable to start container process: {}: unknown", failure.message),
        exit_code,
    }
}

/// Waits for the exec's end in the background; what it returns closes when the exit code can be asked for.
pub(crate) fn supervise(
    engine: &Engine,
    container: &Arc<Container>,
    exec: &Arc<Exec>,
    shim: &Handle,
) -> oneshot::Receiver<()> {
    let (recorded, closes) = oneshot::channel();
    let (engine, container, exec, shim) =
        (engine.clone(), Arc::clone(container), Arc::clone(exec), shim.clone());
    let inner = Arc::clone(&engine.inner);
    inner.shim_group.take_in(&shim);
    inner.tasks.spawn(async move {
        let shutdown = engine.inner.shutdown.clone();
        let ended = tokio::select! {
            ended = shim.wait() => ended,
            () = shutdown.cancelled() => return,
        };
        let exit_code = exit_code(&ended);
        {
            let mut live = exec.live();
            live.phase = Phase::Over;
            live.exit_code = Some(exit_code);
            live.shim = None;
        }
        drop(recorded);
        remove_dir(&engine.inner, &exec.id).await;
        let details = [("execID", exec.id.clone()), ("exitCode", exit_code.to_string())];
        engine.inner.events.container(&container, "exec_die", &details);
        forget_later(&engine, &exec);
    });
    closes
}

/// Forgets an exec after a while, unless it runs then: whoever sees it end calls this again.
pub(crate) fn forget_later(engine: &Engine, exec: &Arc<Exec>) {
    let (inner, exec) = (Arc::clone(&engine.inner), Arc::clone(exec));
    engine.inner.tasks.spawn(async move {
        tokio::select! {
            () = tokio::time::sleep(REMEMBERED) => {}
            () = inner.shutdown.cancelled() => return,
        }
        let is_idle = {
            let mut live = exec.live();
            let is_idle = matches!(live.phase, Phase::Created | Phase::Over);
            if is_idle {
                // Whoever has found it a moment ago can't start it any more.
                live.phase = Phase::Over;
            }
            is_idle
        };
        if is_idle {
            inner.execs.remove(&exec.id);
        }
    });
}

fn exit_code(ended: &Ended) -> i64 {
    match ended {
        Ended::Exited(exit) => i64::from(exit.code),
        Ended::Lost(_) => KILLED,
    }
}

/// Removes an exec's directory.
pub(crate) async fn remove_dir(inner: &Inner, id: &str) {
    let dir = inner.roots.exec(id);
    if let Err(error) = blocking(move || files::remove_dir(&dir)).await {
        tracing::warn!(exec.id = %id, error = &error as &dyn std::error::Error, "exec directory left");
    }
}

/// Removes an exec's directory when a probe ends, however it ends.
struct Cleanup<'a> {
    engine: &'a Engine,
    id: String,
    shim: Option<Handle>,
}

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        let (engine, id, shim) = (self.engine.clone(), std::mem::take(&mut self.id), self.shim.take());
        let inner = Arc::clone(&engine.inner);
        inner.tasks.spawn(async move {
            if let Some(shim) = shim {
                if shim.ended().is_none() {
                    // Refused only when it has ended already.
                    let _ = shim.signal(libc::SIGKILL, SignalTarget::All).await;
                }
                let given_up = async {
                    engine.inner.shutdown.cancelled().await;
                    tokio::time::sleep(SHUTDOWN_WAIT).await;
                };
                tokio::select! {
                    _ = tokio::time::timeout(KILLED_WAIT, shim.wait()) => {}
                    // Frozen, for example. The next engine finds the directory and ends what it belongs to.
                    () = given_up => return,
                }
            }
            remove_dir(&engine.inner, &id).await;
        });
    }
}

/// Runs a health probe: as a client's exec, with a time limit and limited output.
pub(crate) async fn probe(
    engine: &Engine,
    container: &Arc<Container>,
    config: ExecConfig,
    timeout: Duration,
) -> Result<Probed, EngineError> {
    let inner = &engine.inner;
    let running = container.running()?;
    let id = new_id()?;
    let say = |action: &str, more: &[(&str, String)]| {
        let mut details = vec![("execID", id.clone())];
        details.extend_from_slice(more);
        inner.events.container(container, action, &details);
    };
    say(&format!("exec_create: {}", config.cmd.join(" ")), &[]);
    let spec = spec(inner, container, &running, &config)?;
    let mut cleanup = Cleanup { engine, id: id.clone(), shim: None };
    let dir = inner.roots.exec(&id);
    let mut output = Vec::new();
    // The start counts as well. Source: moby, `daemon/health.go`: the limit is that of the whole exec.
    let run = async {
        let shim =
            shim::client::spawn(&dir, &spec, Some(inner.shim_program.path())).await.map_err(spawn_error)?;
        cleanup.shim = Some(shim.clone());
        let attached = attach(&shim, &config).await?;
        shim.go().await.map_err(go_error)?;
        say(&format!("exec_start: {}", config.cmd.join(" ")), &[]);
        collect(attached, &mut output).await;
        Ok::<_, EngineError>(shim.wait().await)
    };
    let ended = tokio::time::timeout(timeout, run).await.ok().transpose()?;
    let exit_code = ended.as_ref().map(exit_code);
    say("exec_die", &[("exitCode", exit_code.unwrap_or(KILLED).to_string())]);
    Ok(Probed { exit_code, output })
}

/// Reads all output, keeps the beginning: a probe that writes without end must not fill memory nor block.
async fn collect(mut attached: Attached, output: &mut Vec<u8>) {
    while let Some((_, bytes)) = attached.output.next().await {
        let room = PROBE_OUTPUT.saturating_sub(output.len());
        output.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}
