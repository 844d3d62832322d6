//! Reads values that several commands take: key=value lists, sizes, durations, limits.
//!
//! In: text as typed. Out: JSON for the API, or an error in docker's words.

use crate::CliError;
use serde_json::{Map, Value, json};
use std::fs;

/// Nanoseconds of a Go duration such as `1m30s`.
pub fn duration(text: &str) -> Result<i64, CliError> {
    docker::units::parse_duration(text).map(|nanos| nanos.0).map_err(|error| CliError::new(error.to_string()))
}

/// Bytes of a size such as `512m`.
pub fn size(text: &str) -> Result<i64, CliError> {
    docker::units::parse_ram(text).map_err(|error| CliError::new(error.to_string()))
}

/// Billionths of a CPU of a decimal such as `0.5`.
pub fn cpus(text: &str) -> Result<i64, CliError> {
    let wrong = || CliError::new(format!("failed to parse {text} as a rational number"));
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 9 {
        return Err(CliError::new("value is too precise"));
    }
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || !digits(whole) || !digits(part) {
        return Err(wrong());
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
    let part: i64 = if part.is_empty() { 0 } else { format!("{part:0<9}").parse().map_err(|_| wrong())? };
    whole.checked_mul(1_000_000_000).and_then(|nanos| nanos.checked_add(part)).ok_or_else(wrong)
}

/// `k=v` texts as an object; a text without `=` has an empty value.
pub fn pairs(texts: &[String]) -> Value {
    Value::Object(texts.iter().map(|text| pair(text)).collect())
}

fn pair(text: &str) -> (String, Value) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), json!(value))
}

/// Labels from flags and files.
pub fn labels(flags: &[String], files: &[String]) -> Result<Value, CliError> {
    let mut all = Map::new();
    for file in files {
        all.extend(lines(file)?.iter().map(|line| pair(line)));
    }
    all.extend(flags.iter().map(|text| pair(text)));
    Ok(Value::Object(all))
}

/// Environment from files and flags; a name without `=` takes this process's value, or is left out.
pub fn environment(flags: &[String], files: &[String]) -> Result<Vec<String>, CliError> {
    let mut all = Vec::new();
    for file in files {
        all.extend(lines(file)?);
    }
    all.extend(flags.iter().cloned());
    let valued = all.into_iter().filter_map(|entry| {
        if entry.contains('=') {
            return Some(Ok(entry));
        }
        if entry.is_empty() {
            return Some(Err(CliError::new(format!("invalid environment variable: {entry}"))));
        }
        std::env::var(&entry).ok().map(|value| Ok(format!("{entry}={value}")))
    });
    valued.collect()
}

fn lines(file: &str) -> Result<Vec<String>, CliError> {
    let text = fs::read_to_string(file).map_err(|error| CliError::new(format!("open {file}: {error}")))?;
    let kept = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(kept.map(str::to_owned).collect())
}

/// `no`, `always`, `unless-stopped`, `on-failure[:n]`.
pub fn restart_policy(text: &str) -> Result<Value, CliError> {
    let (name, count) = text.split_once(':').unwrap_or((text, "0"));
    let count: i64 = count.parse().map_err(|_| {
        CliError::new(format!(
            "invalid restart policy format: maximum retry count must be an integer: {text}"
        ))
    })?;
    Ok(json!({"Name": name, "MaximumRetryCount": count}))
}

/// Security options; a seccomp profile given as a file is sent by value.
pub fn security_options(options: &[String]) -> Result<Vec<String>, CliError> {
    let read = |option: &String| match option.strip_prefix("seccomp=") {
        Some(file) if file != "unconfined" && file != "builtin" => {
            let text = fs::read_to_string(file).map_err(|error| {
                CliError::new(format!("opening seccomp profile ({file}) failed: {error}"))
            })?;
            Ok(format!("seccomp={text}"))
        }
        _ => Ok(option.clone()),
    };
    options.iter().map(read).collect()
}

/// `/dev/x[:/dev/y[:rwm]]`.
pub fn device(text: &str) -> Result<Value, CliError> {
    let parts: Vec<&str> = text.split(':').collect();
    let is_mode = |text: &str| !text.is_empty() && text.chars().all(|c| "rwm".contains(c));
    let (host, inside, mode) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, second] if is_mode(second) => (*host, *host, *second),
        [host, second] => (*host, *second, "rwm"),
        [host, second, mode] if is_mode(mode) => (*host, *second, *mode),
        _ => return Err(CliError::new(format!("invalid device specification: {text}"))),
    };
    Ok(json!({"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": mode}))
}

/// `name=soft[:hard]`.
pub fn ulimit(text: &str) -> Result<Value, CliError> {
    let wrong = || CliError::new(format!("invalid ulimit argument: {text}"));
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let soft: i64 = soft.parse().map_err(|_| wrong())?;
    let hard: i64 = hard.parse().map_err(|_| wrong())?;
    Ok(json!({"Name": name, "Soft": soft, "Hard": hard}))
}

/// `--filter key=value` flags as the API's query.
pub fn filters(flags: &[String]) -> Result<Option<String>, CliError> {
    let mut all: Map<String, Value> = Map::new();
    for flag in flags {
        let (key, value) = flag.split_once('=').ok_or_else(|| {
            CliError::new("bad format of filter (expected name=value)").for_flag("-f, --filter", flag)
        })?;
        let values = all.entry(key.trim().to_lowercase()).or_insert_with(|| json!({}));
        values[value.trim()] = json!(true);
    }
    Ok((!all.is_empty()).then(|| Value::Object(all).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_exact_decimals() {
        for (text, nanos) in
            [("1.5", 1_500_000_000), (".25", 250_000_000), ("2", 2_000_000_000), ("0.000000001", 1)]
        {
            assert_eq!(cpus(text).expect(text), nanos);
        }
        assert_eq!(cpus("x").expect_err("a letter").to_string(), "failed to parse x as a rational number");
        assert!(cpus(".").is_err());
    }

    #[test]
    fn filters_are_gathered_by_key() {
        let text =
            filters(&["label=a=b".into(), "label=c".into(), "status=running".into()]).expect("all have =");
        assert_eq!(text.as_deref(), Some(r#"{"label":{"a=b":true,"c":true},"status":{"running":true}}"#));
        assert!(filters(&["x".into()]).is_err());
    }

    #[test]
    fn devices_and_ulimits_are_split() {
        assert_eq!(device("/dev/a:/dev/b:r").expect("three parts")["PathInContainer"], "/dev/b");
        assert_eq!(device("/dev/a:rw").expect("a mode")["CgroupPermissions"], "rw");
        assert_eq!(ulimit("nofile=1024:2048").expect("two limits")["Hard"], 2048);
        assert!(ulimit("nofile").is_err());
    }
}
