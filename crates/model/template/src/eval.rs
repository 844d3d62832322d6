//! Fills a tree in with a value.
//!
//! In: nodes and JSON. Out: text. A missing key is an error, a null prints as `<no value>`.

use crate::TemplateError;
use crate::functions::{self, is_true, show};
use crate::parse::{Command, Node, Operand, Pipe};
use serde_json::Value;

struct Frame<'a> {
    root: &'a Value,
    variables: Vec<(String, Value)>,
    out: String,
}

pub(crate) fn render(nodes: &[Node], data: &Value) -> Result<String, TemplateError> {
    let mut frame = Frame { root: data, variables: Vec::new(), out: String::new() };
    frame.run(nodes, data)?;
    Ok(frame.out)
}

impl Frame<'_> {
    fn run(&mut self, nodes: &[Node], dot: &Value) -> Result<(), TemplateError> {
        let known = self.variables.len();
        for node in nodes {
            self.node(node, dot)?;
        }
        self.variables.truncate(known);
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<(), TemplateError> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Show(pipe) => {
                let value = self.pipe(pipe, dot)?;
                self.out.push_str(&show(&value));
            }
            Node::Set(name, pipe) => {
                let value = self.pipe(pipe, dot)?;
                self.variables.push((name.clone(), value));
            }
            Node::If(branches, otherwise) => {
                for (pipe, body) in branches {
                    if is_true(&self.pipe(pipe, dot)?) {
                        return self.run(body, dot);
                    }
                }
                self.run(otherwise, dot)?;
            }
            Node::With(pipe, body, otherwise) => {
                let value = self.pipe(pipe, dot)?;
                if is_true(&value) {
                    self.run(body, &value)?;
                } else {
                    self.run(otherwise, dot)?;
                }
            }
            Node::Range { key, item, over, body, otherwise } => {
                let pairs = pairs(self.pipe(over, dot)?);
                if pairs.is_empty() {
                    return self.run(otherwise, dot);
                }
                let known = self.variables.len();
                for (at, value) in pairs {
                    if let Some(key) = key {
                        self.variables.push((key.clone(), at));
                    }
                    if let Some(item) = item {
                        self.variables.push((item.clone(), value.clone()));
                    }
                    self.run(body, &value)?;
                    self.variables.truncate(known);
                }
            }
        }
        Ok(())
    }

    fn pipe(&self, pipe: &Pipe, dot: &Value) -> Result<Value, TemplateError> {
        let mut last = None;
        for command in &pipe.0 {
            last = Some(self.command(command, dot, last)?);
        }
        Ok(last.unwrap_or(Value::Null))
    }

    fn command(&self, command: &Command, dot: &Value, piped: Option<Value>) -> Result<Value, TemplateError> {
        let mut arguments = Vec::with_capacity(command.operands.len() + 1);
        for operand in &command.operands {
            arguments.push(self.operand(operand, dot)?);
        }
        arguments.extend(piped);
        match &command.function {
            Some(name) => functions::call(name, &arguments)
                .map_err(|message| TemplateError::Execute { at: name.clone(), message }),
            None if arguments.len() > 1 => Err(TemplateError::Execute {
                at: "operand".to_owned(),
                message: "can't give argument to non-function".to_owned(),
            }),
            None => Ok(arguments.pop().unwrap_or(Value::Null)),
        }
    }

    fn operand(&self, operand: &Operand, dot: &Value) -> Result<Value, TemplateError> {
        match operand {
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Pipe(pipe) => self.pipe(pipe, dot),
            Operand::Field(names) => walk(dot, names),
            Operand::Variable(name, fields) if name.is_empty() => walk(self.root, fields),
            Operand::Variable(name, fields) => {
                let held = self.variables.iter().rev().find(|(known, _)| known == name);
                let (_, value) = held.ok_or_else(|| TemplateError::Execute {
                    at: format!("${name}"),
                    message: format!("undefined variable \"${name}\""),
                })?;
                walk(value, fields)
            }
        }
    }
}

fn walk(from: &Value, names: &[String]) -> Result<Value, TemplateError> {
    let mut value = from;
    for name in names {
        let at = || format!(".{}", names.join("."));
        value = match value {
            Value::Object(map) => map.get(name).ok_or_else(|| TemplateError::Execute {
                at: at(),
                message: format!("map has no entry for key {name:?}"),
            })?,
            Value::Null => {
                let message = format!("nil pointer evaluating interface {{}}.{name}");
                return Err(TemplateError::Execute { at: at(), message });
            }
            other => {
                let message = format!("can't evaluate field {name} in type {}", functions::type_name(other));
                return Err(TemplateError::Execute { at: at(), message });
            }
        };
    }
    Ok(value.clone())
}

fn pairs(value: Value) -> Vec<(Value, Value)> {
    match value {
        Value::Array(items) => {
            items.into_iter().enumerate().map(|(at, item)| (Value::from(at), item)).collect()
        }
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.into_iter().map(|(key, item)| (Value::String(key), item)).collect();
            pairs.sort_by(|a, b| a.0.as_str().cmp(&b.0.as_str()));
            pairs
        }
        _ => Vec::new(),
    }
}
