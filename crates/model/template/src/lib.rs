//! The part of Go's `text/template` that Docker's `--format` and a service's placeholders use.
//!
//! In: a template and a JSON value. Out: text, or an error that names the place. Never reads anything but its arguments.
//!
//! ```text
//! text ─► lex (pieces of text and actions) ─► parse (tree of nodes) ─► eval (tree + JSON value) ─► text
//! ```
//!
//! Known: fields, `$`, variables, pipes, parentheses, `if`/`else if`/`range`/`with`/`end`, trim marks, comments, and the
//! functions `json join split upper lower title pad truncate println print printf len index slice eq ne lt le gt ge and
//! or not`. Unknown: `define`, `template`, `block`, method calls.

mod eval;
mod functions;
mod lex;
mod parse;

use serde_json::Value;

/// Why a template could not be understood or filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The text is not a template.
    #[error("template parsing error: template: :{line}: {message}")]
    Parse {
        /// Counted from 1.
        line: usize,
        /// What was wrong, in Go's words where it has some.
        message: String,
    },
    /// The template asks for something that the value does not have.
    #[error("template: :1: executing \"\" at <{at}>: {message}")]
    Execute {
        /// The expression that failed, as written.
        at: String,
        /// What was wrong, in Go's words where it has some.
        message: String,
    },
}

/// A parsed template, to be filled in any number of times.
#[derive(Debug, Clone)]
pub struct Template {
    nodes: Vec<parse::Node>,
}

impl Template {
    /// Parses `text`.
    ///
    /// # Errors
    /// When an action is not closed, a block has no `end`, or a function is unknown.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        Ok(Template { nodes: parse::parse(lex::lex(text)?)? })
    }

    /// Fills the template in with `data`.
    ///
    /// # Errors
    /// When a field is missing (`map has no entry for key "x"`) or a function does not take its argument.
    pub fn render(&self, data: &Value) -> Result<String, TemplateError> {
        eval::render(&self.nodes, data)
    }
}

/// Parses and fills in at once.
///
/// # Errors
/// As [`Template::parse`] and [`Template::render`].
pub fn render(text: &str, data: &Value) -> Result<String, TemplateError> {
    Template::parse(text)?.render(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(template: &str, expect: &str) {
        let data = json!({
            "ID": "abc", "Count": 3, "Ok": true, "Ratio": 0.5, "None": null,
            "Labels": {"b.c": "2", "a": "1"}, "List": ["x", "y"],
            "Spec": {"Name": "web", "Empty": ""},
        });
        assert_eq!(render(template, &data).as_deref(), Ok(expect), "{template}");
    }

    #[test]
    fn fields_and_text_are_written_as_go_writes_them() {
        check("plain", "plain");
        check("{{.ID}} has {{.Count}}", "abc has 3");
        check("{{.Spec.Name}}{{.Ok}}{{.None}}", "webtrue<no value>");
        check("{{ .Labels }} {{.List}}", "map[a:1 b.c:2] [x y]");
        check("{{json .Labels}}", r#"{"a":"1","b.c":"2"}"#);
        check("a {{- .ID -}} b", "aabcb");
        check("{{/* note */}}x", "x");
    }

    #[test]
    fn functions_and_pipes_work() {
        check(r#"{{join .List ", "}}"#, "x, y");
        check(r#"{{.ID | upper | printf "%s-%d" "q"}}"#, "q-%!d(string=ABC)");
        check(r#"{{printf "%s/%v %q %5s|%-5s|" .ID .Count .ID "r" "l"}}"#, "abc/3 \"abc\"     r|l    |");
        check(r#"{{index .Labels "b.c"}}{{index .List 1}}"#, "2y");
        check(r#"{{len .List}}{{len .ID}}"#, "23");
        check(r#"{{println "a" 1}}"#, "a 1\n");
        check(r#"{{(index .List 0) | title}}{{split "a:b" ":"}}"#, "X[a b]");
        check(r#"{{truncate .Spec.Name 2}}|{{pad "x" 1 2}}|"#, "we| x  |");
    }

    #[test]
    fn blocks_choose_and_repeat() {
        check(
            "{{if .Ok}}yes{{else}}no{{end}}{{if .Spec.Empty}}yes{{else if .Count}}three{{end}}",
            "yesthree",
        );
        check(
            "{{range .List}}[{{.}}]{{end}}{{range $i, $e := .List}}{{$i}}={{$e}};{{end}}",
            "[x][y]0=x;1=y;",
        );
        check("{{range $k, $v := .Labels}}{{$k}}={{$v}},{{end}}", "a=1,b.c=2,");
        check("{{range .None}}x{{else}}nothing{{end}}", "nothing");
        check("{{with .Spec}}{{.Name}}{{$.ID}}{{end}}{{$x := .Count}}{{$x}}", "webabc3");
        check("{{if and .Ok (eq .Count 3)}}a{{end}}{{if or (ne .ID `abc`) (gt .Count 2)}}b{{end}}", "ab");
        check("{{if not .Spec.Empty}}c{{end}}{{if eq .ID \"q\" \"abc\"}}d{{end}}", "cd");
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let error = render("{{.Nope}}", &json!({"ID": 1})).expect_err("the key is missing");
        assert_eq!(
            error.to_string(),
            "template: :1: executing \"\" at <.Nope>: map has no entry for key \"Nope\""
        );
        for (text, says) in [
            ("{{.ID", "unclosed action"),
            ("{{if .ID}}", "unexpected EOF"),
            ("{{nofun .ID}}", "function \"nofun\" not defined"),
            ("{{end}}", "unexpected {{end}}"),
            ("{{.ID | }}", "missing value for command"),
        ] {
            let error = Template::parse(text).expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "(\\{\\{|\\}\\}|[ .a-z$|()\"`-]|if|end|range|else){0,24}") {
            if let Ok(template) = Template::parse(&text) {
                let _ = template.render(&json!({"a": {"b": [1, 2]}}));
            }
        }
    }
}
