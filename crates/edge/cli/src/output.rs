//! Prints lists as tables, JSON or templates, and whole objects as `inspect` does.
//!
//! In: rows of named cells. Out: text on stdout. Column order and headings are the commands' business.

use crate::CliError;
use serde_json::{Map, Value};
use std::io::{IsTerminal as _, Write as _};
use template::Template;

/// Fewest blanks between two columns. Source: docker/cli `formatter.go`, tabwriter with padding 3.
const COLUMN_GAP: usize = 3;
/// Narrowest column, gap included. Source: docker/cli `formatter.go`, tabwriter with minwidth 10.
const COLUMN_MIN: usize = 10;
/// Where [`Row::labelled`] keeps labels: `.Label "x"` is a look-up in it.
const LABELS: &str = "__labels";

/// One line of a list: the cells a format may name.
#[derive(Debug, Clone, Default)]
pub struct Row {
    cells: Map<String, Value>,
    /// What the table shows in a cell's place; formats don't see it.
    shown: Map<String, Value>,
    labels: Value,
}

impl Row {
    /// A row without cells.
    pub fn new() -> Row {
        Row::default()
    }

    /// Adds a cell.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Row {
        self.cells.insert(name.to_owned(), value.into());
        self
    }

    /// Adds what the table shows instead of the cell `name`.
    #[must_use]
    pub fn shown(mut self, name: &str, value: impl Into<Value>) -> Row {
        self.shown.insert(name.to_owned(), value.into());
        self
    }

    /// Adds an object's labels: the cell `Labels`, and each for `.Label "x"`.
    #[must_use]
    pub fn labelled(mut self, labels: &Value) -> Row {
        self.labels = labels.clone();
        self.with("Labels", crate::commands::show::labels(labels))
    }

    fn text(&self, cell: &str) -> String {
        match self.cells.get(cell) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        }
    }

    fn data(&self, asked: &[String]) -> Value {
        let mut data = self.cells.clone();
        if !asked.is_empty() {
            let label =
                |name: &String| (name.clone(), Value::from(self.labels[name].as_str().unwrap_or_default()));
            data.insert(LABELS.to_owned(), Value::Object(asked.iter().map(label).collect()));
        }
        Value::Object(data)
    }
}

/// How a list is shown when the user says nothing: the cells in order with their headings, and the one for `-q`.
pub struct Shape {
    /// (cell, heading), left to right.
    pub columns: &'static [(&'static str, &'static str)],
    /// The cell that `--quiet` prints.
    pub quiet: &'static str,
    /// Headings of cells that only a format may name, where they are not the cell's name in capitals.
    pub others: &'static [(&'static str, &'static str)],
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
    print_error(&format!("{text}\n"));
}

