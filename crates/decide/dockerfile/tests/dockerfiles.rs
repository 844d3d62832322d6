//! Whole Dockerfiles: what they say, what is refused, and that no text makes the reader panic.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use dockerfile::{CommandLine, Copy, Glob, Ignore, Instruction, expand, expand_words, parse, parse_command};
use proptest::prelude::*;

fn check(line: &str, expect: Instruction) {
    let file = parse(&format!("FROM a\n{line}\n")).unwrap();
    assert_eq!(file.stages[0].commands[0].instruction, expect, "{line}");
}

fn refused(text: &str, expect: &str) {
    let error = parse(text).unwrap_err().to_string();
    assert!(error.contains(expect), "{text:?}: {error}");
}

fn list(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

#[test]
fn each_instruction_is_read() {
    check("RUN echo \\\n  hi", Instruction::Run(CommandLine::Shell("echo   hi".to_owned())));
    check("run [\"a\", \"b c\"]", Instruction::Run(CommandLine::Exec(list(&["a", "b c"]))));
    check("CMD", Instruction::Cmd(CommandLine::Shell(String::new())));
    check("ENTRYPOINT []", Instruction::Entrypoint(CommandLine::Exec(Vec::new())));
    check("ENV A=1 B=\"2 3\"", Instruction::Env(vec![pair("A", "1"), pair("B", "\"2 3\"")]));
    check("ENV A 1 2", Instruction::Env(vec![pair("A", "1 2")]));
    check("LABEL a.b=c", Instruction::Label { pairs: vec![pair("a.b", "c")], is_literal: false });
    check(
        "ARG A B=1",
        Instruction::Arg(vec![("A".to_owned(), None), ("B".to_owned(), Some("1".to_owned()))]),
    );
    check("EXPOSE 80 $P/udp", Instruction::Expose(list(&["80", "$P/udp"])));
    check("VOLUME [\"/a b\"]", Instruction::Volume(list(&["/a b"])));
    check("WORKDIR /a b", Instruction::Workdir("/a b".to_owned()));
    check("SHELL [\"sh\", \"-ec\"]", Instruction::Shell(list(&["sh", "-ec"])));
    check("MAINTAINER me <a@b>", Instruction::Maintainer("me <a@b>".to_owned()));
    check("ONBUILD RUN x  y", Instruction::OnBuild("RUN x  y".to_owned()));
    check("STOPSIGNAL SIGINT", Instruction::StopSignal("SIGINT".to_owned()));
    let copy = Copy {
        sources: list(&["a", "b*"]),
        destination: "/d/".to_owned(),
        from: "0".to_owned(),
        chown: "1:2".to_owned(),
        chmod: "644".to_owned(),
        ..Copy::default()
    };
    check("COPY --from=0 --chown=1:2 --chmod=644 a b* /d/", Instruction::Copy(copy));
}

#[test]
fn a_health_check_is_read_with_its_flags() {
    let file = parse("FROM a\nHEALTHCHECK --interval=5s --retries=2 CMD [\"x\"]").unwrap();
    let Instruction::Healthcheck(check) = &file.stages[0].commands[0].instruction else { panic!("{file:?}") };
    assert_eq!(check.test, ["CMD", "x"]);
    assert_eq!(check.interval, docker::Nanos::from_millis(5000));
}

#[test]
fn stages_and_arguments_before_them_are_kept_apart() {
    let file = parse("ARG V=1\nFROM --platform=linux/amd64 a:$V AS First\nARG V\nFROM first\n").unwrap();
    assert_eq!((file.arguments.len(), file.stages.len()), (1, 2));
    let first = &file.stages[0];
    assert_eq!(
        (first.base.as_str(), first.name.as_str(), first.platform.as_str()),
        ("a:$V", "first", "linux/amd64")
    );
    assert_eq!((first.line, first.commands[0].line, first.commands[0].source.as_str()), (2, 3, "ARG V"));
}

#[test]
fn what_makes_no_sense_is_refused_in_dockers_words() {
    refused("FROM a\nFOO b", "dockerfile parse error on line 2: unknown instruction: FOO");
    refused("RUN x", "line 1: no build stage in current context");
    refused("ARG a", "no build stage in current context");
    refused("FROM a b", "FROM requires either one or three arguments");
    refused("FROM a AS 1x", "invalid name for build stage: \"1x\"");
    refused("FROM a\nCOPY x", "COPY requires at least two arguments");
    refused("FROM a\nENV A=1 B", "Syntax error - can't find = in \"B\". Must be of the form: name=value");
    refused("FROM a\nENV A", "ENV must have two arguments");
    refused("FROM a\nENV =x", "ENV names can not be blank");
    refused("FROM a\nCOPY --nope=1 a b", "unknown flag: --nope");
    refused("FROM a\nWORKDIR", "WORKDIR requires exactly one argument");
    refused("FROM a\nSHELL x", "SHELL requires the arguments to be in JSON form");
    refused("FROM a\nONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger");
    refused("FROM a\nONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
    refused("FROM a\nRUN --mount=type=cache,target=/x y", "the --mount option requires BuildKit");
    refused("FROM a\nRUN <<EOF\necho\nEOF", "line 2: RUN with a here-document (<<EOF) needs BuildKit");
    refused("FROM a\nHEALTHCHECK FOO", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)");
    refused("FROM a\nHEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)");
    refused("FROM a\nHEALTHCHECK --interval=1us CMD x", "cannot be less than 1ms");
    refused("FROM a\nUSER --x y", "unknown flag: --x");
}

proptest! {
    /// Characters that mean something to the reader come often.
    #[test]
    fn no_text_makes_it_panic(
        text in "(FROM|RUN|COPY|ADD|ENV|ARG|LABEL|HEALTHCHECK|ONBUILD|EXPOSE|VOLUME|SHELL|#|escape)?( |\n|\\\\|`|\"|'|\\$|\\{|\\}|=|-|\\[|\\]|,|<|:|!|\\*|/|\\PC){0,60}"
    ) {
        let _ = parse(&text);
        let _ = parse(&format!("FROM a\n{text}"));
        let _ = parse_command(&text);
        let get = |name: &str| (name.len() > 1).then(|| format!("<{name}>"));
        let _ = expand(&text, '\\', &get);
        let _ = expand_words(&text, '`', &get);
        if let Ok(ignore) = Ignore::parse(&text) {
            let _ = ignore.leaves_out(&text);
        }
        if let Ok(glob) = Glob::parse(&text, true) {
            let _ = glob.fits(&text);
        }
    }

    /// What is in single quotes comes back as it is.
    #[test]
    fn single_quotes_protect_everything(text in "[^']{0,40}") {
        prop_assert_eq!(expand(&format!("'{text}'"), '\\', &|_| None).unwrap(), text);
    }
}
