//! The functions a template may call, and how a value is shown.
//!
//! Names and results are those of Go's `text/template` and of docker/cli `templates/templates.go`.

use serde_json::Value;
use std::cmp::Ordering;

const KNOWN: [&str; 25] = [
    "and", "eq", "ge", "gt", "index", "join", "json", "le", "len", "lower", "lt", "ne", "not", "or", "pad",
    "print", "printf", "println", "slice", "split", "title", "truncate", "upper", "html", "urlquery",
];

pub(crate) fn is_known(name: &str) -> bool {
    KNOWN.contains(&name)
}

/// What Go's `text/template` takes for true: not empty, not zero.
pub(crate) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// A value as Go's `%v` writes it; a null is `<no value>`.
pub(crate) fn show(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => {
            let shown: Vec<String> = items.iter().map(show_inner).collect();
            format!("[{}]", shown.join(" "))
        }
        Value::Object(map) => {
            let mut shown: Vec<String> =
                map.iter().map(|(key, item)| format!("{key}:{}", show_inner(item))).collect();
            shown.sort();
            format!("map[{}]", shown.join(" "))
        }
    }
}

fn show_inner(value: &Value) -> String {
    if value.is_null() { "<nil>".to_owned() } else { show(value) }
}

pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

pub(crate) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let shown =
        |at: usize| arguments.get(at).map(show).ok_or_else(|| wrong_number(name, at + 1, arguments.len()));
    match name {
        "json" => Ok(json(arguments.first().unwrap_or(&Value::Null))),
        "upper" => Ok(shown(0)?.to_uppercase().into()),
        "lower" => Ok(shown(0)?.to_lowercase().into()),
        "title" => Ok(title(&shown(0)?).into()),
        "join" => join(arguments),
        "split" => Ok(Value::Array(shown(0)?.split(&shown(1)?).map(Value::from).collect())),
        "pad" => pad(arguments),
        "truncate" => Ok(shown(0)?.chars().take(count(arguments, 1)?).collect::<String>().into()),
        "print" => Ok(arguments.iter().map(show).collect::<String>().into()),
        "println" => Ok((arguments.iter().map(show).collect::<Vec<_>>().join(" ") + "\n").into()),
        "printf" => Ok(printf(&shown(0)?, arguments.get(1..).unwrap_or_default()).into()),
        "html" => Ok(shown(0)?.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").into()),
        "urlquery" => Ok(url_escape(&shown(0)?).into()),
        "len" => length(arguments),
        "index" => index(arguments),
        "slice" => slice(arguments),
        "not" => Ok(Value::Bool(!arguments.first().is_some_and(is_true))),
        "and" => Ok(choose(arguments, |value| !is_true(value))),
        "or" => Ok(choose(arguments, is_true)),
        _ => compare(name, arguments).map(Value::Bool),
    }
}

fn wrong_number(name: &str, want: usize, got: usize) -> String {
    format!("wrong number of args for {name}: want {want} got {got}")
}

fn count(arguments: &[Value], at: usize) -> Result<usize, String> {
    let number = arguments.get(at).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
    number.map(|number| number.min(10_000)).ok_or_else(|| "expected a whole number".to_owned())
}

/// JSON without the spaces, as docker's `json` function writes it.
fn json(value: &Value) -> Value {
    Value::String(value.to_string())
}

fn title(text: &str) -> String {
    let mut start = true;
    text.chars()
        .flat_map(|c| {
            let shown: Vec<char> = if start { c.to_uppercase().collect() } else { vec![c] };
            start = !c.is_alphanumeric();
            shown
        })
        .collect()
}

fn join(arguments: &[Value]) -> Result<Value, String> {
    match arguments {
        [Value::Array(items), Value::String(by)] => {
            Ok(items.iter().map(show).collect::<Vec<_>>().join(by).into())
        }
        [Value::Null, _] => Ok("".into()),
        // A service's placeholders use `join "." a b`: the separator first.
        [Value::String(by), rest @ ..] => Ok(rest.iter().map(show).collect::<Vec<_>>().join(by).into()),
        _ => Err("expected a list and a separator".to_owned()),
    }
}

fn pad(arguments: &[Value]) -> Result<Value, String> {
    let text = arguments.first().map(show).unwrap_or_default();
    if text.is_empty() {
        return Ok(text.into());
    }
    Ok(format!("{}{text}{}", " ".repeat(count(arguments, 1)?), " ".repeat(count(arguments, 2)?)).into())
}

