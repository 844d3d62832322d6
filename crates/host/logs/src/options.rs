//! Docker's `--log-driver` and `--log-opt`: which are known, and what they mean.
//!
//! In: driver, options, and for `tag`, `labels` and `env` the container they are about. Out: a [`LogSpec`] or Docker's
//! error text. Docker checks the names of options when a container is created and the values when it starts; so do
//! [`validate_log_options`] and [`log_spec`]. Never opens a file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::spec::{DEFAULT_MAX_FILES, JsonFileSpec, LogSpec};

/// Options of every driver. Source: moby, `daemon/logger/factory.go`.
const COMMON_OPTIONS: [&str; 2] = ["mode", "max-buffer-size"];

/// Options of json-file. Source: moby, `daemon/logger/jsonfilelog/jsonfilelog.go`.
const JSON_FILE_OPTIONS: [&str; 8] =
    ["max-file", "max-size", "compress", "labels", "labels-regex", "env", "env-regex", "tag"];

/// Options that Docker has and we don't.
const UNSUPPORTED_OPTIONS: [&str; 2] = ["labels-regex", "env-regex"];

/// A log driver or option that can't be used. The texts are Docker's where Docker has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogOptionError {
    /// Neither `json-file` nor `none`.
    #[error("logger: no log driver named '{driver}' is registered")]
    UnknownDriver {
        /// The driver that was asked for.
        driver: String,
    },
    /// An option json-file doesn't have.
    #[error("unknown log opt '{option}' for json-file log driver")]
    UnknownOption {
        /// The option's name.
        option: String,
    },
    /// An option that Docker knows and this engine doesn't have yet.
    #[error("log opt '{option}' is not supported")]
    Unsupported {
        /// The option, with its value where that is what isn't supported.
        option: String,
    },
    /// `mode` is neither `blocking` nor `non-blocking`.
    #[error("logger: logging mode not supported: {mode}")]
    UnknownMode {
        /// The mode that was asked for.
        mode: String,
    },
    /// `max-buffer-size` without a buffer.
    #[error("logger: max-buffer-size option is only supported with 'mode=non-blocking'")]
    BufferWithoutMode,
    /// `max-size` isn't a size.
    #[error("invalid size: '{value}'")]
    InvalidSize {
        /// The value.
        value: String,
    },
    /// `max-size` is zero.
    #[error("max-size must be a positive number")]
    SizeNotPositive,
    /// `max-file` isn't a number.
    #[error("strconv.Atoi: parsing \"{value}\": invalid syntax")]
    InvalidFileCount {
        /// The value.
        value: String,
    },
    /// `max-file` is zero or less.
    #[error("max-file cannot be less than 1")]
    FileCountTooSmall,
    /// `compress` isn't a boolean.
    #[error("strconv.ParseBool: parsing \"{value}\": invalid syntax")]
    InvalidBool {
        /// The value.
        value: String,
    },
    /// `tag` has a field or function that isn't known.
    #[error("error parsing log tag: can't evaluate `{expression}`")]
    InvalidTag {
        /// What stands between the braces.
        expression: String,
    },
}

/// The container a log is about: what `tag`, `labels` and `env` take their values from.
#[derive(Debug, Clone, Copy)]
pub struct LogSubject<'a> {
    /// The container's full id.
    pub id: &'a str,
    /// Its name, with or without the leading slash.
    pub name: &'a str,
    /// The image as the user named it.
    pub image_name: &'a str,
    /// The image's id, with `sha256:`.
    pub image_id: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Its environment, `NAME=value`.
    pub env: &'a [String],
}

/// Checks driver and names of options, as Docker does when a container or service is created.
///
/// Also refuses what this engine doesn't have, so that it shows early. Values are checked by [`log_spec`].
pub fn validate_log_options(driver: &str, options: &BTreeMap<String, String>) -> Result<(), LogOptionError> {
    // Docker takes any option with `none`.
    if driver == "none" {
        return Ok(());
    }
    validate_mode(options)?;
    if driver != "json-file" {
        return Err(LogOptionError::UnknownDriver { driver: driver.to_owned() });
    }
    for option in options.keys().map(String::as_str) {
        if UNSUPPORTED_OPTIONS.contains(&option) {
            return Err(LogOptionError::Unsupported { option: option.to_owned() });
        }
        if !COMMON_OPTIONS.contains(&option) && !JSON_FILE_OPTIONS.contains(&option) {
            return Err(LogOptionError::UnknownOption { option: option.to_owned() });
        }
    }
    if let Some(value) = options.get("compress")
        && parse_bool(value)?
    {
        return Err(LogOptionError::Unsupported { option: "compress=true".to_owned() });
    }
    Ok(())
}

