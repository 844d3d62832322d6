//! Shows progress messages: a line per id, redrawn in place on a terminal, else one line per message that says more than
//! how far something moved.
//!
//! In: messages, from the daemon's JSON stream or made here. Out: text to be written. Source: moby
//! `pkg/jsonmessage/jsonmessage.go`; the bytes are the same as docker's client writes.

use serde::Deserialize;
use serde_json::Value;

/// A terminal needs more columns than this for a bar. Source: moby `jsonmessage.go`.
const BAR_FROM_COLUMNS: u16 = 110;
/// Cells of a bar. Source: moby `jsonmessage.go`.
const BAR_CELLS: usize = 50;

/// One message of a stream of progress.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Message {
    /// What moves: a layer, a task's slot. Empty for a message about the whole.
    pub id: String,
    /// What it does.
    pub status: String,
    /// Text to be shown as it is.
    pub stream: String,
    /// How far it is; only messages that have it are redrawn in place.
    #[serde(rename = "progressDetail")]
    pub progress: Option<Far>,
    /// Ends the stream.
    #[serde(rename = "errorDetail")]
    pub failed: Option<Failed>,
    /// Of an error without detail.
    pub error: String,
    /// Data for programs; such a message is not shown.
    pub aux: Value,
}

/// How far something is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Far {
    /// Done so far, in `units`.
    pub current: u64,
    /// All there is to do; 0 when it is not known.
    pub total: u64,
    /// Only the bar is shown.
    #[serde(rename = "hidecounts")]
    pub is_uncounted: bool,
    /// What is counted; empty for bytes.
    pub units: String,
}

/// Why a stream ended early.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Failed {
    /// What the client ends with; 0 for 1.
    pub code: i32,
    /// For the user.
    pub message: String,
}

impl Message {
    /// A line that is redrawn in place.
    pub fn moving(id: impl Into<String>, status: impl Into<String>, progress: Far) -> Message {
        let progress = Some(progress);
        Message { id: id.into(), status: status.into(), progress, ..Message::default() }
    }

    /// A line that stays; `id` may be empty.
    pub fn lasting(id: &str, status: impl Into<String>) -> Message {
        Message { id: id.to_owned(), status: status.into(), ..Message::default() }
    }

    /// What ended the stream, if this message does.
    pub fn error(&self) -> Option<&str> {
        let detail = self.failed.as_ref().map(|failed| failed.message.as_str());
        detail.filter(|text| !text.is_empty()).or(Some(&self.error)).filter(|text| !text.is_empty())
    }
}

impl Far {
    /// The bar and the counts, as wide as a terminal of `columns` allows; empty when there is nothing to tell.
    fn shown(&self, columns: u16) -> String {
        let bytes = |count: u64| docker::units::human_size(count, 4);
        if self.total == 0 {
            return match (self.current, self.units.as_str()) {
                (0, _) => String::new(),
                (current, "") => format!("{:>8}", bytes(current)),
                (current, units) => format!("{current} {units}"),
            };
        }
        let cells = usize::try_from(u128::from(self.current) * 100 / u128::from(self.total) / 2);
        let cells = cells.unwrap_or(BAR_CELLS).min(BAR_CELLS);
        let mut out = String::new();
        if columns > BAR_FROM_COLUMNS {
            out = format!("[{}>{}] ", "=".repeat(cells), " ".repeat(BAR_CELLS - cells));
        }
        // A count above the total shows that the total is wrong.
        let is_known = self.current <= self.total;
        match (self.is_uncounted, self.units.as_str(), is_known) {
            (true, ..) => {}
            (_, "", true) => out.push_str(&format!("{:>8}/{}", bytes(self.current), bytes(self.total))),
            (_, "", false) => out.push_str(&format!("{:>8}", bytes(self.current))),
            (_, units, true) => out.push_str(&format!("{}/{} {units}", self.current, self.total)),
            (_, units, false) => out.push_str(&format!("{} {units}", self.current)),
        }
        out
    }

    /// Whether it is only something for a bar, which nobody wants in a file.
    fn is_for_bar(&self) -> bool {
        self.current > 0 || self.total > 0
    }
}

/// The lines that are on the screen.
pub struct Board {
    /// Of the terminal; none when the output is not one.
    columns: Option<u16>,
    /// Ids in the order of their lines.
    lines: Vec<String>,
}

