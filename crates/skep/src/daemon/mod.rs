//! The daemon: opens everything in order, serves until it is told to stop, closes in the reverse order.
//!
//! ```text
//! settings ─► log ─► roots ─► sockets ─► images ─► network (held) ─► engine (adopts) ─► swarm ─► network released ─► API
//! ```
//!
//! Containers are not stopped when the daemon stops; the next one adopts them.

mod config;
mod descriptors;
pub(crate) mod flags;
mod info;
mod open;
mod root;

use anyhow::Context as _;
use config::Config;
use flags::DaemonFlags;
use open::Parts;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Threads for blocking work such as unpacking layers. chosen: more would only wait for the same disk.
const BLOCKING_THREADS: usize = 32;

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start; what goes wrong later is logged.
pub(crate) fn run(flags: DaemonFlags) -> anyhow::Result<()> {
    let config = config::read(flags.clone())?;
    let log = observe::start(config.log_level, config.log_format);
    // What the daemon creates is readable by its owner alone unless a mode says otherwise.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let open_files = descriptors::raise();
    let guard = root::take(&config.data_root, &config.exec_root, &config.pidfile)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("skep")
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("start the async runtime")?;
    let outcome = runtime.block_on(serve(config, flags, log, open_files));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    drop(guard);
    outcome
}

async fn serve(
    config: Config,
    flags: DaemonFlags,
    log: observe::Control,
    open_files: engine::OpenFiles,
) -> anyhow::Result<()> {
    // Handlers first: a signal that comes while the daemon starts is not lost.
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let shutdown = CancellationToken::new();
    let listeners = open::listen(&config).await?;
    let parts = open::open(&config, open_files).await?;
    let (daemon_info, watched) = watch::channel(Arc::new(info::describe(&config)?));
    let state = api::AppState {
        engine: parts.engine.clone(),
        images: parts.images.clone(),
        swarm: parts.swarm.clone(),
        daemon: watched,
        host: Arc::new(api::HostFacts::read()),
        shutdown: shutdown.clone(),
    };
    for listener in &listeners {
        info!(address = listener.address(), "listening");
    }
    let mut serving = tokio::spawn(api::serve(listeners, state, shutdown.clone()));
    let mut running = config;
    info!(version = env!("CARGO_PKG_VERSION"), "daemon is ready");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => match config::reload(flags.clone(), &running) {
                Ok(fresh) => {
                    running = take_over(running, fresh, &parts, &log);
                    daemon_info.send_replace(Arc::new(info::describe(&running)?));
                    info!("configuration reloaded");
                }
                Err(error) => warn!(error = format!("{error:#}"), "configuration not reloaded"),
            },
            ended = &mut serving => {
                error!(?ended, "the API ended by itself");
                break;
            }
        }
    }
    info!("stopping");
    shutdown.cancel();
    // Requests that wait for a container's end are answered now, so that nobody has to wait for them.
    parts.engine.begin_shutdown();
    if !serving.is_finished() {
        // The listeners' owner ends once its connections have; an error in it was logged there.
        let _ = serving.await;
    }
    open::close(parts).await;
    info!("stopped; containers keep running");
    Ok(())
}

/// What can change while the daemon runs: labels, registries, the level of the log. Source: dockerd, `--config-file`.
fn take_over(running: Config, fresh: Config, parts: &Parts, log: &observe::Control) -> Config {
    log.set_level(fresh.log_level);
    parts.images.configure(fresh.registries.clone());
    parts.swarm.set_labels(fresh.labels.clone());
    Config { labels: fresh.labels, registries: fresh.registries, log_level: fresh.log_level, ..running }
}
