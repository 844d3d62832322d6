//! `.dockerignore`: which files of a context are left out.
//!
//! In: the file's text, paths. Out: whether each is left out. Source: moby, `patternmatcher`.

use crate::glob::{BadPattern, Glob};

/// The patterns of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    glob: Glob,
    /// Takes back what rules before it left out.
    is_exception: bool,
}

impl Ignore {
    /// Reads a file: one pattern a line, `#` for comments, `!` for exceptions.
    pub fn parse(text: &str) -> Result<Ignore, BadPattern> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let line = line.trim();
            let (is_exception, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let pattern = clean(pattern);
            if !pattern.is_empty() {
                rules.push(Rule { glob: Glob::parse(&pattern, true)?, is_exception });
            }
        }
        Ok(Ignore { rules })
    }

    /// Whether `path`, relative to the context, is left out: it or a folder it lies in. The last rule that fits decides.
    pub fn leaves_out(&self, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let folders: Vec<&str> = ends.map(|end| &path[..end]).collect();
        self.rules.iter().fold(false, |is_out, rule| {
            let fits = || folders.iter().any(|folder| rule.glob.fits(folder));
            if rule.is_exception == is_out && fits() { !rule.is_exception } else { is_out }
        })
    }

    /// Whether a file below a folder that is left out may still be wanted.
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.is_exception)
    }
}

/// Without dots, doubled and outer slashes. Source: Go, `filepath.Clean`.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rule_that_fits_decides() {
        let ignore =
            Ignore::parse("# c\n\n/out/\n*.log\n!keep.log\ndocs/**\n!docs/a.md\n**/*.tmp\n").unwrap();
        for (path, expect) in [
            ("out", true),
            ("out/x/y", true),
            ("a.log", true),
            ("keep.log", false),
            ("sub/a.log", false),
            ("docs/b.md", true),
            ("docs/a.md", false),
            ("x/y.tmp", true),
            ("y.tmp", true),
            ("src", false),
        ] {
            assert_eq!(ignore.leaves_out(path), expect, "{path}");
        }
        assert!(ignore.has_exceptions());
    }
}
