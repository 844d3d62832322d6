//! Reads values that several commands take: key=value lists, sizes, durations, limits.
//!
//! In: text as typed. Out: JSON for the API, or an error in docker's words.

use crate::CliError;
use serde_json::{Map, Value, json};
use std::fs;
use std::net::IpAddr;

/// Nanoseconds of a Go duration such as `1m30s`.
pub fn duration(text: &str) -> Result<i64, CliError> {
    docker::units::parse_duration(text).map(|nanos| nanos.0).map_err(|error| CliError::new(error.to_string()))
}

/// Bytes of a size such as `512m`.
pub fn size(text: &str) -> Result<i64, CliError> {
    docker::units::parse_ram(text).map_err(|error| CliError::new(error.to_string()))
}

/// Bytes of memory and swap together; -1 is no limit.
pub fn swap(text: &str) -> Result<i64, CliError> {
    if text == "-1" { Ok(-1) } else { size(text) }
}

/// Billionths of a CPU of a decimal such as `0.5`; a negative number is for the daemon to refuse.
pub fn cpus(text: &str) -> Result<i64, CliError> {
    if let Some(positive) = text.strip_prefix('-').filter(|rest| !rest.starts_with('-')) {
        return cpus(positive)
            .map(|nanos| -nanos)
            .map_err(|error| CliError { message: error.message.replace(positive, text), ..error });
    }
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
    let text = fs::read_to_string(file).map_err(|error| CliError::file("open", file, &error))?;
    let kept = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(kept.map(str::to_owned).collect())
}

/// `NAME=value`, or `NAME` for this process's value.
pub fn variable(text: &str) -> Result<String, CliError> {
    if text.is_empty() || text.starts_with('=') {
        return Err(CliError::new(format!("invalid environment variable: {text}")));
    }
    Ok(text.to_owned())
}

/// `key=value` or `key`.
pub fn label(text: &str) -> Result<String, CliError> {
    if text.is_empty() || text.starts_with('=') {
        return Err(CliError::new(format!("invalid label '{text}': empty name")));
    }
    Ok(text.to_owned())
}

/// An IP address.
pub fn address(text: &str) -> Result<String, CliError> {
    let wrong = |_| CliError::new(format!("IP address is not correctly formatted: {text}"));
    text.trim().parse::<IpAddr>().map(|address| address.to_string()).map_err(wrong)
}

/// A domain to search names in; `.` for none.
pub fn domain(text: &str) -> Result<String, CliError> {
    let name = text.trim();
    let is_label = |label: &str| {
        label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && label.starts_with(|c: char| c.is_ascii_alphanumeric())
            && label.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    let is_domain = name.chars().any(|c| c.is_ascii_alphabetic())
        && name.len() < 255
        && name.strip_suffix('.').unwrap_or(name).split('.').all(is_label);
    if name == "." || is_domain {
        return Ok(name.to_owned());
    }
    Err(CliError::new(format!("{text} is not a valid domain")))
}

/// `name:address` or `name=address`, as `name:address`; the address may be `host-gateway`.
pub fn extra_host(text: &str) -> Result<String, CliError> {
    let (name, found) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .filter(|(name, _)| !name.is_empty() && !name.contains(':'))
        .ok_or_else(|| CliError::new(format!("bad format for add-host: {text:?}")))?;
    let bare = found.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(found);
    if bare != "host-gateway" && address(bare).is_err() {
        return Err(CliError::new(format!("invalid IP address in add-host: {bare:?}")));
    }
    Ok(format!("{name}:{bare}"))
}

/// Kernel settings that a namespace has of its own. Source: docker/cli `opts/opts.go` `ValidateSysctl`.
const SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// `net.x=value`: a kernel setting.
pub fn sysctl(text: &str) -> Result<String, CliError> {
    let is_known =
        |name: &str| SYSCTLS.contains(&name) || name.starts_with("net.") || name.starts_with("fs.mqueue.");
    match text.split_once('=') {
        Some((name, _)) if is_known(name) => Ok(text.to_owned()),
        _ => Err(CliError::new(format!("sysctl '{text}' is not allowed"))),
    }
}

/// A stream to attach to, in lower case.
pub fn stream(text: &str) -> Result<String, CliError> {
    let name = text.to_lowercase();
    if ["stdin", "stdout", "stderr"].contains(&name.as_str()) {
        return Ok(name);
    }
    Err(CliError::new("valid streams are STDIN, STDOUT and STDERR"))
}

/// Words as a shell splits them.
#[derive(Debug, Clone)]
pub struct Words(pub Vec<String>);

/// Splits at blanks; quotes keep words together.
pub fn words(text: &str) -> Result<Words, CliError> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(CliError::new("EOF found when expecting closing quote"));
    }
    words.extend(word);
    Ok(Words(words))
}

