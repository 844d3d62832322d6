//! Puts instructions together to stages.
//!
//! In: the text of a Dockerfile. Out: the arguments before the first stage, and the stages with their instructions.

use crate::instruction::{self, Command, Instruction};
use crate::{ParseError, lines};

/// A Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// `ARG`s before the first `FROM`.
    pub arguments: Vec<Command>,
    /// At least one.
    pub stages: Vec<Stage>,
    /// What takes a character as it is.
    pub escape: char,
    /// What to tell, one text each.
    pub warnings: Vec<String>,
}

/// One image that is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Image or earlier stage, with variables.
    pub base: String,
    /// In lower case; empty for none.
    pub name: String,
    /// Empty for none.
    pub platform: String,
    /// Its `FROM` as the builder prints it.
    pub source: String,
    /// Line of its `FROM`.
    pub line: usize,
    /// What makes it.
    pub commands: Vec<Command>,
}

/// Reads a Dockerfile.
///
/// # Errors
/// What is wrong, with its line where it is known.
pub fn parse(text: &str) -> Result<Dockerfile, ParseError> {
    let lines = lines::split(text)?;
    let mut file = Dockerfile {
        arguments: Vec::new(),
        stages: Vec::new(),
        escape: lines.escape,
        warnings: lines.warnings,
    };
    for line in &lines.lines {
        let failed = |because| ParseError::Instruction { line: line.number, because };
        let instruction = instruction::parse(&line.text, lines.escape).map_err(failed)?;
        let source = line.text.trim().to_owned();
        match (instruction, file.stages.last_mut()) {
            (Instruction::From { base, name, platform }, _) => file.stages.push(Stage {
                base,
                name,
                platform,
                source,
                line: line.number,
                commands: Vec::new(),
            }),
            (instruction @ Instruction::Arg(_), None) => {
                file.arguments.push(Command { source, line: line.number, instruction });
            }
            (_, None) => return Err(failed("no build stage in current context".to_owned())),
            (instruction, Some(stage)) => {
                stage.commands.push(Command { source, line: line.number, instruction });
            }
        }
    }
    match file.stages.is_empty() {
        true => Err(ParseError::Syntax("no build stage in current context".to_owned())),
        false => Ok(file),
    }
}

/// Reads one instruction, as `ONBUILD` keeps it.
///
/// # Errors
/// What is wrong with it.
pub fn parse_command(text: &str) -> Result<Command, ParseError> {
    let lines = lines::split(text)?;
    let [line] = &lines.lines[..] else {
        return Err(ParseError::Syntax("onbuild trigger should be a single expression".to_owned()));
    };
    match instruction::parse(&line.text, lines.escape) {
        Ok(Instruction::From { .. }) => {
            Err(ParseError::Syntax("FROM isn't allowed as an ONBUILD trigger".to_owned()))
        }
        Ok(instruction) => Ok(Command { source: line.text.trim().to_owned(), line: 1, instruction }),
        Err(because) => Err(ParseError::Instruction { line: 1, because }),
    }
}