impl Board {
    /// An empty board on a terminal of so many columns, or on something that is not a terminal.
    pub fn new(columns: Option<u16>) -> Board {
        Board { columns, lines: Vec::new() }
    }

    /// What has to be written to show `message`.
    pub fn draw(&mut self, message: &Message) -> String {
        if !message.aux.is_null() {
            return String::new();
        }
        let Some(progress) = &message.progress else {
            // What follows a lasting line begins anew below it.
            self.lines.clear();
            return lasting(message);
        };
        let Some(columns) = self.columns else {
            return if progress.is_for_bar() { String::new() } else { lasting(message) };
        };
        let text = format!("{}{} {}", named(message), message.status, progress.shown(columns));
        if message.id.is_empty() {
            self.lines.clear();
            return format!("\x1b[2K\r{text}\r");
        }
        let known = self.lines.iter().position(|id| *id == message.id);
        let at = known.unwrap_or_else(|| {
            self.lines.push(message.id.clone());
            self.lines.len() - 1
        });
        let up = self.lines.len() - at;
        let room = if known.is_none() { "\n" } else { "" };
        format!("{room}\x1b[{up}A\x1b[2K\r{text}\r\x1b[{up}B")
    }
}

fn named(message: &Message) -> String {
    if message.id.is_empty() { String::new() } else { format!("{}: ", message.id) }
}

fn lasting(message: &Message) -> String {
    if message.stream.is_empty() {
        format!("{}{}\n", named(message), message.status)
    } else {
        format!("{}{}", named(message), message.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(columns: Option<u16>, messages: &[Message]) -> String {
        let mut board = Board::new(columns);
        messages.iter().map(|message| board.draw(message)).collect()
    }

    fn far(current: u64, total: u64) -> Far {
        Far { current, total, ..Far::default() }
    }

    #[test]
    fn a_terminal_redraws_the_line_of_each_id() {
        let messages = [
            Message::moving("a", "Downloading", far(1, 2)),
            Message::moving("b", "Waiting", Far::default()),
            Message::moving("a", "Done", Far::default()),
        ];
        assert_eq!(
            drawn(Some(80), &messages),
            "\n\x1b[1A\x1b[2K\ra: Downloading       1B/2B\r\x1b[1B\n\x1b[1A\x1b[2K\rb: Waiting \r\x1b[1B\x1b[2A\x1b[2K\ra: Done \r\x1b[2B"
        );
    }

    #[test]
    fn a_lasting_line_begins_a_new_block() {
        let messages = [
            Message::moving("a", "x", Far::default()),
            Message::lasting("", "between"),
            Message::moving("a", "y", Far::default()),
        ];
        let text = drawn(Some(80), &messages);
        assert!(text.ends_with("between\n\n\x1b[1A\x1b[2K\ra: y \r\x1b[1B"), "{text:?}");
    }

    #[test]
    fn elsewhere_moving_counts_are_left_out() {
        let messages = [
            Message::moving("a", "Pulling fs layer", Far::default()),
            Message::moving("a", "Downloading", far(1, 2)),
            Message::moving("a", "Pull complete", Far::default()),
            Message::lasting("", "Status: done"),
        ];
        assert_eq!(drawn(None, &messages), "a: Pulling fs layer\na: Pull complete\nStatus: done\n");
    }

    #[test]
    fn bars_need_a_wide_terminal() {
        assert_eq!(far(500, 1000).shown(110), "    500B/1kB");
        assert_eq!(
            far(500, 1000).shown(111),
            format!("[{}>{}]     500B/1kB", "=".repeat(25), " ".repeat(25))
        );
        assert_eq!(far(3, 2).shown(80), "      3B");
        assert_eq!(far(1500, 0).shown(80), "   1.5kB");
        let counted = Far { units: "s".to_owned(), ..far(1, 9) };
        assert_eq!(counted.shown(80), "1/9 s");
        assert_eq!(Far { is_uncounted: true, ..counted }.shown(80), "");
    }

    #[test]
    fn an_error_is_told_with_or_without_detail() {
        let read = |text: &str| serde_json::from_str::<Message>(text).expect("the test writes JSON");
        assert_eq!(read(r#"{"errorDetail":{"message":"a"},"error":"b"}"#).error(), Some("a"));
        assert_eq!(read(r#"{"error":"b"}"#).error(), Some("b"));
        assert_eq!(read(r#"{"status":"x","progressDetail":{}}"#).error(), None);
    }
}
