//! Patterns for paths: `*`, `?`, `[a-z]`, and `**` where it is meant.
//!
//! In: a pattern, a path. Out: whether it matches. Time is bounded by pattern length times path length.
//! Source: Go, `path/filepath`, `Match`; moby, `patternmatcher`, for `**`.

/// The text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Is(char),
    /// Any character but a slash.
    One,
    /// Any number of them.
    Star,
    /// Any characters.
    All,
    /// Any number of whole folders, with their slash.
    Folders,
    Class {
        is_negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

impl Glob {
    /// Reads a pattern; `spans` says whether `**` goes across folders.
    pub fn parse(text: &str, spans: bool) -> Result<Glob, BadPattern> {
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' if spans && chars.peek() == Some(&'*') => {
                    while chars.next_if_eq(&'*').is_some() {}
                    if chars.next_if_eq(&'/').is_some() { Token::Folders } else { Token::All }
                }
                '*' => {
                    while chars.next_if_eq(&'*').is_some() {}
                    Token::Star
                }
                '?' => Token::One,
                '[' => class(&mut chars)?,
                '\\' => Token::Is(chars.next().ok_or(BadPattern)?),
                c => Token::Is(c),
            });
        }
        Ok(Glob { tokens })
    }

    /// Whether the text has anything that is not meant literally.
    pub fn has_wildcards(text: &str) -> bool {
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => drop(chars.next()),
                '*' | '?' | '[' => return true,
                _ => {}
            }
        }
        false
    }

    /// Whether the whole of `path` fits.
    pub fn fits(&self, path: &str) -> bool {
        let chars: Vec<char> = path.chars().collect();
        // Which places of the path the tokens so far can lead to.
        let mut at = vec![false; chars.len() + 1];
        at[0] = true;
        for token in &self.tokens {
            at = step(token, &chars, &at);
        }
        at[chars.len()]
    }
}

fn step(token: &Token, chars: &[char], at: &[bool]) -> Vec<bool> {
    let mut next = vec![false; at.len()];
    let mut is_open = false;
    for place in 0..at.len() {
        let before = place.checked_sub(1).map(|before| (chars[before], at[before]));
        next[place] = match token {
            Token::Is(want) => before == Some((*want, true)),
            Token::One => before.is_some_and(|(c, was)| was && c != '/'),
            Token::Class { is_negated, ranges } => before.is_some_and(|(c, was)| {
                was && c != '/' && ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *is_negated
            }),
            Token::Star => {
                is_open = at[place] || is_open && before.is_some_and(|(c, _)| c != '/');
                is_open
            }
            Token::All => {
                is_open |= at[place];
                is_open
            }
            Token::Folders => {
                let ends_here = is_open && before.is_some_and(|(c, _)| c == '/');
                is_open |= at[place];
                at[place] || ends_here
            }
        };
    }
    next
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, BadPattern> {
    let is_negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let low = match chars.next().ok_or(BadPattern)? {
            ']' if !ranges.is_empty() => return Ok(Token::Class { is_negated, ranges }),
            ']' | '-' => return Err(BadPattern),
            '\\' => chars.next().ok_or(BadPattern)?,
            c => c,
        };
        let high = match chars.next_if_eq(&'-') {
            None => low,
            Some(_) => match chars.next().ok_or(BadPattern)? {
                '\\' => chars.next().ok_or(BadPattern)?,
                ']' | '-' => return Err(BadPattern),
                c => c,
            },
        };
        ranges.push((low, high));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_go() {
        for (pattern, path, spans, expect) in [
            ("a*", "abc", false, true),
            ("a*", "a/b", false, false),
            ("*/b", "a/b", false, true),
            ("a?c", "abc", false, true),
            ("a?c", "a/c", false, false),
            ("[a-c]x", "bx", false, true),
            ("[^a-c]x", "bx", false, false),
            ("\\*", "*", false, true),
            ("**/x", "x", true, true),
            ("**/x", "a/b/x", true, true),
            ("**/x", "ax", true, false),
            ("a/**", "a/b/c", true, true),
            ("a/**/c", "a/c", true, true),
            ("**", "a/b", true, true),
        ] {
            assert_eq!(Glob::parse(pattern, spans).unwrap().fits(path), expect, "{pattern} on {path}");
        }
        for bad in ["[", "[]a]", "[a", "\\", "[-x]"] {
            assert_eq!(Glob::parse(bad, false), Err(BadPattern), "{bad}");
        }
    }
}