/// The meaning of driver and options for one container, whose log is kept at `path`.
///
/// Docker puts `failed to initialize logging driver: ` before these errors.
pub fn log_spec(
    driver: &str,
    options: &BTreeMap<String, String>,
    subject: &LogSubject<'_>,
    path: PathBuf,
) -> Result<LogSpec, LogOptionError> {
    validate_log_options(driver, options)?;
    if driver == "none" {
        return Ok(LogSpec::None);
    }
    let max_size = options.get("max-size").map(|value| parse_size(value)).transpose()?;
    if max_size == Some(0) {
        return Err(LogOptionError::SizeNotPositive);
    }
    let max_files = options.get("max-file").map_or(Ok(DEFAULT_MAX_FILES), |value| parse_file_count(value))?;
    Ok(LogSpec::JsonFile(JsonFileSpec { path, max_size, max_files, attrs: attributes(options, subject)? }))
}

fn validate_mode(options: &BTreeMap<String, String>) -> Result<(), LogOptionError> {
    match options.get("mode").map(String::as_str) {
        None | Some("" | "blocking") if options.contains_key("max-buffer-size") => {
            Err(LogOptionError::BufferWithoutMode)
        }
        None | Some("" | "blocking") => Ok(()),
        // A buffer beside the container's pipe needs memory and a thread in every shim.
        Some("non-blocking") => Err(LogOptionError::Unsupported { option: "mode=non-blocking".to_owned() }),
        Some(mode) => Err(LogOptionError::UnknownMode { mode: mode.to_owned() }),
    }
}

/// Go's `strconv.ParseBool`.
fn parse_bool(value: &str) -> Result<bool, LogOptionError> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(LogOptionError::InvalidBool { value: value.to_owned() }),
    }
}

fn parse_file_count(value: &str) -> Result<u32, LogOptionError> {
    match value.parse::<i64>() {
        Ok(count) if count < 1 => Err(LogOptionError::FileCountTooSmall),
        Ok(count) => {
            u32::try_from(count).map_err(|_| LogOptionError::InvalidFileCount { value: value.to_owned() })
        }
        Err(_) => Err(LogOptionError::InvalidFileCount { value: value.to_owned() }),
    }
}

/// A size with a decimal unit: `10m` is ten million. Source: docker/go-units, `FromHumanSize`.
fn parse_size(value: &str) -> Result<u64, LogOptionError> {
    let invalid = || LogOptionError::InvalidSize { value: value.to_owned() };
    let digits_end = value.rfind(|c: char| c.is_ascii_digit() || c == '.').ok_or_else(invalid)? + 1;
    let (number, unit) = value.split_at(digits_end);
    let unit = unit.trim_start_matches(' ').to_ascii_lowercase();
    let exponent = match unit.strip_suffix('b').unwrap_or(&unit).trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(invalid()),
    };
    let number: f64 = number.trim_end().parse().map_err(|_| invalid())?;
    if !number.is_finite() || number < 0.0 {
        return Err(invalid());
    }
    // Truncation is Docker's; a size beyond u64 saturates.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked: finite and not negative"
    )]
    Ok((number * 1000_f64.powi(exponent)) as u64)
}

fn attributes(
    options: &BTreeMap<String, String>,
    subject: &LogSubject<'_>,
) -> Result<BTreeMap<String, String>, LogOptionError> {
    let mut attrs = BTreeMap::new();
    for label in wanted(options, "labels") {
        if let Some(value) = subject.labels.get(label) {
            attrs.insert(label.to_owned(), value.clone());
        }
    }
    for name in wanted(options, "env") {
        let value = subject.env.iter().filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
        if let Some((_, value)) = value {
            attrs.insert(name.to_owned(), value.to_owned());
        }
    }
    if let Some(template) = options.get("tag").filter(|template| !template.is_empty()) {
        attrs.insert("tag".to_owned(), expand_tag(template, subject)?);
    }
    Ok(attrs)
}

fn wanted<'a>(options: &'a BTreeMap<String, String>, key: &str) -> impl Iterator<Item = &'a str> {
    options.get(key).map(String::as_str).unwrap_or_default().split(',').filter(|name| !name.is_empty())
}

