//! Merges an image's settings into what a client asked for.
//!
//! In: the config of the create request, the config of the image. Out: the config the container is created with, or
//! Docker's refusal when nothing says what to run. Source: moby, `daemon/commit.go`, `merge`.

use docker::{ContainerConfig, HealthcheckConfig};

use crate::error::InvalidRequest;

/// Fills what `user` left open from `image`.
pub(crate) fn merge(mut user: ContainerConfig, image: &ContainerConfig) -> ContainerConfig {
    if user.user.is_empty() {
        user.user.clone_from(&image.user);
    }
    for port in image.exposed_ports.keys() {
        user.exposed_ports.entry(port.clone()).or_default();
    }
    merge_env(&mut user.env, &image.env);
    for (label, value) in &image.labels {
        user.labels.entry(label.clone()).or_insert_with(|| value.clone());
    }
    merge_command(&mut user, image);
    user.healthcheck = merge_healthcheck(user.healthcheck.take(), image.healthcheck.as_ref());
    if user.working_dir.is_empty() {
        user.working_dir.clone_from(&image.working_dir);
    }
    if let Some(volumes) = &image.volumes
        && !volumes.is_empty()
    {
        let mine = user.volumes.get_or_insert_default();
        for path in volumes.keys() {
            mine.entry(path.clone()).or_default();
        }
    }
    if user.stop_signal.is_empty() {
        user.stop_signal.clone_from(&image.stop_signal);
    }
    if user.shell.is_none() {
        user.shell.clone_from(&image.shell);
    }
    user
}

/// Refuses a container that has nothing to run.
pub(crate) fn check_command(config: &ContainerConfig) -> Result<(), InvalidRequest> {
    // `--entrypoint ""` sends `[""]`: it clears the image's entrypoint and is no command of its own.
    let entrypoint_runs = !is_empty(&config.entrypoint);
    if is_empty(&config.cmd) && !entrypoint_runs {
        return Err(InvalidRequest("no command specified".into()));
    }
    Ok(())
}

fn is_empty<W: std::ops::Deref<Target = Vec<String>>>(words: &Option<W>) -> bool {
    words.as_ref().is_none_or(|words| words.is_empty())
}

/// The user's come first in order of the client; the image's follow unless the user set the same name.
fn merge_env(user: &mut Vec<String>, image: &[String]) {
    let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
    let mine: std::collections::BTreeSet<String> = user.iter().map(|pair| name(pair)).collect();
    user.extend(image.iter().filter(|pair| !mine.contains(&name(pair))).cloned());
}

/// An entrypoint of the user's own drops the image's command, because that was written for the image's entrypoint.
fn merge_command(user: &mut ContainerConfig, image: &ContainerConfig) {
    match &user.entrypoint {
        None => {
            if is_empty(&user.cmd) {
                user.cmd.clone_from(&image.cmd);
                user.args_escaped = image.args_escaped;
            }
            user.entrypoint.clone_from(&image.entrypoint);
        }
        Some(words) if words.len() == 1 && words[0].is_empty() => user.entrypoint = None,
        Some(words) if words.is_empty() && is_empty(&user.cmd) => user.cmd.clone_from(&image.cmd),
        Some(_) => {}
    }
}

fn merge_healthcheck(
    user: Option<HealthcheckConfig>,
    image: Option<&HealthcheckConfig>,
) -> Option<HealthcheckConfig> {
    let (Some(mut mine), Some(base)) = (user.clone(), image) else {
        return user.or_else(|| image.cloned());
    };
    if mine.test.is_empty() {
        mine.test.clone_from(&base.test);
    }
    for (value, default) in [
        (&mut mine.interval, base.interval),
        (&mut mine.timeout, base.timeout),
        (&mut mine.start_period, base.start_period),
        (&mut mine.start_interval, base.start_interval),
    ] {
        if value.0 == 0 {
            *value = default;
        }
    }
    if mine.retries == 0 {
        mine.retries = base.retries;
    }
    Some(mine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use docker::Nanos;

    fn words<W: From<Vec<String>>>(list: &[&str]) -> Option<W> {
        Some(list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>().into())
    }

    fn image() -> ContainerConfig {
        ContainerConfig {
            user: "www".into(),
            env: vec!["PATH=/bin".into(), "LANG=C".into()],
            cmd: words(&["-g", "daemon off"]),
            entrypoint: words(&["/entry"]),
            working_dir: "/srv".into(),
            stop_signal: "SIGQUIT".into(),
            labels: [("a".to_owned(), "image".to_owned()), ("b".to_owned(), "image".to_owned())].into(),
            exposed_ports: [("80/tcp".to_owned(), Default::default())].into(),
            volumes: Some([("/data".to_owned(), Default::default())].into()),
            healthcheck: Some(HealthcheckConfig {
                test: vec!["CMD".into(), "true".into()],
                interval: Nanos::from_secs(7),
                retries: 4,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn what_the_user_left_open_comes_from_the_image() {
        let merged = merge(ContainerConfig::default(), &image());
        assert_eq!(merged, image());
    }

    #[test]
    fn what_the_user_said_wins() {
        let user = ContainerConfig {
            user: "me".into(),
            env: vec!["LANG=de".into(), "X=1".into()],
            cmd: words(&["ls"]),
            labels: [("a".to_owned(), "mine".to_owned())].into(),
            working_dir: "/".into(),
            ..Default::default()
        };
        let merged = merge(user, &image());
        assert_eq!(merged.env, ["LANG=de", "X=1", "PATH=/bin"]);
        assert_eq!((merged.user.as_str(), merged.working_dir.as_str()), ("me", "/"));
        assert_eq!((merged.labels["a"].as_str(), merged.labels["b"].as_str()), ("mine", "image"));
        assert_eq!((merged.entrypoint, merged.cmd), (words(&["/entry"]), words(&["ls"])));
    }

    #[test]
    fn an_entrypoint_of_the_users_own_drops_the_images_command() {
        let user = ContainerConfig { entrypoint: words(&["sh"]), ..Default::default() };
        let merged = merge(user, &image());
        assert_eq!((merged.entrypoint, merged.cmd), (words(&["sh"]), None));
    }

    #[test]
    fn an_empty_entrypoint_clears_the_images() {
        let user = ContainerConfig { entrypoint: words(&[""]), cmd: words(&["ls"]), ..Default::default() };
        let merged = merge(user, &image());
        assert_eq!((merged.entrypoint, merged.cmd), (None, words(&["ls"])));
    }

    #[test]
    fn a_health_check_takes_over_what_it_does_not_say() {
        let user = ContainerConfig {
            healthcheck: Some(HealthcheckConfig { interval: Nanos::from_secs(1), ..Default::default() }),
            ..Default::default()
        };
        let check = merge(user, &image()).healthcheck.unwrap();
        assert_eq!((check.test[1].as_str(), check.interval, check.retries), ("true", Nanos::from_secs(1), 4));
    }

    #[test]
    fn a_container_without_anything_to_run_is_refused() {
        let config = merge(ContainerConfig::default(), &ContainerConfig::default());
        assert_eq!(check_command(&config).unwrap_err().to_string(), "no command specified");
        let cleared = ContainerConfig { entrypoint: words(&[""]), ..Default::default() };
        assert!(check_command(&merge(cleared, &image())).is_err());
        assert!(check_command(&merge(ContainerConfig::default(), &image())).is_ok());
    }
}
