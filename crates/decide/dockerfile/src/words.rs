//! Splits an instruction's text into its words, each kind of instruction in its own way. Quotes stay where they are: what
//! they mean is decided when variables are put in.
//!
//! In: text behind the instruction's name. Out: words, pairs, or a list in JSON.
//! Source: buildkit, `frontend/dockerfile/parser/{line_parsers,split_command}.go`.

use crate::ParseError;

/// Go's `[\t\v\f\r ]`.
pub(crate) fn is_space(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Name, flags, and the rest.
pub(crate) struct Split {
    /// In lower case.
    pub(crate) name: String,
    /// As written, with `--`.
    pub(crate) flags: Vec<String>,
    pub(crate) rest: String,
}

pub(crate) fn split_command(line: &str) -> Split {
    let line = line.trim();
    let (name, rest) = line.split_once(is_space).unwrap_or((line, ""));
    let (flags, rest) = flags(rest.trim_start_matches(is_space));
    Split { name: name.to_ascii_lowercase(), flags, rest: rest.trim().to_owned() }
}

/// Words that begin with `--`, up to the first that does not; `--` alone ends them.
fn flags(text: &str) -> (Vec<String>, &str) {
    let (mut found, mut rest) = (Vec::new(), text.trim_start());
    while rest.starts_with("--") {
        let end = end_of_word(rest);
        let word = unquoted(&rest[..end]);
        rest = rest[end..].trim_start();
        if word == "--" {
            break;
        }
        found.push(word);
    }
    (found, rest)
}

fn end_of_word(text: &str) -> usize {
    let (mut quote, mut is_escaped) = (None, false);
    for (at, c) in text.char_indices() {
        match (c, quote) {
            _ if is_escaped => is_escaped = false,
            ('\\', _) => is_escaped = true,
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            (c, None) if c.is_whitespace() => return at,
            _ => {}
        }
    }
    text.len()
}

fn unquoted(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '"' | '\'')).collect()
}

/// Words between white space; quotes and escapes hold them together and stay in them.
pub(crate) fn quoted_words(text: &str, escape: char) -> Vec<String> {
    let (mut words, mut word, mut quote, mut is_word) = (Vec::new(), String::new(), None, false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if is_word {
                    words.push(std::mem::take(&mut word));
                }
                is_word = false;
                continue;
            }
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        is_word = true;
        if c == escape && quote != Some('\'') {
            // At the very end it means nothing.
            if let Some(next) = chars.next() {
                word.push(c);
                word.push(next);
            }
            continue;
        }
        word.push(c);
    }
    if is_word && !word.is_empty() {
        words.push(word);
    }
    words
}

/// Words between white space, whatever quotes there are.
pub(crate) fn plain_words(text: &str) -> Vec<String> {
    text.split(is_space).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// A list in JSON. `None` when it is none: then the text is meant for a shell or to be split.
pub(crate) fn json(text: &str) -> Result<Option<Vec<String>>, ParseError> {
    let text = text.trim();
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(list) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    let words = list.into_iter().map(|value| match value {
        serde_json::Value::String(word) => Ok(word),
        _ => Err(ParseError::Syntax(
            "When using JSON array syntax, arrays must be comprised of strings only.".to_owned(),
        )),
    });
    words.collect::<Result<_, _>>().map(Some)
}

/// `a=b c="d e"`, or the old form `a b c`, where the rest is the value. Empty text has none.
pub(crate) fn pairs(name: &str, text: &str, escape: char) -> Result<Vec<(String, String)>, ParseError> {
    let words = quoted_words(text, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        let (key, value) = text
            .trim()
            .split_once(is_space)
            .ok_or_else(|| ParseError::Syntax(format!("{name} must have two arguments")))?;
        return Ok(vec![(key.to_owned(), value.trim_start_matches(is_space).to_owned())]);
    }
    let split = |word: &String| match word.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(ParseError::Syntax(format!(
            "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
        ))),
    };
    words.iter().map(split).collect()
}

/// Whether a word begins a here-document. Source: buildkit, `parser.go`, `reHeredoc`.
pub(crate) fn is_heredoc(word: &str) -> bool {
    let word = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let Some(name) = word.strip_prefix("<<") else { return false };
    let name = name.strip_prefix('-').unwrap_or(name);
    !name.is_empty() && !name.starts_with('<')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_their_quotes() {
        let check = |text: &str, expect: &[&str]| assert_eq!(quoted_words(text, '\\'), expect, "{text}");
        check("a  b", &["a", "b"]);
        check("a=\"b c\" d='e f'", &["a=\"b c\"", "d='e f'"]);
        check("a\\ b c", &["a\\ b", "c"]);
        check("a\\", &["a"]);
        check("\"open", &["\"open"]);
        check("", &[]);
    }

    #[test]
    fn flags_come_before_everything_else() {
        let split = split_command("COPY --from=a --chown=\"1:2\" x --y z");
        assert_eq!((split.name.as_str(), split.rest.as_str()), ("copy", "x --y z"));
        assert_eq!(split.flags, ["--from=a", "--chown=1:2"]);
        assert_eq!(split_command("RUN -- --x").rest, "--x");
    }

    #[test]
    fn a_list_in_json_is_recognised() {
        assert_eq!(json("[\"a\", \"b c\"]").unwrap(), Some(vec!["a".to_owned(), "b c".to_owned()]));
        assert_eq!(json("[ x ]").unwrap(), None);
        assert!(json("[1]").is_err());
    }

    #[test]
    fn here_documents_are_seen() {
        for (word, expect) in
            [("<<EOF", true), ("3<<-EOF", true), ("<<<x", false), ("<<", false), ("a<<b", false)]
        {
            assert_eq!(is_heredoc(word), expect, "{word}");
        }
    }
}