/// `no`, `always`, `unless-stopped`, `on-failure[:n]`.
pub fn restart_policy(text: &str) -> Result<Value, CliError> {
    let (name, count) = text.split_once(':').unwrap_or((text, "0"));
    let count: i64 = count.parse().map_err(|_| {
        CliError::new("invalid restart policy format: maximum retry count must be an integer")
    })?;
    Ok(json!({"Name": name, "MaximumRetryCount": count}))
}

/// Security options; a seccomp profile given as a file is sent by value.
pub fn security_options(options: &[String]) -> Result<Vec<String>, CliError> {
    let read = |option: &String| match option.strip_prefix("seccomp=") {
        Some(file) if file != "unconfined" && file != "builtin" => {
            let text = fs::read_to_string(file).map_err(|error| {
                let error = CliError::file("open", file, &error);
                CliError::new(format!("opening seccomp profile ({file}) failed: {error}"))
            })?;
            Ok(format!("seccomp={text}"))
        }
        None if !option.contains(['=', ':']) && option != "no-new-privileges" => {
            Err(CliError::new(format!("Invalid --security-opt: {option:?}")))
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
        ["", ..] => return Err(CliError::new(format!("bad format for path: {text}"))),
        [host] => (*host, *host, "rwm"),
        [host, second] if is_mode(second) => (*host, *host, *second),
        [host, second] => (*host, *second, "rwm"),
        [host, second, mode] if is_mode(mode) => (*host, *second, *mode),
        [_, _, mode] => return Err(CliError::new(format!("bad mode specified: {mode}"))),
        _ => return Err(CliError::new(format!("bad format for path: {text}"))),
    };
    if !inside.starts_with('/') {
        return Err(CliError::new(format!("{inside} is not an absolute path")));
    }
    Ok(json!({"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": mode}))
}

/// Source: docker/go-units `ulimit.go`.
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `name=soft[:hard]`; -1 is no limit.
pub fn ulimit(text: &str) -> Result<Value, CliError> {
    let wrong = || CliError::new(format!("invalid ulimit argument: {text}"));
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    if !ULIMITS.contains(&name) {
        return Err(CliError::new(format!("invalid ulimit type: {name}")));
    }
    let number = |text: &str| -> Result<i64, CliError> {
        let wrong = |_| CliError::new(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"));
        text.parse().map_err(wrong)
    };
    let (soft, hard) = match limits.split(':').collect::<Vec<_>>().as_slice() {
        [both] => (number(both)?, number(both)?),
        [soft, hard] => {
            let hard = number(hard)?;
            (number(soft)?, hard)
        }
        _ => {
            let most = "can only have up to two, `soft[:hard]`";
            return Err(CliError::new(format!("too many limit value arguments - {limits}, {most}")));
        }
    };
    let above = "ulimit soft limit must be less than or equal to hard limit";
    match (soft, hard) {
        (_, -1) => {}
        (-1, _) => return Err(CliError::new(format!("{above}: soft: -1 (unlimited), hard: {hard}"))),
        _ if soft > hard => return Err(CliError::new(format!("{above}: {soft} > {hard}"))),
        _ => {}
    }
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
        assert_eq!(cpus("-1.5").expect("a number"), -1_500_000_000);
        assert_eq!(cpus("-x").expect_err("a letter").to_string(), "failed to parse -x as a rational number");
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
        for (text, error) in [
            ("nofile", "invalid ulimit argument: nofile"),
            ("foo=1", "invalid ulimit type: foo"),
            ("nofile=2:1", "ulimit soft limit must be less than or equal to hard limit: 2 > 1"),
        ] {
            assert_eq!(ulimit(text).expect_err(text).to_string(), error);
        }
        assert_eq!(device("/a:/b:q").expect_err("no mode").to_string(), "bad mode specified: q");
        assert_eq!(device("a").expect_err("relative").to_string(), "a is not an absolute path");
    }

    #[test]
    fn hosts_and_domains_are_checked() {
        assert_eq!(extra_host("a=[::1]").expect("v6"), "a:::1");
        assert_eq!(extra_host("a:host-gateway").expect("a word"), "a:host-gateway");
        assert_eq!(
            extra_host("x:y").expect_err("no address").to_string(),
            "invalid IP address in add-host: \"y\""
        );
        for (text, is_fine) in [("a.b-c", true), (".", true), ("a b", false), ("1.2", false), ("-a", false)] {
            assert_eq!(domain(text).is_ok(), is_fine, "{text}");
        }
        assert!(sysctl("net.a=1").is_ok() && sysctl("vm.a=1").is_err() && sysctl("net.a").is_err());
    }

    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(words("sh -c 'a b' \"\" c").expect("quotes are closed").0, ["sh", "-c", "a b", "", "c"]);
        assert!(words("a 'b").is_err());
    }
}
