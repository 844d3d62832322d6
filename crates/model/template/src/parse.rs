//! Builds the tree of a template.
//!
//! In: pieces from `lex`. Out: nodes; every block closed, every function known.

use crate::TemplateError;
use crate::functions;
use crate::lex::{Piece, Token, parse_error};
use serde_json::Value;

/// Deepest nesting of blocks or parentheses. chosen: far above any real format, far below the stack.
const DEPTH_MAX: usize = 64;

/// One part of a template.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    Text(String),
    Show(Pipe),
    Set(String, Pipe),
    If(Vec<(Pipe, Vec<Node>)>, Vec<Node>),
    With(Pipe, Vec<Node>, Vec<Node>),
    Range { key: Option<String>, item: Option<String>, over: Pipe, body: Vec<Node>, otherwise: Vec<Node> },
}

/// Commands joined by `|`: each gets the value before it as its last argument.
#[derive(Debug, Clone)]
pub(crate) struct Pipe(pub(crate) Vec<Command>);

/// One function call or operand.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    pub(crate) function: Option<String>,
    pub(crate) operands: Vec<Operand>,
}

/// A value inside a command.
#[derive(Debug, Clone)]
pub(crate) enum Operand {
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Literal(Value),
    Pipe(Pipe),
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    line: usize,
}

/// What ended a list of nodes.
enum Stop {
    Input,
    Closed,
    Else(Vec<Token>),
}

pub(crate) fn parse(pieces: Vec<Piece>) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser { pieces: pieces.into_iter(), line: 1 };
    match parser.list(0)? {
        (nodes, Stop::Input) => Ok(nodes),
        (_, Stop::Closed) => Err(parse_error(parser.line, "unexpected {{end}}")),
        (_, Stop::Else(_)) => Err(parse_error(parser.line, "unexpected {{else}}")),
    }
}

