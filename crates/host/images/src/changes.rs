//! Applies Dockerfile instructions to an image's config, as `docker import --change` takes them.
//!
//! In: instructions, one each. Out: the changed config, or which line is wrong, in Docker's words. Never runs anything.

use docker::units::parse_duration;
use docker::{HealthcheckConfig, ImageConfig, Nanos};

use crate::errors::ImportError;

fn invalid(text: impl Into<String>) -> ImportError {
    ImportError::InvalidChange(text.into())
}

/// Applies `changes` in order.
pub(crate) fn apply(config: &mut ImageConfig, changes: &[String]) -> Result<(), ImportError> {
    for change in changes {
        let change = change.trim();
        let (instruction, rest) = change.split_once(char::is_whitespace).unwrap_or((change, ""));
        apply_one(config, &instruction.to_ascii_uppercase(), rest.trim())?;
    }
    Ok(())
}

fn apply_one(config: &mut ImageConfig, instruction: &str, rest: &str) -> Result<(), ImportError> {
    // Source: moby, `builder/dockerfile`, `validCommitCommands`.
    let known = [
        "CMD",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "HEALTHCHECK",
        "LABEL",
        "ONBUILD",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ];
    if !known.contains(&instruction) {
        return Err(invalid(format!("{} is not a valid change command", instruction.to_lowercase())));
    }
    if rest.is_empty() && !matches!(instruction, "CMD" | "ENTRYPOINT") {
        return Err(invalid(format!("{instruction} requires at least one argument")));
    }
    match instruction {
        "CMD" => config.cmd = Some(command(rest, config).into()),
        "ENTRYPOINT" => {
            config.entrypoint = Some(command(rest, config).into());
            // A command given for another entry point makes no sense with this one.
            config.cmd = None;
        }
        "ENV" => {
            for (key, value) in pairs("ENV", rest)? {
                let prefix = format!("{key}=");
                config.env.retain(|old| !old.starts_with(&prefix));
                config.env.push(prefix + &value);
            }
        }
        "LABEL" => config.labels.extend(pairs("LABEL", rest)?),
        "EXPOSE" => {
            for word in words(rest)? {
                config.exposed_ports.insert(port(&word)?, Default::default());
            }
        }
        "VOLUME" => {
            let volumes = config.volumes.get_or_insert_default();
            for path in json_list(rest).map_or_else(|| words(rest), Ok)? {
                if path.trim().is_empty() {
                    return Err(invalid("VOLUME specified can not be an empty string"));
                }
                volumes.insert(path, Default::default());
            }
        }
        "WORKDIR" => config.working_dir = join(&config.working_dir, &single("WORKDIR", rest)?),
        "USER" => config.user = single("USER", rest)?,
        "STOPSIGNAL" => config.stop_signal = single("STOPSIGNAL", rest)?,
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
        _ => config.on_build.get_or_insert_default().push(rest.to_owned()),
    }
    Ok(())
}

/// The JSON form as it is, anything else for a shell.
fn command(rest: &str, config: &ImageConfig) -> Vec<String> {
    if let Some(list) = json_list(rest) {
        return list;
    }
    let mut words = match &config.shell {
        Some(shell) => shell.to_vec(),
        None => vec!["/bin/sh".to_owned(), "-c".to_owned()],
    };
    words.push(rest.to_owned());
    words
}

fn json_list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

fn single(instruction: &str, rest: &str) -> Result<String, ImportError> {
    match <[String; 1]>::try_from(words(rest)?) {
        Ok([word]) => Ok(word),
        Err(_) => Err(invalid(format!("{instruction} requires exactly one argument"))),
    }
}

/// `a=b c="d e"`, or the old form `a b c`, where the rest is the value.
fn pairs(instruction: &str, rest: &str) -> Result<Vec<(String, String)>, ImportError> {
    let words = words(rest)?;
    if words.first().is_some_and(|first| !first.contains('=')) {
        let (key, value) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| invalid(format!("{instruction} must have two arguments")))?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let split = |word: &String| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) => Err(invalid(format!("{instruction} names can not be blank"))),
        None => {
            Err(invalid(format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value")))
        }
    };
    words.iter().map(split).collect()
}

/// Splits at white space outside quotes; a backslash takes the next character as it is.
fn words(text: &str) -> Result<Vec<String>, ImportError> {
    let (mut found, mut word, mut is_word, mut quote) = (Vec::new(), String::new(), false, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                is_word = true;
                word.extend(chars.next());
            }
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.push(c),
            ('"' | '\'', None) => {
                is_word = true;
                quote = Some(c);
            }
            (c, None) if c.is_whitespace() => {
                if is_word {
                    found.push(std::mem::take(&mut word));
                }
                is_word = false;
            }
            (c, None) => {
                is_word = true;
                word.push(c);
            }
        }
    }
    if quote.is_some() {
        return Err(invalid(format!(
            "unexpected end of statement while looking for matching quote in {text:?}"
        )));
    }
    if is_word {
        found.push(word);
    }
    Ok(found)
}

/// `80`, `80/udp`, `8000-8010/tcp` as Docker's keys.
fn port(word: &str) -> Result<String, ImportError> {
    let (numbers, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let is_port = |text: &str| text.parse::<u16>().is_ok_and(|n| n > 0);
    let is_range = match numbers.split_once('-') {
        Some((low, high)) => {
            is_port(low) && is_port(high) && low.parse::<u16>().ok() <= high.parse::<u16>().ok()
        }
        None => is_port(numbers),
    };
    if !is_range || !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(invalid(format!("invalid containerPort: {word}")));
    }
    Ok(format!("{numbers}/{protocol}"))
}

