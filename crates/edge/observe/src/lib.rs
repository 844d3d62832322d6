//! Logging of the daemon.
//!
//! In: a level and a format. Out: log lines on stderr, one per event, with fields. The level can change while the
//! daemon runs.

use std::fmt;
use std::str::FromStr;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// How much is logged. The names are dockerd's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// Everything a developer may want.
    Debug,
    /// What happens.
    #[default]
    Info,
    /// What should not happen but is dealt with.
    Warn,
    /// What failed.
    Error,
    /// Only what ends the daemon; there is nothing below errors here, so it logs errors.
    Fatal,
}

/// `--log-format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// A word that is no level or format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid logging {what}: `{word}`; valid are {valid}")]
pub struct ParseError {
    what: &'static str,
    word: String,
    valid: &'static str,
}

impl FromStr for Level {
    type Err = ParseError;

    fn from_str(word: &str) -> Result<Level, ParseError> {
        match word {
            "debug" => Ok(Level::Debug),
            "info" => Ok(Level::Info),
            "warn" => Ok(Level::Warn),
            "error" => Ok(Level::Error),
            "fatal" => Ok(Level::Fatal),
            _ => Err(ParseError {
                what: "level",
                word: word.to_owned(),
                valid: "debug, info, warn, error and fatal",
            }),
        }
    }
}

impl FromStr for Format {
    type Err = ParseError;

    fn from_str(word: &str) -> Result<Format, ParseError> {
        match word {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            _ => Err(ParseError { what: "format", word: word.to_owned(), valid: "text and json" }),
        }
    }
}

impl Level {
    fn filter(self) -> EnvFilter {
        let level = match self {
            Level::Debug => LevelFilter::DEBUG,
            Level::Info => LevelFilter::INFO,
            Level::Warn => LevelFilter::WARN,
            Level::Error | Level::Fatal => LevelFilter::ERROR,
        };
        // The libraries below speak at debug of every packet. openraft warns ten times a second of every manager that is
        // away: the manager says it once.
        let quiet =
            ["hyper=warn", "hyper_util=warn", "reqwest=warn", "rustls=warn", "openraft=error", "h2=warn"];
        quiet.iter().fold(EnvFilter::new(level.to_string()), |filter, directive| match directive.parse() {
            Ok(directive) => filter.add_directive(directive),
            Err(_) => filter,
        })
    }
}

/// Changes the level of a running daemon.
pub struct Control(Box<dyn Fn(Level) -> bool + Send + Sync>);

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Control")
    }
}

impl Control {
    /// Logs at `level` from now on; false when logging was never started.
    pub fn set_level(&self, level: Level) -> bool {
        (self.0)(level)
    }
}

/// Starts logging to stderr. Once per process; a later call changes nothing and its control does nothing.
pub fn start(level: Level, format: Format) -> Control {
    match format {
        Format::Text => {
            let builder = tracing_subscriber::fmt()
                .with_writer(std::io::stderr)
                .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
                .with_env_filter(level.filter())
                .with_filter_reloading();
            let handle = builder.reload_handle();
            let started = builder.try_init().is_ok();
            Control(Box::new(move |level| started && handle.reload(level.filter()).is_ok()))
        }
        Format::Json => {
            let builder = tracing_subscriber::fmt()
                .json()
                .flatten_event(true)
                .with_writer(std::io::stderr)
                .with_env_filter(level.filter())
                .with_filter_reloading();
            let handle = builder.reload_handle();
            let started = builder.try_init().is_ok();
            Control(Box::new(move |level| started && handle.reload(level.filter()).is_ok()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_formats_are_dockerd_s_words() {
        assert_eq!("warn".parse(), Ok(Level::Warn));
        assert_eq!("json".parse(), Ok(Format::Json));
        let error = "loud".parse::<Level>().expect_err("no level");
        assert_eq!(
            error.to_string(),
            "invalid logging level: `loud`; valid are debug, info, warn, error and fatal"
        );
    }
}
