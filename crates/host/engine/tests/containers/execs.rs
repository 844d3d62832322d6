//! Execs of clients, and health probes.

use docker::{ContainerCreateRequest, ExecConfig, HealthcheckConfig, Nanos};
use engine::{EngineError, ExecStartOptions, ExecStarted, LogsOptions};
use lifecycle::health;

use crate::HOLD;
use crate::world::{World, plain, shell};

crate::cases![
    an_exec_has_its_own_output_and_exit_code,
    an_exec_that_cannot_be_run_says_so,
    an_exec_runs_as_the_container_unless_it_says_otherwise,
    health_follows_the_probe,
    a_probe_that_takes_too_long_is_killed,
    a_probe_that_cannot_run_says_why,
    a_frozen_probe_does_not_hold_the_engine,
    a_container_cannot_write_to_the_program_of_its_shim,
];

fn exec(words: &[&str]) -> ExecConfig {
    ExecConfig {
        attach_stdout: true,
        attach_stderr: true,
        cmd: words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>().into(),
        ..Default::default()
    }
}

async fn run_exec(world: &World, id: &str, config: ExecConfig) -> (i64, String) {
    let exec = world.engine.exec_create(id, config).await.unwrap().id;
    let started = world.engine.exec_start(&exec, ExecStartOptions::default()).await.unwrap();
    let ExecStarted::Attached(mut attached) = started else { panic!("asked for its streams") };
    let mut output = Vec::new();
    while let Some((_, bytes)) = attached.output.next().await {
        output.extend_from_slice(&bytes);
    }
    // The shim's word about the end follows its last output.
    loop {
        let shown = world.engine.exec_inspect(&exec).await.unwrap();
        if !shown.running {
            return (shown.exit_code.unwrap(), String::from_utf8_lossy(&output).into_owned());
        }
        tokio::task::yield_now().await;
    }
}

async fn an_exec_has_its_own_output_and_exit_code(world: World) {
    let id = world.create("sleep 60", plain()).await;
    let error = world.engine.exec_create(&id, exec(&["true"])).await.unwrap_err();
    assert_eq!(error.to_string(), format!("container {id} is not running"));
    world.engine.start(&id).await.unwrap();
    let (code, output) = run_exec(&world, &id, exec(&["sh", "-c", "echo inside; exit 9"])).await;
    assert_eq!((code, output.as_str()), (9, "inside\n"));
    let error = world.engine.exec_create(&id, exec(&[])).await.unwrap_err();
    assert_eq!(error.to_string(), "No exec command specified");
}

async fn an_exec_that_cannot_be_run_says_so(world: World) {
    let id = world.create("sleep 60", plain()).await;
    world.engine.start(&id).await.unwrap();
    let exec = world.engine.exec_create(&id, exec(&["nonesuch"])).await.unwrap().id;
    let error = world.engine.exec_start(&exec, ExecStartOptions::default()).await.err().unwrap();
    assert_eq!(
        error.to_string(),
        "OCI runtime exec failed: exec failed: unable to start container process: exec: \"nonesuch\": executable file not found in $PATH: unknown"
    );
    assert_eq!(world.engine.exec_inspect(&exec).await.unwrap().exit_code, Some(127));
    let again = world.engine.exec_start(&exec, ExecStartOptions::default()).await.err().unwrap();
    assert!(matches!(again, EngineError::WrongState(_)), "{again}");
}

async fn an_exec_runs_as_the_container_unless_it_says_otherwise(world: World) {
    let mut config = shell("sleep 60");
    config.user = "bee".into();
    config.working_dir = "/srv".into();
    config.env = vec!["COLOUR=red".into()];
    let request = ContainerCreateRequest { config, host_config: plain(), ..Default::default() };
    let id = world.create_with(request).await;
    world.engine.start(&id).await.unwrap();
    let script = "id -un; id -G; pwd; echo $COLOUR $HOSTNAME";
    let (_, output) = run_exec(&world, &id, exec(&["sh", "-c", script])).await;
    assert_eq!(output, format!("bee\n1000 2000\n/srv\nred {}\n", &id[..12]));
    let mut other = exec(&["sh", "-c", script]);
    other.user = "0:0".into();
    other.working_dir = "/tmp".into();
    other.env = vec!["COLOUR=blue".into()];
    let (_, output) = run_exec(&world, &id, other).await;
    assert_eq!(output, format!("root\n0\n/tmp\nblue {}\n", &id[..12]));
}

async fn healthy_container(world: &World, test: &str, timeout_ms: i64) -> String {
    let mut config = shell("sleep 60");
    config.healthcheck = Some(HealthcheckConfig {
        test: vec!["CMD-SHELL".into(), test.into()],
        interval: Nanos::from_millis(50),
        timeout: Nanos::from_millis(timeout_ms),
        retries: 2,
        ..Default::default()
    });
    let request = ContainerCreateRequest { config, host_config: plain(), ..Default::default() };
    let id = world.create_with(request).await;
    world.engine.start(&id).await.unwrap();
    id
}

