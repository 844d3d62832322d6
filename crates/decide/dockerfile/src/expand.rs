//! Puts variables into words and takes quotes off, as a shell would.
//!
//! In: a word, the escape character, what variables hold. Out: the word, or several where white space of a variable
//! splits it. Source: buildkit, `frontend/dockerfile/shell/lex.go`.

use std::iter::Peekable;
use std::str::Chars;

/// How deep `${a:-${b:-…}}` may go. Chosen: nobody nests more than three; the reader recurses.
const MAX_DEPTH: u32 = 64;
/// Longest result. Chosen: no environment of a process may be longer; variables that refer to one another grow fast.
const MAX_RESULT: usize = 1 << 20;

/// What is wrong with a word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ExpandError(pub String);

/// One word with its variables.
pub fn expand(word: &str, escape: char, get: &dyn Fn(&str) -> Option<String>) -> Result<String, ExpandError> {
    run(word, escape, get).map(|(word, _)| word)
}

/// As [`expand`], split at white space that no quotes protect.
pub fn expand_words(
    word: &str,
    escape: char,
    get: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<String>, ExpandError> {
    run(word, escape, get).map(|(_, words)| words)
}

fn run(
    word: &str,
    escape: char,
    get: &dyn Fn(&str) -> Option<String>,
) -> Result<(String, Vec<String>), ExpandError> {
    let mut reader = Reader { chars: word.chars().peekable(), escape, get, depth: 0 };
    let found = reader.until(None)?;
    let mut words = found.words;
    if found.is_word {
        words.push(found.word);
    }
    Ok((found.all, words))
}

fn error<T>(text: impl Into<String>) -> Result<T, ExpandError> {
    Err(ExpandError(text.into()))
}

/// A result being put together, as one word and as several.
#[derive(Default)]
struct Made {
    all: String,
    words: Vec<String>,
    word: String,
    is_word: bool,
}

impl Made {
    fn raw(&mut self, text: &str) {
        self.is_word = true;
        self.all.push_str(text);
        self.word.push_str(text);
    }

    fn splitting(&mut self, text: &str) {
        for c in text.chars() {
            self.all.push(c);
            if !c.is_whitespace() {
                self.is_word = true;
                self.word.push(c);
            } else if std::mem::take(&mut self.is_word) {
                self.words.push(std::mem::take(&mut self.word));
            }
        }
    }
}

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    escape: char,
    get: &'a dyn Fn(&str) -> Option<String>,
    depth: u32,
}

