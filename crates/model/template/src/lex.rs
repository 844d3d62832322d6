//! Cuts a template into text and actions, and an action into tokens.
//!
//! In: the template. Out: pieces in order, trim marks already applied.

use crate::TemplateError;

/// One piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Piece {
    Text(String),
    Action { line: usize, tokens: Vec<Token> },
}

/// One word of an action.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// `.`, `.A.B`: the names, without dots.
    Field(Vec<String>),
    /// `$`, `$x`, `$x.A`: the variable's name without `$`, then fields.
    Variable(String, Vec<String>),
    Word(String),
    Text(String),
    Number(serde_json::Number),
    Pipe,
    Open,
    Close,
    Comma,
    Assign,
}

pub(crate) fn lex(template: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = template;
    let mut line = 1;
    let mut trim_next = false;
    loop {
        let open = rest.find("{{");
        let mut text = &rest[..open.unwrap_or(rest.len())];
        line += text.matches('\n').count();
        if trim_next {
            text = text.trim_start();
        }
        let Some(open) = open else {
            push_text(&mut pieces, text);
            return Ok(pieces);
        };
        rest = &rest[open + 2..];
        if let Some(trimmed) = rest.strip_prefix('-').filter(|after| after.starts_with([' ', '\n', '\t'])) {
            text = text.trim_end();
            rest = trimmed;
        }
        push_text(&mut pieces, text);
        let close = end_of_action(rest).ok_or_else(|| parse_error(line, "unclosed action"))?;
        let mut inner = &rest[..close];
        rest = &rest[close + 2..];
        trim_next = inner.ends_with(" -");
        if trim_next {
            inner = &inner[..inner.len() - 2];
        }
        let comment = inner.trim();
        if !(comment.starts_with("/*") && comment.ends_with("*/")) {
            pieces.push(Piece::Action { line, tokens: tokens(inner, line)? });
        }
        line += inner.matches('\n').count();
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// Where `}}` closes the action that `rest` is inside of; quotes hide it.
fn end_of_action(rest: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in rest.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if rest[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    None
}

pub(crate) fn parse_error(line: usize, message: impl Into<String>) -> TemplateError {
    TemplateError::Parse { line, message: message.into() }
}

fn tokens(inner: &str, line: usize) -> Result<Vec<Token>, TemplateError> {
    let mut found = Vec::new();
    let mut rest = inner.trim_start();
    while let Some(c) = rest.chars().next() {
        let (token, used) = match c {
            '|' => (Token::Pipe, 1),
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            ':' if rest.starts_with(":=") => (Token::Assign, 2),
            '=' => (Token::Assign, 1),
            '"' => quoted(rest, line)?,
            '`' => {
                let end =
                    rest[1..].find('`').ok_or_else(|| parse_error(line, "unterminated raw quoted string"))?;
                (Token::Text(rest[1..=end].to_owned()), end + 2)
            }
            '.' | '$' => path(rest),
            _ if c.is_ascii_digit() || c == '-' => number(rest, line)?,
            _ if c.is_alphabetic() || c == '_' => {
                let used = word_length(rest);
                (Token::Word(rest[..used].to_owned()), used)
            }
            _ => return Err(parse_error(line, format!("unexpected {c:?} in command"))),
        };
        found.push(token);
        rest = rest[used..].trim_start();
    }
    Ok(found)
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len())
}

fn path(text: &str) -> (Token, usize) {
    let mut used = 0;
    let mut variable = None;
    if let Some(after) = text.strip_prefix('$') {
        let name = &after[..word_length(after)];
        used = 1 + name.len();
        variable = Some(name.to_owned());
    }
    let mut fields = Vec::new();
    while let Some(after) = text[used..].strip_prefix('.') {
        let name = &after[..word_length(after)];
        used += 1 + name.len();
        if name.is_empty() {
            break;
        }
        fields.push(name.to_owned());
    }
    match variable {
        Some(name) => (Token::Variable(name, fields), used),
        None => (Token::Field(fields), used),
    }
}

fn number(text: &str, line: usize) -> Result<(Token, usize), TemplateError> {
    let used = text
        .char_indices()
        .find(|(at, c)| !(c.is_ascii_digit() || *c == '.' || (*at == 0 && *c == '-')))
        .map_or(text.len(), |(at, _)| at);
    let word = &text[..used];
    let parsed = word.parse::<i64>().ok().map(serde_json::Number::from);
    parsed
        .or_else(|| word.parse::<f64>().ok().and_then(serde_json::Number::from_f64))
        .map(|number| (Token::Number(number), used))
        .ok_or_else(|| parse_error(line, format!("bad number syntax: {word:?}")))
}

fn quoted(text: &str, line: usize) -> Result<(Token, usize), TemplateError> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Text(out), at + 1)),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some(other) => out.push(other),
                None => break,
            },
            _ => out.push(c),
        }
    }
    Err(parse_error(line, "unterminated quoted string"))
}