async fn health_follows_the_probe(world: World) {
    let id = healthy_container(&world, "echo looked; test -e /ok", 5000).await;
    assert_eq!(world.engine.state(&id).unwrap().health, Some(health::Status::Starting));
    world.until(&id, |state| state.health == Some(health::Status::Unhealthy)).await;
    run_exec(&world, &id, exec(&["touch", "/ok"])).await;
    world.until(&id, |state| state.health == Some(health::Status::Healthy)).await;
    let shown = world.engine.inspect(&id, false).await.unwrap().state.health.unwrap();
    assert_eq!((shown.status.as_str(), shown.failing_streak), ("healthy", 0));
    assert!(shown.log.len() <= 5 && shown.log.iter().all(|entry| entry.output == "looked\n"), "{shown:?}");
    run_exec(&world, &id, exec(&["rm", "/ok"])).await;
    world.until(&id, |state| state.health == Some(health::Status::Unhealthy)).await;
    assert_eq!(world.engine.state(&id).unwrap().status, engine::Status::Running);
}

async fn a_probe_that_takes_too_long_is_killed(world: World) {
    let id = healthy_container(&world, "echo slow; sleep 30", 150).await;
    world.until(&id, |state| state.health == Some(health::Status::Unhealthy)).await;
    let shown = world.engine.inspect(&id, false).await.unwrap().state.health.unwrap();
    let entry = shown.log.last().unwrap();
    assert_eq!(entry.exit_code, -1);
    assert_eq!(entry.output, "Health check exceeded timeout (150ms): slow\n");
}

async fn a_probe_that_cannot_run_says_why(world: World) {
    let mut config = shell("sleep 60");
    config.healthcheck = Some(HealthcheckConfig {
        test: vec!["CMD".into(), "nonesuch".into()],
        interval: Nanos::from_millis(20),
        retries: 1,
        ..Default::default()
    });
    let request = ContainerCreateRequest { config, host_config: plain(), ..Default::default() };
    let id = world.create_with(request).await;
    world.engine.start(&id).await.unwrap();
    world.until(&id, |state| state.health == Some(health::Status::Unhealthy)).await;
    let shown = world.engine.inspect(&id, false).await.unwrap().state.health.unwrap();
    assert_eq!(shown.log[0].exit_code, -1);
    assert!(shown.log[0].output.contains("executable file not found in $PATH"), "{}", shown.log[0].output);
}

async fn a_frozen_probe_does_not_hold_the_engine(mut world: World) {
    let mut config = shell("sleep 60");
    config.healthcheck = Some(HealthcheckConfig {
        test: vec!["CMD-SHELL".into(), "echo begun > /probe; sleep 60".into()],
        start_period: Nanos::from_secs(60),
        start_interval: Nanos::from_millis(10),
        ..Default::default()
    });
    let request = ContainerCreateRequest { config, host_config: plain(), ..Default::default() };
    let id = world.create_with(request).await;
    world.engine.start(&id).await.unwrap();
    while run_exec(&world, &id, exec(&["cat", "/probe"])).await.1 != "begun\n" {}
    world.engine.pause(&id).await.unwrap();
    let began = std::time::Instant::now();
    world.engine.shutdown().await;
    assert!(began.elapsed() < std::time::Duration::from_millis(400), "{:?}", began.elapsed());
    world.reopen().await;
    // What was left of the probe is gone once it can be.
    world.engine.unpause(&id).await.unwrap();
    let probes = || std::fs::read_dir(world.root.join("exec/execs")).unwrap().count();
    while probes() > 1 {
        tokio::task::yield_now().await;
    }
}

/// Source: CVE-2019-5736. What the kernel executes as a script's interpreter is this program itself, seen from inside.
async fn a_container_cannot_write_to_the_program_of_its_shim(world: World) {
    let setup = format!(
        "busybox ln -s /proc/self/exe /bin/x; echo '#!/proc/self/exe' > {HOLD}; busybox chmod 755 {HOLD}; echo set; \
         sleep 60"
    );
    let id = world.create(&setup, plain()).await;
    let options = LogsOptions { stdout: true, follow: true, ..Default::default() };
    world.engine.start(&id).await.unwrap();
    let mut logs = world.engine.logs(&id, options).await.unwrap();
    assert_eq!(logs.next().await.unwrap().unwrap().line, b"set\n");
    let start = async |words: &[&str]| {
        let exec = world.engine.exec_create(&id, exec(words)).await.unwrap().id;
        let options = ExecStartOptions { detach: true, ..Default::default() };
        world.engine.exec_start(&exec, options).await.map(|_| exec)
    };
    let refused = start(&["/bin/x", HOLD]).await.unwrap_err();
    assert!(refused.to_string().contains("/bin/x"), "{refused}");
    let held = start(&[HOLD]).await.unwrap();
    assert!(world.engine.exec_inspect(&held).await.unwrap().running);
    // The write of a whole new program, and that of a few bytes through a descriptor taken before.
    let attack = "for p in /proc/[0-9]*; do [ \"$(cat $p/comm)\" = hold ] && target=$p/exe; done; \
                  exec 3<$target; echo found; \
                  (echo evil > $target) 2>&1; (echo evil > /proc/self/fd/3) 2>&1; exit 0";
    let (code, output) = run_exec(&world, &id, exec(&["sh", "-c", attack])).await;
    assert_eq!(code, 0, "{output}");
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!((lines.len(), lines[0]), (3, "found"), "{output}");
    assert!(lines[1..].iter().all(|line| line.ends_with("Read-only file system")), "{output}");
}