/// Replaces `{{.Field}}`; Go's other template functions are refused.
fn expand_tag(template: &str, subject: &LogSubject<'_>) -> Result<String, LogOptionError> {
    let mut expanded = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        expanded.push_str(before);
        let invalid =
            |expression: &str| LogOptionError::InvalidTag { expression: expression.trim().to_owned() };
        let (expression, after) = after.split_once("}}").ok_or_else(|| invalid(after))?;
        let name = subject.name.trim_start_matches('/');
        expanded.push_str(match expression.trim() {
            ".ID" => subject.id.get(..12).unwrap_or(subject.id),
            ".FullID" => subject.id,
            ".Name" => name,
            ".ImageName" => subject.image_name,
            ".ImageFullID" => subject.image_id,
            ".ImageID" => {
                let hex = subject.image_id.strip_prefix("sha256:").unwrap_or(subject.image_id);
                hex.get(..12).unwrap_or(hex)
            }
            ".DaemonName" => "docker",
            other => return Err(invalid(other)),
        });
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn spec(pairs: &[(&str, &str)]) -> Result<JsonFileSpec, LogOptionError> {
        let labels = map(&[("role", "web"), ("empty", "")]);
        let env = ["STAGE=test=1".to_owned(), "OTHER=x".to_owned()];
        let subject = LogSubject {
            id: "0123456789abcdef",
            name: "/web.1",
            image_name: "nginx:1",
            image_id: "sha256:fedcba9876543210",
            labels: &labels,
            env: &env,
        };
        match log_spec("json-file", &map(pairs), &subject, PathBuf::from("/log"))? {
            LogSpec::JsonFile(spec) => Ok(spec),
            LogSpec::None => unreachable!("the driver is json-file"),
        }
    }

    fn refused(driver: &str, pairs: &[(&str, &str)], text: &str) {
        assert_eq!(validate_log_options(driver, &map(pairs)).unwrap_err().to_string(), text);
    }

    #[test]
    fn names_are_refused_with_dockers_words() {
        refused("json-file", &[("colour", "red")], "unknown log opt 'colour' for json-file log driver");
        refused("splunk", &[], "logger: no log driver named 'splunk' is registered");
        refused("json-file", &[("mode", "sometimes")], "logger: logging mode not supported: sometimes");
        refused(
            "json-file",
            &[("max-buffer-size", "1m")],
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        );
        refused("json-file", &[("labels-regex", ".*")], "log opt 'labels-regex' is not supported");
        refused("json-file", &[("compress", "true")], "log opt 'compress=true' is not supported");
        assert_eq!(validate_log_options("none", &map(&[("anything", "1")])), Ok(()));
        assert_eq!(
            validate_log_options("json-file", &map(&[("compress", "false"), ("mode", "blocking")])),
            Ok(())
        );
    }

    #[test]
    fn values_are_refused_with_dockers_words() {
        let text = |pairs: &[(&str, &str)]| spec(pairs).unwrap_err().to_string();
        assert_eq!(text(&[("max-size", "lots")]), "invalid size: 'lots'");
        assert_eq!(text(&[("max-size", "10x")]), "invalid size: '10x'");
        assert_eq!(text(&[("max-size", "0")]), "max-size must be a positive number");
        assert_eq!(text(&[("max-file", "0")]), "max-file cannot be less than 1");
        assert_eq!(text(&[("max-file", "two")]), "strconv.Atoi: parsing \"two\": invalid syntax");
        assert_eq!(text(&[("tag", "{{join .Name}}")]), "error parsing log tag: can't evaluate `join .Name`");
    }

    #[test]
    fn sizes_are_decimal() {
        let size = |value: &str| spec(&[("max-size", value)]).unwrap().max_size.unwrap();
        assert_eq!(size("10m"), 10_000_000);
        assert_eq!(size("1.5k"), 1_500);
        assert_eq!(size("2GB"), 2_000_000_000);
        assert_eq!(size("7 kB"), 7_000);
        assert_eq!(size("42"), 42);
    }

    #[test]
    fn attributes_come_from_labels_environment_and_tag() {
        let spec = spec(&[
            ("labels", "role,missing"),
            ("env", "STAGE"),
            ("tag", "{{.ImageName}}/{{ .Name }}/{{.ID}}"),
            ("max-size", "1m"),
            ("max-file", "3"),
        ])
        .unwrap();
        assert_eq!(
            spec.attrs,
            map(&[("role", "web"), ("STAGE", "test=1"), ("tag", "nginx:1/web.1/0123456789ab")])
        );
        assert_eq!((spec.max_size, spec.max_files), (Some(1_000_000), 3));
    }
}