fn url_escape(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

fn length(arguments: &[Value]) -> Result<Value, String> {
    match arguments.first() {
        Some(Value::Array(items)) => Ok(items.len().into()),
        Some(Value::Object(map)) => Ok(map.len().into()),
        Some(Value::String(text)) => Ok(text.len().into()),
        Some(Value::Null) => Ok(0.into()),
        Some(other) => Err(format!("len of type {}", type_name(other))),
        None => Err(wrong_number("len", 1, 0)),
    }
}

fn index(arguments: &[Value]) -> Result<Value, String> {
    let [first, keys @ ..] = arguments else { return Err(wrong_number("index", 1, 0)) };
    keys.iter().try_fold(first.clone(), |value, key| match (&value, key) {
        (Value::Object(map), Value::String(key)) => Ok(map.get(key).cloned().unwrap_or_else(|| "".into())),
        (Value::Array(items), Value::Number(at)) => {
            let found = at.as_u64().and_then(|at| items.get(usize::try_from(at).ok()?)).cloned();
            found.ok_or_else(|| format!("error calling index: index out of range: {at}"))
        }
        (Value::Null, _) => Err("error calling index: index of untyped nil".to_owned()),
        (other, key) => Err(format!("error calling index: cannot index {} with {key}", type_name(other))),
    })
}

fn slice(arguments: &[Value]) -> Result<Value, String> {
    let from = if arguments.len() > 1 { count(arguments, 1)? } else { 0 };
    let to = if arguments.len() > 2 { count(arguments, 2)? } else { usize::MAX };
    let out_of_range = || "error calling slice: index out of range".to_owned();
    match arguments.first() {
        Some(Value::String(text)) => {
            let part = text.get(from..to.min(text.len())).ok_or_else(out_of_range)?;
            Ok(part.into())
        }
        Some(Value::Array(items)) => {
            let part = items.get(from..to.min(items.len())).ok_or_else(out_of_range)?;
            Ok(Value::Array(part.to_vec()))
        }
        other => Err(format!("can't slice item of type {}", type_name(other.unwrap_or(&Value::Null)))),
    }
}

/// The first value that `stops`, else the last: how Go's `and` and `or` choose.
fn choose(arguments: &[Value], stops: impl Fn(&Value) -> bool) -> Value {
    arguments.iter().find(|value| stops(value)).or(arguments.last()).cloned().unwrap_or(Value::Null)
}

fn compare(name: &str, arguments: &[Value]) -> Result<bool, String> {
    let [first, second, more @ ..] = arguments else { return Err(wrong_number(name, 2, arguments.len())) };
    if name == "eq" {
        return Ok(std::iter::once(second)
            .chain(more)
            .any(|other| order(first, other) == Some(Ordering::Equal)));
    }
    let order = order(first, second);
    if name == "ne" {
        return Ok(order != Some(Ordering::Equal));
    }
    let order = order.ok_or_else(|| format!("error calling {name}: incompatible types for comparison"))?;
    Ok(match name {
        "lt" => order.is_lt(),
        "le" => order.is_le(),
        "gt" => order.is_gt(),
        _ => order.is_ge(),
    })
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Null, Value::Null) => Some(Ordering::Equal),
        _ => None,
    }
}

/// The verbs `%s %v %d %q %t %f %x %%`, with `-`, width and precision.
fn printf(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut left = arguments.iter();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let flags = rest.find(|c: char| !(c.is_ascii_digit() || "-+ .0".contains(c))).unwrap_or(rest.len());
        let (spec, after) = rest.split_at(flags);
        let Some(verb) = after.chars().next() else {
            out.push_str("%!(NOVERB)");
            return out;
        };
        rest = &after[verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        match left.next() {
            Some(value) => out.push_str(&padded(spec, &verb_text(verb, spec, value))),
            None => out.push_str(&format!("%!{verb}(MISSING)")),
        }
    }
    out.push_str(rest);
    out
}

fn verb_text(verb: char, spec: &str, value: &Value) -> String {
    let precision = spec.split_once('.').and_then(|(_, digits)| digits.parse::<usize>().ok());
    match (verb, value) {
        ('q', value) => format!("{:?}", show(value)),
        ('d', Value::Number(number)) if !number.is_f64() => number.to_string(),
        ('f', Value::Number(number)) => {
            format!("{:.*}", precision.unwrap_or(6).min(40), number.as_f64().unwrap_or(0.0))
        }
        ('x', Value::Number(number)) => format!("{:x}", number.as_i64().unwrap_or(0)),
        ('x', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('t', Value::Bool(on)) => on.to_string(),
        ('s', Value::String(text)) => {
            precision.map_or_else(|| text.clone(), |keep| text.chars().take(keep).collect())
        }
        ('v' | 's', value) => show(value),
        (verb, value) => format!("%!{verb}({}={})", type_name(value), show(value)),
    }
}

fn padded(spec: &str, text: &str) -> String {
    let width = spec.split('.').next().unwrap_or_default();
    let left = width.starts_with('-');
    let width = width.trim_start_matches(['-', '+', ' ']).parse::<usize>().unwrap_or(0).min(10_000);
    if left { format!("{text:<width$}") } else { format!("{text:>width$}") }
}
