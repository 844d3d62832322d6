//! Takes a Dockerfile's text apart into instructions, one line each.
//!
//! In: text. Out: lines without comments, continued ones joined, with where each began; the escape character; warnings.
//! Source: buildkit, `frontend/dockerfile/parser/parser.go`.

use crate::ParseError;

/// Longest line. Source: Go, `bufio.MaxScanTokenSize`, less the line end.
const MAX_LINE: usize = 64 * 1024 - 1;

/// One instruction's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) text: String,
    /// From 1.
    pub(crate) number: usize,
}

/// A text taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lines {
    pub(crate) lines: Vec<Line>,
    pub(crate) escape: char,
    pub(crate) warnings: Vec<String>,
}

/// What comments at the very top say.
struct Directives {
    escape: char,
    are_over: bool,
    seen: Vec<String>,
}

impl Directives {
    /// Looks at one line for as long as there may be directives.
    fn take(&mut self, line: &str) -> Result<(), ParseError> {
        if self.are_over {
            return Ok(());
        }
        let found = line.strip_prefix('#').and_then(|rest| rest.split_once('='));
        let known = found.map(|(key, value)| (key.trim().to_ascii_lowercase(), value.trim()));
        let Some((key, value)) =
            known.filter(|(key, _)| ["escape", "syntax", "check"].contains(&key.as_str()))
        else {
            self.are_over = true;
            return Ok(());
        };
        if self.seen.contains(&key) {
            return Err(ParseError::Syntax(format!("only one {key} parser directive can be used")));
        }
        if key == "escape" {
            self.escape = match value {
                "\\" => '\\',
                "`" => '`',
                other => {
                    return Err(ParseError::Syntax(format!(
                        "invalid escape token '{other}' does not match ` or \\"
                    )));
                }
            };
        }
        self.seen.push(key);
        Ok(())
    }
}

/// Takes `text` apart.
pub(crate) fn split(text: &str) -> Result<Lines, ParseError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut directives = Directives { escape: '\\', are_over: false, seen: Vec::new() };
    let (mut lines, mut warnings) = (Vec::new(), Vec::new());
    let mut source = text.lines().enumerate();
    while let Some((at, raw)) = source.next() {
        if raw.len() > MAX_LINE {
            let text = format!("dockerfile line greater than max allowed size of {MAX_LINE}");
            return Err(ParseError::Syntax(text));
        }
        let first = raw.trim_start();
        directives.take(first)?;
        let first = without_comment(first);
        let (mut line, mut goes_on) = continuation(first, directives.escape);
        if line.is_empty() && !goes_on {
            continue;
        }
        let mut had_empty = false;
        while goes_on {
            let Some((_, raw)) = source.next() else { break };
            if raw.trim_start().starts_with('#') {
                continue;
            }
            if raw.trim().is_empty() {
                had_empty = true;
                continue;
            }
            let more;
            (more, goes_on) = continuation(raw, directives.escape);
            line.push_str(&more);
        }
        if had_empty {
            warnings.push(format!("[WARNING]: Empty continuation line found in:\n    {line}"));
        }
        lines.push(Line { text: line, number: at + 1 });
    }
    if !warnings.is_empty() {
        warnings
            .push("[WARNING]: Empty continuation lines will become errors in a future release.".to_owned());
    }
    if lines.is_empty() {
        return Err(ParseError::Syntax("file with no instructions".to_owned()));
    }
    Ok(Lines { lines, escape: directives.escape, warnings })
}

fn without_comment(line: &str) -> &str {
    if line.starts_with('#') { "" } else { line }
}

/// The line without its last escape character, and whether there was one.
fn continuation(line: &str, escape: char) -> (String, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        // Two of them are one that is meant.
        Some(rest) if !rest.ends_with(escape) => (rest.to_owned(), true),
        _ => (line.to_owned(), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &[(usize, &str)]) {
        let found = split(text).unwrap();
        let found: Vec<(usize, &str)> = found.lines.iter().map(|l| (l.number, l.text.as_str())).collect();
        assert_eq!(found, expect, "{text:?}");
    }

    #[test]
    fn lines_are_joined_and_comments_left_out() {
        check("FROM a\n# c\n\nRUN x \\\n  # c\n  y\nCMD z", &[(1, "FROM a"), (4, "RUN x   y"), (7, "CMD z")]);
        check("\u{feff}  FROM a  \r\n", &[(1, "FROM a  ")]);
        check("RUN a \\ \n", &[(1, "RUN a ")]);
        check("RUN a \\\\\nRUN b", &[(1, "RUN a \\\\"), (2, "RUN b")]);
        check("# escape=`\nRUN a `\n\\b", &[(2, "RUN a \\b")]);
        check("# note\n# escape=`\nRUN a `", &[(3, "RUN a `")]);
    }

    #[test]
    fn an_empty_continuation_is_warned_of() {
        let found = split("RUN a \\\n\n b").unwrap();
        assert_eq!(found.warnings[0], "[WARNING]: Empty continuation line found in:\n    RUN a  b");
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for (text, expect) in [
            ("", "file with no instructions"),
            ("# escape=x\n", "invalid escape token 'x' does not match ` or \\"),
            ("# escape=`\n# escape=`\n", "only one escape parser directive can be used"),
        ] {
            assert_eq!(split(text).unwrap_err().to_string(), expect);
        }
    }
}
