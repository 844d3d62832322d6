//! A small regular expression, for `name` filters that clients write as `^web$` or `db-.*`.
//!
//! In: a pattern and a name. Out: found or not. Time is bounded by pattern length times name length, whatever the
//! pattern. Knows literals, `.`, `[…]`, `\d \w \s`, `( | )`, `* + ?`, `^ $`; others make it no pattern.

/// One step of the compiled program.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Is(Set),
    Start,
    End,
    /// Go on at both places.
    Fork(usize, usize),
    Jump(usize),
    Found,
}

/// Characters a step accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Set {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Set {
    fn one(c: char) -> Self {
        Self { negated: false, ranges: vec![(c, c)] }
    }

    fn accepts(&self, c: char) -> bool {
        self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != self.negated
    }
}

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    steps: Vec<Step>,
}

/// Longest pattern we look at. chosen: container names have at most 255 bytes in practice.
const LONGEST: usize = 1024;
/// Deepest nesting of groups. chosen: the parser recurses.
const DEEPEST: usize = 32;

impl Pattern {
    /// `None` if the text is no pattern we know.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let mut parser = Parser { rest: text.chars().peekable(), depth: 0 };
        let mut steps = parser.alternatives()?;
        if parser.rest.next().is_some() {
            return None;
        }
        steps.push(Step::Found);
        Some(Self { steps })
    }

    /// Whether it matches anywhere in `text`.
    pub(crate) fn is_found_in(&self, text: &str) -> bool {
        let mut now = vec![false; self.steps.len()];
        let length = text.chars().count();
        for (at, c) in text.chars().map(Some).chain([None]).enumerate() {
            // A match may begin at every place.
            if self.enter(&mut now, 0, at, length) {
                return true;
            }
            let Some(c) = c else { break };
            let mut next = vec![false; self.steps.len()];
            for (place, step) in self.steps.iter().enumerate() {
                let moves = now[place] && matches!(step, Step::Is(set) if set.accepts(c));
                if moves && self.enter(&mut next, place + 1, at + 1, length) {
                    return true;
                }
            }
            now = next;
        }
        false
    }

    /// Marks every step reachable from `place` without reading; true if one of them is the end.
    fn enter(&self, states: &mut [bool], place: usize, at: usize, length: usize) -> bool {
        let mut todo = vec![place];
        while let Some(place) = todo.pop() {
            if std::mem::replace(&mut states[place], true) {
                continue;
            }
            match &self.steps[place] {
                Step::Found => return true,
                Step::Is(_) => {}
                Step::Jump(to) => todo.push(*to),
                Step::Fork(a, b) => todo.extend([*a, *b]),
                Step::Start if at == 0 => todo.push(place + 1),
                Step::End if at == length => todo.push(place + 1),
                Step::Start | Step::End => {}
            }
        }
        false
    }
}

struct Parser<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    depth: usize,
}

impl Parser<'_> {
    fn alternatives(&mut self) -> Option<Vec<Step>> {
        let mut left = self.sequence()?;
        while self.rest.next_if_eq(&'|').is_some() {
            let right = self.sequence()?;
            let mut both = vec![Step::Fork(1, left.len() + 2)];
            append(&mut both, left);
            both.push(Step::Jump(both.len() + 1 + right.len()));
            append(&mut both, right);
            left = both;
        }
        Some(left)
    }

    fn sequence(&mut self) -> Option<Vec<Step>> {
        let mut steps = Vec::new();
        while self.rest.peek().is_some_and(|c| !matches!(c, '|' | ')')) {
            let atom = self.atom()?;
            let atom = self.repeated(atom);
            append(&mut steps, atom);
        }
        Some(steps)
    }

    fn repeated(&mut self, mut atom: Vec<Step>) -> Vec<Step> {
        while let Some(sign) = self.rest.next_if(|c| matches!(c, '*' | '+' | '?')) {
            let length = atom.len();
            atom = match sign {
                '*' => {
                    let mut steps = vec![Step::Fork(1, length + 2)];
                    append(&mut steps, atom);
                    steps.push(Step::Jump(0));
                    steps
                }
                '+' => {
                    atom.push(Step::Fork(0, length + 1));
                    atom
                }
                _ => {
                    let mut steps = vec![Step::Fork(1, length + 1)];
                    append(&mut steps, atom);
                    steps
                }
            };
            if atom.len() > 8 * LONGEST {
                break;
            }
        }
        atom
    }

    fn atom(&mut self) -> Option<Vec<Step>> {
        let step = match self.rest.next()? {
            '^' => Step::Start,
            '$' => Step::End,
            '.' => Step::Is(Set { negated: true, ranges: vec![('\n', '\n')] }),
            '[' => Step::Is(self.class()?),
            '\\' => Step::Is(escaped(self.rest.next()?)?),
            '(' => return self.group(),
            '*' | '+' | '?' | '{' => return None,
            c => Step::Is(Set::one(c)),
        };
        Some(vec![step])
    }

    fn group(&mut self) -> Option<Vec<Step>> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        if self.rest.next_if_eq(&'?').is_some() {
            self.rest.next_if_eq(&':')?;
        }
        let steps = self.alternatives()?;
        self.depth -= 1;
        self.rest.next_if_eq(&')')?;
        Some(steps)
    }

    fn class(&mut self) -> Option<Set> {
        let negated = self.rest.next_if_eq(&'^').is_some();
        let mut ranges = Vec::new();
        loop {
            let low = match self.rest.next()? {
                ']' if !ranges.is_empty() => return Some(Set { negated, ranges }),
                '\\' => {
                    let set = escaped(self.rest.next()?)?;
                    match set.ranges.as_slice() {
                        [(low, high)] if low == high && !set.negated => *low,
                        _ if set.negated => return None,
                        _ => {
                            ranges.extend(set.ranges);
                            continue;
                        }
                    }
                }
                c => c,
            };
            ranges.push((low, self.range_end(low)?));
        }
    }

    /// The upper end of a range that starts with `low`; `low` itself if it is no range.
    fn range_end(&mut self, low: char) -> Option<char> {
        let mut ahead = self.rest.clone();
        if ahead.next() != Some('-') || matches!(ahead.peek(), None | Some(']')) {
            return Some(low);
        }
        self.rest.next();
        let high = self.rest.next()?;
        (high != '\\' && low <= high).then_some(high)
    }
}