/// Writes to stderr.
pub fn print_error(text: &str) {
    // Nothing can be done about a closed stderr.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Columns of the terminal that stdout is; none when it is not one.
pub fn columns() -> Option<u16> {
    std::io::stdout().is_terminal().then(|| crate::terminal::columns(std::io::stdout()))
}

/// Columns of the terminal that stderr is; none when it is not one.
pub fn error_columns() -> Option<u16> {
    std::io::stderr().is_terminal().then(|| crate::terminal::columns(std::io::stderr()))
}

/// Prints `rows` as wished: table, `json`, `table TEMPLATE` or a template per row.
///
/// # Errors
/// When the template is wrong.
pub fn list(shape: &Shape, wish: &Wish<'_>, rows: &[Row]) -> Result<(), CliError> {
    if wish.quiet {
        if wish.format.is_some_and(|format| !format.is_empty() && format != "json") {
            note("WARNING: Ignoring custom format, because both --format and --quiet are set.");
        }
        rows.iter().for_each(|row| line(&row.text(shape.quiet)));
        return Ok(());
    }
    match wish.format {
        None | Some("" | "table") => {
            let heading = shape.columns.iter().map(|(_, heading)| (*heading).to_owned()).collect();
            let cell = |row: &Row, cell: &str| match row.shown.get(cell) {
                Some(shown) => shown.as_str().unwrap_or_default().to_owned(),
                None => row.text(cell),
            };
            let cells =
                rows.iter().map(|row| shape.columns.iter().map(|(name, _)| cell(row, name)).collect());
            print(&table(std::iter::once(heading).chain(cells).collect(), COLUMN_MIN));
            Ok(())
        }
        Some("json" | "{{json .}}") => {
            rows.iter().for_each(|row| line(&html_safe(&Value::Object(row.cells.clone()).to_string())));
            Ok(())
        }
        Some(format) => formatted(shape, format, rows),
    }
}

fn formatted(shape: &Shape, format: &str, rows: &[Row]) -> Result<(), CliError> {
    let (format, tabular) = match format.strip_prefix("table") {
        Some(rest) if rest.starts_with([' ', '\t', '\\']) => (rest.trim_start(), true),
        _ => (format, false),
    };
    let (format, asked) = label_lookups(&unescape(format));
    let template = Template::parse(&format)?;
    let mut lines: Vec<String> = Vec::new();
    if tabular {
        lines.push(template.render(&headings(shape, rows, &asked))?);
    }
    for row in rows {
        lines.push(template.render(&row.data(&asked))?);
    }
    // Columns are lined up in any format that has tabs.
    if lines.iter().any(|line| line.contains('\t')) {
        let cells = |text: &String| -> Vec<Vec<String>> {
            text.split('\n').map(|line| line.split('\t').map(str::to_owned).collect()).collect()
        };
        print(&table(lines.iter().flat_map(cells).collect(), COLUMN_MIN));
    } else {
        lines.iter().for_each(|text| line(text));
    }
    Ok(())
}

/// `.Label "x"` as a look-up that the template language has, and the labels asked for.
fn label_lookups(format: &str) -> (String, Vec<String>) {
    let mut asked = Vec::new();
    let mut parts = format.split(".Label ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let name = part.trim_start();
        let quote = name.chars().next().filter(|c| ['"', '`'].contains(c));
        match quote.and_then(|quote| name[1..].split(quote).next()) {
            Some(name) => {
                asked.push(name.to_owned());
                out.push_str(&format!("index .{LABELS} "));
            }
            None => out.push_str(".Label "),
        }
        out.push_str(part);
    }
    (out, asked)
}

/// JSON as Go writes it by default: `<`, `>` and `&` escaped.
fn html_safe(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// `\t` and `\n` as typed on a command line.
fn unescape(format: &str) -> String {
    format.replace("\\t", "\t").replace("\\n", "\n")
}

/// Each cell's heading as its value, so that a `table` template prints its own first line.
fn headings(shape: &Shape, rows: &[Row], asked: &[String]) -> Value {
    let mut named: Map<String, Value> = rows
        .first()
        .map(|row| row.cells.keys().map(|cell| (cell.clone(), Value::from(heading_of(cell)))).collect())
        .unwrap_or_default();
    for (cell, heading) in shape.columns.iter().chain(shape.others) {
        named.insert((*cell).to_owned(), Value::from(*heading));
    }
    if !asked.is_empty() {
        let heading = |name: &String| {
            let last = name.rsplit('.').next().unwrap_or_default();
            (name.clone(), Value::from(last.replace(['-', '_'], " ")))
        };
        named.insert(LABELS.to_owned(), Value::Object(asked.iter().map(heading).collect()));
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

/// Lines up cells in columns at least `narrowest` wide, gap included; the last column is not padded.
pub fn table(lines: Vec<Vec<String>>, narrowest: usize) -> String {
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
                out.extend(std::iter::repeat_n(
                    ' ',
                    (widths[at] + COLUMN_GAP).max(narrowest) - cell.chars().count(),
                ));
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
        Some("json") => {
            let found: Vec<&str> = found.iter().map(|text| text.trim()).collect();
            line(&format!("[{}]", found.join(",")));
        }
        Some(format) => {
            // Source: docker/cli `inspect.go`: a template that cannot be parsed is exit code 64.
            let template = Template::parse(&unescape(format))
                .map_err(|error| CliError { code: 64, ..CliError::from(error) })?;
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
        assert_eq!(table(lines, COLUMN_MIN), "ID        NAME\nabcdef    x\n");
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