/// A relative working folder lies in the one before it.
fn join(base: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let base = if path.starts_with('/') { "" } else { base };
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn healthcheck(rest: &str) -> Result<HealthcheckConfig, ImportError> {
    let mut check = HealthcheckConfig::default();
    let mut rest = rest;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        rest = after.trim_start();
        let (name, value) =
            flag.split_once('=').ok_or_else(|| invalid(format!("Missing a value on flag: {flag}")))?;
        match name {
            "interval" => check.interval = duration(name, value)?,
            "timeout" => check.timeout = duration(name, value)?,
            "start-period" => check.start_period = duration(name, value)?,
            "start-interval" => check.start_interval = duration(name, value)?,
            "retries" => {
                let retries = value
                    .parse::<u32>()
                    .map_err(|_| invalid(format!("--retries must be a number: {value}")))?;
                check.retries = retries.into();
            }
            _ => return Err(invalid(format!("Unknown flag: {name}"))),
        }
    }
    let (kind, line) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let line = line.trim();
    check.test = match kind.to_ascii_uppercase().as_str() {
        "NONE" if line.is_empty() => vec!["NONE".to_owned()],
        "NONE" => return Err(invalid("HEALTHCHECK NONE takes no arguments")),
        "CMD" if line.is_empty() => return Err(invalid("missing command after HEALTHCHECK CMD")),
        "CMD" => match json_list(line) {
            Some(list) => std::iter::once("CMD".to_owned()).chain(list).collect(),
            // Which shell is decided when it runs.
            None => vec!["CMD-SHELL".to_owned(), line.to_owned()],
        },
        other => return Err(invalid(format!("unknown type {other:?} in HEALTHCHECK (try CMD)"))),
    };
    Ok(check)
}

fn duration(name: &str, value: &str) -> Result<Nanos, ImportError> {
    let parsed = parse_duration(value).map_err(|e| invalid(format!("--{name}: {e}")))?;
    // Source: moby, `container.MinimumDuration`.
    if parsed != Nanos::ZERO && parsed < Nanos::from_millis(1) {
        return Err(invalid(format!("Interval {name:?} cannot be less than 1ms")));
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(changes: &[&str], expect: serde_json::Value) {
        let changes: Vec<String> = changes.iter().map(|s| (*s).to_owned()).collect();
        let mut config = ImageConfig::default();
        apply(&mut config, &changes).unwrap();
        let found = serde_json::to_value(config).unwrap();
        for (key, value) in expect.as_object().unwrap() {
            assert_eq!(&found[key], value, "{key} after {changes:?}");
        }
    }

    #[test]
    fn each_instruction_changes_its_field() {
        use serde_json::json;
        check(&["CMD [\"a\", \"b c\"]"], json!({"Cmd": ["a", "b c"]}));
        check(&["cmd echo $HOME"], json!({"Cmd": ["/bin/sh", "-c", "echo $HOME"]}));
        check(&["CMD x", "ENTRYPOINT [\"/e\"]"], json!({"Cmd": null, "Entrypoint": ["/e"]}));
        check(&["ENV A=1 B=\"two words\"", "ENV A 3 4"], json!({"Env": ["B=two words", "A=3 4"]}));
        check(&["LABEL a.b=c 'd e'=f"], json!({"Labels": {"a.b": "c", "d e": "f"}}));
        check(
            &["EXPOSE 80 53/UDP 1-2"],
            json!({"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "1-2/tcp": {}}}),
        );
        check(&["VOLUME [\"/a b\"]", "VOLUME /c /d"], json!({"Volumes": {"/a b": {}, "/c": {}, "/d": {}}}));
        check(&["WORKDIR /a", "WORKDIR b/../c"], json!({"WorkingDir": "/a/c"}));
        check(&["USER 1:2", "STOPSIGNAL SIGINT"], json!({"User": "1:2", "StopSignal": "SIGINT"}));
        check(&["HEALTHCHECK NONE"], json!({"Healthcheck": {"Test": ["NONE"]}}));
        check(
            &["HEALTHCHECK --interval=5s --retries=2 CMD curl -f x"],
            json!({"Healthcheck": {"Test": ["CMD-SHELL", "curl -f x"], "Interval": 5_000_000_000_i64, "Retries": 2}}),
        );
        check(&["ONBUILD RUN x"], json!({"OnBuild": ["RUN x"]}));
    }

    #[test]
    fn wrong_lines_are_refused() {
        for (line, expect) in [
            ("RUN x", "run is not a valid change command"),
            ("FROM scratch", "from is not a valid change command"),
            ("ENV", "ENV requires at least one argument"),
            ("ENV =x", "names can not be blank"),
            ("ENV A=1 B", "can't find = in"),
            ("ENV A=\"x", "matching quote"),
            ("EXPOSE 0", "invalid containerPort: 0"),
            ("EXPOSE 80/icmp", "invalid containerPort"),
            ("USER a b", "exactly one argument"),
            ("HEALTHCHECK FOO", "in HEALTHCHECK (try CMD)"),
            ("HEALTHCHECK --interval=1us CMD x", "less than 1ms"),
        ] {
            let error = apply(&mut ImageConfig::default(), &[line.to_owned()]).unwrap_err();
            assert!(error.to_string().contains(expect), "{line}: {error}");
        }
    }
}