impl Reader<'_> {
    fn until(&mut self, stop: Option<char>) -> Result<Made, ExpandError> {
        let mut made = Made::default();
        loop {
            if made.all.len() > MAX_RESULT {
                return error("word is too long");
            }
            let Some(c) = self.chars.next() else {
                return match stop {
                    Some(stop) => {
                        error(format!("unexpected end of statement while looking for matching {stop}"))
                    }
                    None => Ok(made),
                };
            };
            match c {
                c if Some(c) == stop => return Ok(made),
                '\'' => made.raw(&self.single_quoted()?),
                '"' => made.raw(&self.double_quoted()?),
                '$' => {
                    let value = self.variable()?;
                    made.splitting(&value);
                }
                c if c == self.escape => match self.chars.next() {
                    Some(next) => made.raw(next.encode_utf8(&mut [0; 4])),
                    None => return Ok(made),
                },
                c => made.splitting(c.encode_utf8(&mut [0; 4])),
            }
        }
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let mut text = String::new();
        for c in self.chars.by_ref() {
            if c == '\'' {
                return Ok(text);
            }
            text.push(c);
        }
        error("unexpected end of statement while looking for matching single-quote")
    }

    fn double_quoted(&mut self) -> Result<String, ExpandError> {
        let mut text = String::new();
        while let Some(c) = self.chars.next() {
            match c {
                '"' => return Ok(text),
                '$' => text.push_str(&self.variable()?),
                c if c == self.escape => match self.chars.next() {
                    Some(next) if next == '"' || next == '$' || next == c => text.push(next),
                    Some(next) => text.extend([c, next]),
                    None => break,
                },
                c => text.push(c),
            }
            if text.len() > MAX_RESULT {
                return error("word is too long");
            }
        }
        error("unexpected end of statement while looking for matching double-quote")
    }

    /// What stands behind a `$`.
    fn variable(&mut self) -> Result<String, ExpandError> {
        if self.chars.peek() != Some(&'{') {
            let name = self.name();
            return Ok(if name.is_empty() { "$".to_owned() } else { (self.get)(&name).unwrap_or_default() });
        }
        self.chars.next();
        match self.chars.peek() {
            None => return error("syntax error: missing '}'"),
            Some('{' | '}' | ':') => return error("syntax error: bad substitution"),
            Some(_) => {}
        }
        let name = self.name();
        match self.chars.next() {
            Some('}') => Ok((self.get)(&name).unwrap_or_default()),
            Some(':') => {
                let modifier = self.chars.next();
                self.modified(&name, modifier, true)
            }
            Some(modifier) => self.modified(&name, Some(modifier), false),
            None => error("syntax error: missing '}'"),
        }
    }

    /// `${name:-word}` and its kin; with a colon an empty value counts as none.
    fn modified(
        &mut self,
        name: &str,
        modifier: Option<char>,
        with_colon: bool,
    ) -> Result<String, ExpandError> {
        let value = (self.get)(name).filter(|value| !with_colon || !value.is_empty());
        let Some(modifier @ ('+' | '-' | '?')) = modifier else {
            let shown = modifier.map(String::from).unwrap_or_default();
            return error(format!("unsupported modifier ({shown}) in substitution"));
        };
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return error("substitutions are nested too deeply");
        }
        let word = self.until(Some('}'))?.all;
        self.depth -= 1;
        match (modifier, value) {
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, Some(value)) => Ok(value),
            ('-', None) => Ok(word),
            (_, None) => {
                let default =
                    if with_colon { "is not allowed to be empty" } else { "is not allowed to be unset" };
                error(format!("{name}: {}", if word.is_empty() { default } else { &word }))
            }
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.chars.peek().copied() {
            let is_special = name.is_empty() && matches!(c, '@' | '*' | '#' | '!' | '?' | '-');
            if is_special {
                self.chars.next();
                return String::from(c);
            }
            let is_number = name.starts_with(|c: char| c.is_ascii_digit());
            if !(c.is_ascii_alphanumeric() || c == '_') || is_number && !c.is_ascii_digit() {
                break;
            }
            name.push(c);
            self.chars.next();
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(name: &str) -> Option<String> {
        match name {
            "A" => Some("x y".to_owned()),
            "E" => Some(String::new()),
            "P" => Some("/bin".to_owned()),
            _ => None,
        }
    }

    fn check(word: &str, expect: &str) {
        assert_eq!(expand(word, '\\', &get).unwrap(), expect, "{word}");
    }

    #[test]
    fn variables_and_quotes_mean_what_a_shell_means() {
        check("a$A", "ax y");
        check("${A}b", "x yb");
        check("'$A'", "$A");
        check("\"$A\"'q'", "x yq");
        check("\\$A", "$A");
        check("\"\\$A \\n\"", "$A \\n");
        check("$NONE", "");
        check("$", "$");
        check("${NONE:-d}", "d");
        check("${E:-d}", "d");
        check("${E-d}", "");
        check("${A:+d}", "d");
        check("${NONE:+d}", "");
        check("${NONE:-${P}/x}", "/bin/x");
        check("$P:$PATH", "/bin:");
    }

    #[test]
    fn white_space_of_variables_splits_where_it_may() {
        let check = |word: &str, expect: &[&str]| assert_eq!(expand_words(word, '\\', &get).unwrap(), expect);
        check("$A", &["x", "y"]);
        check("\"$A\"", &["x y"]);
        check("p$A", &["px", "y"]);
    }

    #[test]
    fn what_is_unfinished_is_refused() {
        for (word, expect) in [
            ("\"a", "unexpected end of statement while looking for matching double-quote"),
            ("'a", "unexpected end of statement while looking for matching single-quote"),
            ("${A", "syntax error: missing '}'"),
            ("${}", "syntax error: bad substitution"),
            ("${A:-b", "unexpected end of statement while looking for matching }"),
            ("${A:x}", "unsupported modifier (x) in substitution"),
            ("${NONE:?gone}", "NONE: gone"),
        ] {
            assert_eq!(expand(word, '\\', &get).unwrap_err().to_string(), expect, "{word}");
        }
        let deep = "${X:-".repeat(100_000);
        assert!(expand(&deep, '\\', &get).is_err(), "deep nesting ends in an error, not in a crash");
    }
}
