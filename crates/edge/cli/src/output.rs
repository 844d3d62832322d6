//! Prints lists as tables, JSON or templates, and whole objects as `inspect` does.
//!
//! In: rows of named cells. Out: text on stdout. Column order and headings are the commands' business.

use crate::CliError;
use serde_json::{Map, Value};
use std::io::{IsTerminal as _, Write as _};
use template::Template;

/// Fewest blanks between two columns. Source: docker/cli, tabwriter with padding 3.
const COLUMN_GAP: usize = 3;

/// One line of a list: the cells a format may name.
#[derive(Debug, Clone, Default)]
pub struct Row(Map<String, Value>);

impl Row {
    /// A row without cells.
    pub fn new() -> Row {
        Row::default()
    }

    /// Adds a cell.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Row {
        self.0.insert(name.to_owned(), value.into());
        self
    }
}

/// How a list is shown when the user says nothing: the cells in order with their headings, and the one for `-q`.
pub struct Shape {
    /// (cell, heading), left to right.
    pub columns: &'static [(&'static str, &'static str)],
    /// The cell that `--quiet` prints.
    pub quiet: &'static str,
}

/// What the user asked for.
#[derive(Debug, Clone, Default)]
pub struct Wish<'a> {
    /// `--format`.
    pub format: Option<&'a str>,
    /// `--quiet`.
    pub quiet: bool,
}

/// Writes to stdout; a reader that went away ends the program quietly.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(141);
    }
}

/// Writes a line to stdout.
pub fn line(text: &str) {
    print(&format!("{text}\n"));
}

/// Writes a line to stderr: everything that is not data.
pub fn note(text: &str) {
    // Nothing can be done about a closed stderr.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Whether stdout is a terminal.
pub fn to_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Prints `rows` as wished: table, `json`, `table TEMPLATE` or a template per row.
///
/// # Errors
/// When the template is wrong.
pub fn list(shape: &Shape, wish: &Wish<'_>, rows: &[Row]) -> Result<(), CliError> {
    match wish.format {
        _ if wish.quiet && wish.format.is_none_or(|format| format == "table") => {
            rows.iter().for_each(|row| line(&text_of(row, shape.quiet)));
        }
        None | Some("" | "table") => {
            let heading = shape.columns.iter().map(|(_, heading)| (*heading).to_owned()).collect();
            let cells =
                rows.iter().map(|row| shape.columns.iter().map(|(cell, _)| text_of(row, cell)).collect());
            print(&table(std::iter::once(heading).chain(cells).collect()));
        }
        Some("json" | "{{json .}}") => {
            rows.iter().for_each(|row| line(&Value::Object(row.0.clone()).to_string()))
        }
        Some(format) => match format.strip_prefix("table ") {
            Some(format) => {
                let template = Template::parse(&unescape(format))?;
                let mut lines = vec![cells(&template.render(&headings(shape, rows))?)];
                for row in rows {
                    lines.push(cells(&template.render(&Value::Object(row.0.clone()))?));
                }
                print(&table(lines));
            }
            None => {
                let template = Template::parse(&unescape(format))?;
                for row in rows {
                    line(&template.render(&Value::Object(row.0.clone()))?);
                }
            }
        },
    }
    Ok(())
}

fn text_of(row: &Row, cell: &str) -> String {
    match row.0.get(cell) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

fn cells(line: &str) -> Vec<String> {
    line.split('\t').map(str::to_owned).collect()
}

/// `\t` and `\n` as typed on a command line.
fn unescape(format: &str) -> String {
    format.replace("\\t", "\t").replace("\\n", "\n")
}

/// Each cell's heading as its value, so that a `table` template prints its own first line.
fn headings(shape: &Shape, rows: &[Row]) -> Value {
    let mut named: Map<String, Value> = rows
        .first()
        .map(|row| row.0.keys().map(|cell| (cell.clone(), Value::from(heading_of(cell)))).collect())
        .unwrap_or_default();
    for (cell, heading) in shape.columns {
        named.insert((*cell).to_owned(), Value::from(*heading));
    }
    Value::Object(named)
}

/// `CreatedAt` → `CREATED AT`.
fn heading_of(cell: &str) -> String {
    let mut out = String::new();
    let mut lower = false;
    for c in cell.chars() {
        if c.is_uppercase() && lower {
            out.push(' ');
        }
        lower = c.is_lowercase();
        out.extend(c.to_uppercase());
    }
    out
}

/// Lines up cells in columns; the last column is not padded.
pub fn table(lines: Vec<Vec<String>>) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|at| {
            lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for line in &lines {
        for (at, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if at + 1 < line.len() {
                out.extend(std::iter::repeat_n(' ', widths[at] + COLUMN_GAP - cell.chars().count()));
            }
        }
        out.push('\n');
    }
    out
}

/// Prints what `inspect` found: an indented array, JSON lines or a template per object.
///
/// # Errors
/// When the template is wrong.
pub fn inspect(found: &[String], format: Option<&str>) -> Result<(), CliError> {
    match format {
        None | Some("") => {
            let joined = format!("[{}]", found.join(","));
            line(&indent(&joined));
        }
        Some("json") => line(&format!("[{}]", found.join(","))),
        Some(format) => {
            let template = Template::parse(&unescape(format))?;
            for text in found {
                let value: Value = serde_json::from_str(text)
                    .map_err(|error| CliError::new(format!("the daemon's answer is not JSON: {error}")))?;
                line(&template.render(&value)?);
            }
        }
    }
    Ok(())
}

/// Indents JSON by four blanks without touching the order of keys.
fn indent(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut quoted = false;
    let mut escaped = false;
    let mut last = ' ';
    for c in json.chars() {
        if quoted {
            out.push(c);
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
            last = c;
            continue;
        }
        match c {
            '{' | '[' => {
                if matches!(last, '{' | '[' | ',') {
                    new_line(&mut out, depth);
                }
                out.push(c);
                depth += 1;
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if !matches!(last, '{' | '[') {
                    new_line(&mut out, depth);
                }
                out.push(c);
            }
            ':' => out.push_str(": "),
            ',' => out.push(c),
            c if c.is_whitespace() => continue,
            c => {
                if matches!(last, '{' | '[' | ',') {
                    new_line(&mut out, depth);
                }
                out.push(c);
                quoted = c == '"';
            }
        }
        last = c;
    }
    out
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("    ", depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let lines = vec![vec!["ID".into(), "NAME".into()], vec!["abcdef".into(), "x".into()]];
        assert_eq!(table(lines), "ID       NAME\nabcdef   x\n");
    }

    #[test]
    fn json_is_indented_in_its_own_order() {
        assert_eq!(
            indent(r#"[{"b":1,"a":{},"c":["x:,{",2],"d":"q\"\\"}]"#),
            "[\n    {\n        \"b\": 1,\n        \"a\": {},\n        \"c\": [\n            \"x:,{\",\n            2\n        ],\n        \"d\": \"q\\\"\\\\\"\n    }\n]"
        );
        assert_eq!(indent("[]"), "[]");
    }

    #[test]
    fn cells_make_their_own_headings() {
        assert_eq!(heading_of("CreatedAt"), "CREATED AT");
        assert_eq!(heading_of("ID"), "ID");
    }
}