impl Parser {
    fn list(&mut self, depth: usize) -> Result<(Vec<Node>, Stop), TemplateError> {
        if depth > DEPTH_MAX {
            return Err(parse_error(self.line, "blocks are nested too deeply"));
        }
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (line, tokens) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action { line, tokens } => (line, tokens),
            };
            self.line = line;
            let keyword = match tokens.first() {
                Some(Token::Word(word)) => word.as_str(),
                _ => "",
            };
            match keyword {
                "end" => return Ok((nodes, Stop::Closed)),
                "else" => return Ok((nodes, Stop::Else(tokens[1..].to_vec()))),
                "if" => nodes.push(self.condition(&tokens[1..], depth)?),
                "with" => nodes.push(self.with(&tokens[1..], depth)?),
                "range" => nodes.push(self.range(&tokens[1..], depth)?),
                _ => nodes.push(self.simple(&tokens)?),
            }
        }
        Ok((nodes, Stop::Input))
    }

    fn simple(&self, tokens: &[Token]) -> Result<Node, TemplateError> {
        if let [Token::Variable(name, fields), Token::Assign, rest @ ..] = tokens
            && fields.is_empty()
        {
            return Ok(Node::Set(name.clone(), self.pipe(rest)?));
        }
        Ok(Node::Show(self.pipe(tokens)?))
    }

    fn condition(&mut self, tokens: &[Token], depth: usize) -> Result<Node, TemplateError> {
        let mut branches = Vec::new();
        let mut pipe = self.pipe(tokens)?;
        loop {
            let (body, end) = self.list(depth + 1)?;
            branches.push((pipe, body));
            match end {
                Stop::Closed => return Ok(Node::If(branches, Vec::new())),
                Stop::Input => return Err(self.eof()),
                Stop::Else(rest) => match rest.as_slice() {
                    [] => return Ok(Node::If(branches, self.otherwise(depth)?)),
                    [Token::Word(word), rest @ ..] if word == "if" => pipe = self.pipe(rest)?,
                    _ => return Err(parse_error(self.line, "unexpected token in {{else}}")),
                },
            }
        }
    }

    fn otherwise(&mut self, depth: usize) -> Result<Vec<Node>, TemplateError> {
        match self.list(depth + 1)? {
            (nodes, Stop::Closed) => Ok(nodes),
            (_, Stop::Input) => Err(self.eof()),
            (_, Stop::Else(_)) => Err(parse_error(self.line, "expected end; found {{else}}")),
        }
    }

    fn body_and_otherwise(&mut self, depth: usize) -> Result<(Vec<Node>, Vec<Node>), TemplateError> {
        match self.list(depth + 1)? {
            (body, Stop::Closed) => Ok((body, Vec::new())),
            (body, Stop::Else(rest)) if rest.is_empty() => Ok((body, self.otherwise(depth)?)),
            (_, Stop::Else(_)) => Err(parse_error(self.line, "unexpected token in {{else}}")),
            (_, Stop::Input) => Err(self.eof()),
        }
    }

    fn with(&mut self, tokens: &[Token], depth: usize) -> Result<Node, TemplateError> {
        let pipe = self.pipe(tokens)?;
        let (body, otherwise) = self.body_and_otherwise(depth)?;
        Ok(Node::With(pipe, body, otherwise))
    }

    fn range(&mut self, tokens: &[Token], depth: usize) -> Result<Node, TemplateError> {
        let (key, item, rest) = match tokens {
            [Token::Variable(key, _), Token::Comma, Token::Variable(item, _), Token::Assign, rest @ ..] => {
                (Some(key.clone()), Some(item.clone()), rest)
            }
            [Token::Variable(item, _), Token::Assign, rest @ ..] => (None, Some(item.clone()), rest),
            rest => (None, None, rest),
        };
        let over = self.pipe(rest)?;
        let (body, otherwise) = self.body_and_otherwise(depth)?;
        Ok(Node::Range { key, item, over, body, otherwise })
    }

    fn eof(&self) -> TemplateError {
        parse_error(self.line, "unexpected EOF")
    }

    fn pipe(&self, tokens: &[Token]) -> Result<Pipe, TemplateError> {
        let mut rest = tokens;
        let pipe = self.pipe_until_close(&mut rest, 0)?;
        match rest {
            [] => Ok(pipe),
            _ => Err(parse_error(self.line, "unexpected right paren")),
        }
    }

    fn pipe_until_close(&self, rest: &mut &[Token], depth: usize) -> Result<Pipe, TemplateError> {
        let mut commands = vec![self.command(rest, depth)?];
        while let Some(Token::Pipe) = rest.first() {
            *rest = &rest[1..];
            commands.push(self.command(rest, depth)?);
        }
        Ok(Pipe(commands))
    }

    fn command(&self, rest: &mut &[Token], depth: usize) -> Result<Command, TemplateError> {
        if depth > DEPTH_MAX {
            return Err(parse_error(self.line, "parentheses are nested too deeply"));
        }
        let mut function = None;
        let mut operands = Vec::new();
        while let Some(token) = rest.first() {
            if matches!(token, Token::Pipe | Token::Close) {
                break;
            }
            *rest = &rest[1..];
            match token {
                Token::Field(names) => operands.push(Operand::Field(names.clone())),
                Token::Variable(name, fields) => {
                    operands.push(Operand::Variable(name.clone(), fields.clone()))
                }
                Token::Text(text) => operands.push(Operand::Literal(Value::String(text.clone()))),
                Token::Number(number) => operands.push(Operand::Literal(Value::Number(number.clone()))),
                Token::Open => {
                    let inner = self.pipe_until_close(rest, depth + 1)?;
                    let Some(Token::Close) = rest.first() else {
                        return Err(parse_error(self.line, "unclosed left paren"));
                    };
                    *rest = &rest[1..];
                    operands.push(Operand::Pipe(inner));
                }
                Token::Word(word) => match word.as_str() {
                    "true" | "false" => operands.push(Operand::Literal(Value::Bool(word == "true"))),
                    "nil" => operands.push(Operand::Literal(Value::Null)),
                    _ if !functions::is_known(word) => {
                        return Err(parse_error(self.line, format!("function {word:?} not defined")));
                    }
                    _ if function.is_none() && operands.is_empty() => function = Some(word.clone()),
                    _ => operands.push(Operand::Pipe(Pipe(vec![Command {
                        function: Some(word.clone()),
                        operands: Vec::new(),
                    }]))),
                },
                Token::Comma | Token::Assign | Token::Pipe | Token::Close => {
                    return Err(parse_error(self.line, "unexpected token in operand"));
                }
            }
        }
        if function.is_none() && operands.is_empty() {
            return Err(parse_error(self.line, "missing value for command"));
        }
        Ok(Command { function, operands })
    }
}