fn escaped(c: char) -> Option<Set> {
    let word = vec![('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];
    let space = vec![('\t', '\n'), ('\u{c}', '\r'), (' ', ' ')];
    Some(match c {
        'd' => Set { negated: false, ranges: vec![('0', '9')] },
        'D' => Set { negated: true, ranges: vec![('0', '9')] },
        'w' => Set { negated: false, ranges: word },
        'W' => Set { negated: true, ranges: word },
        's' => Set { negated: false, ranges: space },
        'S' => Set { negated: true, ranges: space },
        c if c.is_ascii_alphanumeric() => return None,
        c => Set::one(c),
    })
}

/// Appends steps whose places were counted from their own start.
fn append(steps: &mut Vec<Step>, more: Vec<Step>) {
    let by = steps.len();
    steps.extend(more.into_iter().map(|step| match step {
        Step::Fork(a, b) => Step::Fork(a + by, b + by),
        Step::Jump(to) => Step::Jump(to + by),
        step => step,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(pattern: &str, text: &str, expect: bool) {
        let compiled = Pattern::parse(pattern).unwrap_or_else(|| panic!("{pattern} is a pattern"));
        assert_eq!(compiled.is_found_in(text), expect, "{pattern} in {text}");
    }

    #[test]
    fn patterns_match_as_in_go() {
        check("web", "my-web-1", true);
        check("^web", "my-web-1", false);
        check("^/?web$", "web", true);
        check("^web-[0-9]+$", "web-12", true);
        check("^web-[0-9]+$", "web-", false);
        check("^(a|bc)*$", "abcbca", true);
        check("^(a|bc)*$", "abcb", false);
        check("a.c", "xabcx", true);
        check("a\\.c", "abc", false);
        check("^[^x]+$", "abc", true);
        check("^[^x]+$", "axc", false);
        check("^a?b$", "b", true);
        check("", "anything", true);
        check("^$", "", true);
        check("x|y|z", "z", true);
        check("^\\w+_\\d$", "ab_1", true);
        check("[a-]", "-", true);
    }

    #[test]
    fn what_is_no_pattern_is_told() {
        for bad in ["(", ")", "[a", "*a", "a)", "\\", "(?<n>a)", "[b-a]", "\\q"] {
            assert_eq!(Pattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn nested_repeats_take_linear_time() {
        check("^(a*)*$", &("a".repeat(2000) + "b"), false);
        check("^(a|a)*$", &("a".repeat(2000) + "b"), false);
    }

    proptest! {
        #[test]
        fn a_quoted_name_finds_itself(name in "[a-z0-9_.-]{1,30}") {
            let pattern = Pattern::parse(&format!("^{}$", name.replace('.', "\\."))).unwrap();
            prop_assert!(pattern.is_found_in(&name));
            let longer = format!("{name}x");
            prop_assert!(!pattern.is_found_in(&longer));
        }

        #[test]
        fn no_text_panics(pattern in ".{0,30}", text in ".{0,30}") {
            if let Some(pattern) = Pattern::parse(&pattern) {
                let _ = pattern.is_found_in(&text);
            }
        }
    }
}
