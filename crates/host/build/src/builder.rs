//! Carries out a Dockerfile, stage by stage and instruction by instruction.
//!
//! In: a context, options. Out: the last stage's image with its names, and what moby's builder prints meanwhile.
//! Source: moby 28, `builder/dockerfile/{builder,evaluator,dispatchers}.go`.

use std::collections::BTreeMap;

use docker::{ImageConfig, Reference};
use dockerfile::{Command, CommandLine, Dockerfile, Instruction, ParseError, Stage};
use engine::Engine;
use images::{Image, ImageId, Platform, Store};

use crate::arguments::Arguments;
use crate::context::{self, Context, Source};
use crate::error::BuildError;
use crate::options::BuildOptions;
use crate::output::Output;
use crate::run::Runner;
use crate::step::{State, Steps};
use crate::{base, text};

/// The image that is none.
const SCRATCH: &str = "scratch";
/// What images without one get. Source: moby, `pkg/system`, `DefaultPathEnvUnix`.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Builds an image. Dropping the future ends the build; steps that were finished stay for the next one.
pub async fn build(
    engine: &Engine,
    source: Source,
    options: &BuildOptions,
    out: &Output,
) -> Result<ImageId, BuildError> {
    let context = context::open(engine.images(), source, options).await?;
    let mut file = parse(&context)?;
    choose_target(&mut file, &options.target)?;
    add_labels(&mut file, &options.labels);
    let mut holds = Holds { images: engine.images().clone(), prefix: new_name(), count: file.stages.len() };
    let built = carry_out(engine, &context, &file, options, (out, &holds.prefix)).await;
    holds.end().await;
    built
}

async fn carry_out(
    engine: &Engine,
    context: &Context,
    file: &Dockerfile,
    options: &BuildOptions,
    (out, holder): (&Output, &str),
) -> Result<ImageId, BuildError> {
    let images = engine.images();
    for warning in &file.warnings {
        out.red(&format!("{warning}\n")).await;
    }
    let mut builder = Builder {
        engine,
        images,
        options,
        out,
        context,
        arguments: Arguments::new(options.arguments.clone()),
        escape: file.escape,
        done: Vec::new(),
        step: 0,
        steps: file.arguments.len() + file.stages.iter().map(|stage| 1 + stage.commands.len()).sum::<usize>(),
    };
    builder.all(file, holder).await?;
    let last = builder.done.pop().and_then(|done| done.image);
    let id = last
        .ok_or_else(|| BuildError::Invalid("No image was generated. Is your Dockerfile empty?".to_owned()))?;
    out.text(format!("Successfully built {}\n", id.short())).await;
    for tag in &options.tags {
        images.tag(id.as_str(), tag).await?;
        let shown =
            Reference::parse(tag).map_or_else(|_| tag.clone(), |tag| tag.with_default_tag().familiar());
        out.text(format!("Successfully tagged {shown}\n")).await;
    }
    Ok(id)
}

/// What nothing else is called among those that hold images.
fn new_name() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static BUILDS: AtomicU64 = AtomicU64::new(0);
    format!("build{:07}", BUILDS.fetch_add(1, Ordering::Relaxed))
}

/// Lets go of what a build held, when it is over in whatever way.
struct Holds {
    images: Store,
    prefix: String,
    count: usize,
}

impl Holds {
    fn name(prefix: &str, stage: usize) -> String {
        format!("{prefix}-{stage}")
    }

    /// Lets go before whoever asked for the build hears of its end, and may remove the image.
    async fn end(&mut self) {
        for stage in 0..std::mem::take(&mut self.count) {
            self.images.release(&Holds::name(&self.prefix, stage)).await;
        }
    }
}

impl Drop for Holds {
    fn drop(&mut self) {
        let (images, prefix, count) = (self.images.clone(), self.prefix.clone(), self.count);
        if count == 0 {
            return;
        }
        // A dropped future cannot wait. Without a runtime the process is ending, and holds end with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                for stage in 0..count {
                    images.release(&Holds::name(&prefix, stage)).await;
                }
            });
        }
    }
}

fn parse(context: &Context) -> Result<Dockerfile, BuildError> {
    dockerfile::parse(&context.text).map_err(|error| match error {
        ParseError::Syntax(_) => BuildError::Syntax { name: context.name.clone(), source: error },
        ParseError::Instruction { .. } => BuildError::Parse(error),
    })
}

/// Forgets stages behind the wanted one.
fn choose_target(file: &mut Dockerfile, target: &str) -> Result<(), BuildError> {
    if target.is_empty() {
        return Ok(());
    }
    let by_name = file.stages.iter().position(|stage| stage.name.eq_ignore_ascii_case(target));
    let by_number = || target.parse::<usize>().ok().filter(|number| *number < file.stages.len());
    let Some(at) = by_name.or_else(by_number) else {
        return Err(BuildError::Invalid(format!("failed to reach build target {target} in Dockerfile")));
    };
    file.stages.truncate(at + 1);
    Ok(())
}

/// Labels of the request are steps of the last stage.
fn add_labels(file: &mut Dockerfile, labels: &BTreeMap<String, String>) {
    let Some(last) = file.stages.last_mut() else { return };
    last.commands.extend(labels.iter().map(|(key, value)| Command {
        source: format!("LABEL {key}={value}"),
        line: 0,
        instruction: Instruction::Label { pairs: vec![(key.clone(), value.clone())], is_literal: true },
    }));
}

/// A stage that was built.
struct Done {
    name: String,
    image: Option<ImageId>,
}

struct Builder<'a> {
    engine: &'a Engine,
    images: &'a Store,
    options: &'a BuildOptions,
    out: &'a Output,
    context: &'a Context,
    arguments: Arguments,
    escape: char,
    done: Vec<Done>,
    step: usize,
    steps: usize,
}

impl Builder<'_> {
    async fn all(&mut self, file: &Dockerfile, holder: &str) -> Result<(), BuildError> {
        for command in &file.arguments {
            self.announce(&command.source).await;
            let Instruction::Arg(arguments) = &command.instruction else { continue };
            for (name, default) in arguments {
                let get = |name: &str| self.arguments.global(name);
                let default = default.as_deref().map(|word| self.expand(word, &get)).transpose()?;
                self.arguments.add_global(name, default);
            }
        }
        for (number, stage) in file.stages.iter().enumerate() {
            let steps = Steps {
                images: self.images,
                out: self.out,
                uses_cache: !self.options.no_cache,
                holder: Holds::name(holder, number),
            };
            let image = self.stage(stage, &steps).await?;
            if let Some(id) = &image {
                self.out.image(id.as_str()).await;
            }
            self.done.push(Done { name: stage.name.clone(), image });
        }
        let unused = self.arguments.unused();
        if !unused.is_empty() {
            let text = format!("[Warning] One or more build-args [{}] were not consumed\n", unused.join(" "));
            self.out.text(text).await;
        }
        Ok(())
    }

    async fn announce(&mut self, source: &str) {
        self.step += 1;
        self.out.text(format!("Step {}/{} : {source}\n", self.step, self.steps)).await;
    }

    async fn stage(&mut self, stage: &Stage, steps: &Steps<'_>) -> Result<Option<ImageId>, BuildError> {
        if !stage.name.is_empty() && self.done.iter().any(|done| done.name == stage.name) {
            return Err(BuildError::Invalid(format!("duplicate name {}", stage.name)));
        }
        self.announce(&stage.source).await;
        let mut state = self.begin(stage, steps).await?;
        let triggers = state.config.on_build.take().unwrap_or_default();
        self.triggers(&triggers, &mut state, steps).await?;
        self.tell_image(&state).await;
        for command in &stage.commands {
            self.announce(&command.source).await;
            self.command(&command.instruction, &mut state, steps).await?;
            self.tell_image(&state).await;
        }
        Ok(state.image)
    }

    async fn tell_image(&self, state: &State) {
        let id = state.image.as_ref().map(ImageId::short).unwrap_or_default();
        self.out.text(format!(" ---> {id}\n")).await;
    }

    /// `FROM`.
    async fn begin(&mut self, stage: &Stage, steps: &Steps<'_>) -> Result<State, BuildError> {
        self.arguments.begin_stage();
        let get = |name: &str| self.arguments.global(name);
        let (name, platform) = (self.expand(&stage.base, &get)?, self.expand(&stage.platform, &get)?);
        if name.is_empty() {
            return Err(BuildError::Invalid(format!("base name ({}) should not be blank", stage.base)));
        }
        let platform = match platform.as_str() {
            "" => self.options.platform.clone(),
            text => Some(text.parse::<Platform>().map_err(|error| BuildError::Invalid(error.to_string()))?),
        };
        let earlier = self.done.iter().find(|done| !done.name.is_empty() && done.name == name.to_lowercase());
        let image = match earlier {
            Some(Done { image: Some(id), .. }) => Some(self.images.image(id).await?),
            Some(Done { image: None, .. }) => None,
            None if name == SCRATCH => None,
            None => Some(base::find(self.images, &name, platform.as_ref(), self.options, self.out).await?),
        };
        if let Some(image) = &image {
            steps.hold(&image.id)?;
        }
        Ok(begun(image, platform))
    }

    /// What the base image asks to be done first.
    async fn triggers(
        &mut self,
        triggers: &[String],
        state: &mut State,
        steps: &Steps<'_>,
    ) -> Result<(), BuildError> {
        if triggers.is_empty() {
            return Ok(());
        }
        let plural = if triggers.len() == 1 { "" } else { "s" };
        self.out.text(format!("# Executing {} build trigger{plural}\n", triggers.len())).await;
        for trigger in triggers {
            let command = dockerfile::parse_command(trigger).map_err(BuildError::Parse)?;
            self.command(&command.instruction, state, steps).await?;
        }
        Ok(())
    }

    async fn command(
        &mut self,
        instruction: &Instruction,
        state: &mut State,
        steps: &Steps<'_>,
    ) -> Result<(), BuildError> {
        match instruction {
            Instruction::Run(line) => {
                let runner = Runner { engine: self.engine, options: self.options, out: self.out };
                runner.run(steps, state, &self.arguments, line).await
            }
            Instruction::Copy(copy) => self.copy("COPY", copy, state, steps).await,
            Instruction::Add(copy) => self.copy("ADD", copy, state, steps).await,
            Instruction::Workdir(path) => {
                let path = self.word(path, state)?;
                state.config.working_dir = text::absolute(&state.config.working_dir, &path);
                self.working_folder(state, steps).await
            }
            Instruction::Arg(arguments) => {
                let mut comment = String::from("ARG");
                for (name, default) in arguments {
                    let (name, default) = (
                        self.word(name, state)?,
                        default.as_deref().map(|word| self.word(word, state)).transpose()?,
                    );
                    let shown = default.as_ref().map(|value| format!("={value}")).unwrap_or_default();
                    comment.push_str(&format!(" {name}{shown}"));
                    self.arguments.add(&name, default);
                }
                self.note(&comment, state, steps).await
            }
            other => {
                let comment = self.describe(other, state)?;
                self.note(&comment, state, steps).await
            }
        }
    }

    /// Changes the config and says what the history has of it.
    fn describe(&self, instruction: &Instruction, state: &mut State) -> Result<String, BuildError> {
        Ok(match instruction {
            Instruction::Env(pairs) => {
                let pairs = self.pairs(pairs, state)?;
                for (key, value) in &pairs {
                    set_env(&mut state.config.env, key, value);
                }
                format!("ENV{}", shown(&pairs))
            }
            Instruction::Label { pairs, is_literal } => {
                let pairs = if *is_literal { pairs.clone() } else { self.pairs(pairs, state)? };
                state.config.labels.extend(pairs.iter().cloned());
                format!("LABEL{}", shown(&pairs))
            }
            Instruction::Maintainer(author) => {
                state.author.clone_from(author);
                format!("MAINTAINER {author}")
            }
            Instruction::User(user) => {
                state.config.user = self.word(user, state)?;
                format!("USER {}", state.config.user)
            }
            Instruction::StopSignal(signal) => {
                let signal = self.word(signal, state)?;
                state.config.stop_signal.clone_from(&signal);
                format!("STOPSIGNAL {signal}")
            }
            Instruction::Expose(ports) => self.expose(ports, state)?,
            Instruction::Volume(places) => {
                let places = places.iter().map(|place| self.word(place, state));
                let places = places.collect::<Result<Vec<_>, _>>()?;
                let volumes = state.config.volumes.get_or_insert_default();
                volumes.extend(places.iter().map(|place| (place.clone(), Default::default())));
                format!("VOLUME [{}]", places.join(" "))
            }
            other => describe_command(other, state),
        })
    }

    fn expose(&self, ports: &[String], state: &mut State) -> Result<String, BuildError> {
        let get = |name: &str| self.variable(name, &state.config.env);
        let mut all = Vec::new();
        for word in ports {
            let words = dockerfile::expand_words(word, self.escape, &get)
                .map_err(|source| BuildError::Expand { word: word.clone(), source })?;
            all.extend(words);
        }
        all.sort();
        for port in &all {
            let key = docker_port(port)
                .ok_or_else(|| BuildError::Invalid(format!("invalid containerPort: {port}")))?;
            state.config.exposed_ports.insert(key, Default::default());
        }
        Ok(format!("EXPOSE {}", all.join(" ")))
    }

    /// A step that changes only the config.
    async fn note(&self, comment: &str, state: &mut State, steps: &Steps<'_>) -> Result<(), BuildError> {
        let created_by = state.comment(comment, false);
        if steps.reuse(state, &created_by).await {
            return Ok(());
        }
        let shown = self.tell_begin(&created_by).await;
        steps.make(state, created_by, None).await?;
        self.tell_end(&shown).await;
        Ok(())
    }

    /// moby makes a container for every step that changes the config and says so. None is made here, but the lines are the
    /// same: the id is one that nothing has.
    async fn tell_begin(&self, created_by: &str) -> String {
        let seed = format!("{} {} {created_by}", new_name(), std::process::id());
        let id = images::digest_of(seed.as_bytes()).map(|digest| digest.short().to_owned());
        let id = id.unwrap_or_default();
        self.out.text(format!(" ---> Running in {id}\n")).await;
        id
    }

    async fn tell_end(&self, id: &str) {
        if self.options.removes {
            self.out.text(format!(" ---> Removed intermediate container {id}\n")).await;
        }
    }

    fn pairs(&self, pairs: &[(String, String)], state: &State) -> Result<Vec<(String, String)>, BuildError> {
        pairs.iter().map(|(key, value)| Ok((self.word(key, state)?, self.word(value, state)?))).collect()
    }

    /// A word with the variables of a stage: its environment first, then build arguments.
    pub(crate) fn word(&self, word: &str, state: &State) -> Result<String, BuildError> {
        self.expand(word, &|name| self.variable(name, &state.config.env))
    }

    fn variable(&self, name: &str, env: &[String]) -> Option<String> {
        let of_env = env.iter().filter_map(|entry| entry.split_once('=')).find(|(key, _)| *key == name);
        of_env.map(|(_, value)| value.to_owned()).or_else(|| self.arguments.get(name))
    }

    fn expand(&self, word: &str, get: &dyn Fn(&str) -> Option<String>) -> Result<String, BuildError> {
        dockerfile::expand(word, self.escape, get)
            .map_err(|source| BuildError::Expand { word: word.to_owned(), source })
    }
}

mod files;

/// The state at the beginning of a stage.
fn begun(image: Option<Image>, platform: Option<Platform>) -> State {
    let (id, mut config) = match image {
        Some(image) => (Some(image.id), image.config),
        None => (None, ImageConfig::default()),
    };
    if !config.env.iter().any(|entry| entry.starts_with("PATH=")) {
        config.env.push(PATH.to_owned());
    }
    State { image: id, config, author: String::new(), platform, has_cmd: false }
}

fn set_env(env: &mut Vec<String>, key: &str, value: &str) {
    let new = format!("{key}={value}");
    match env.iter_mut().find(|entry| entry.split('=').next() == Some(key)) {
        Some(old) => *old = new,
        None => env.push(new),
    }
}

fn shown(pairs: &[(String, String)]) -> String {
    pairs.iter().map(|(key, value)| format!(" {key}={value}")).collect()
}

/// Instructions without variables.
fn describe_command(instruction: &Instruction, state: &mut State) -> String {
    let line = |line: &CommandLine, state: &State| match line {
        CommandLine::Exec(list) => list.clone(),
        CommandLine::Shell(text) => state.shell().into_iter().chain([text.clone()]).collect(),
    };
    match instruction {
        Instruction::Cmd(command) => {
            let words = line(command, state);
            let text = format!("CMD {}", text::quoted_list(&words));
            state.config.cmd = Some(words.into());
            state.has_cmd = true;
            text
        }
        Instruction::Entrypoint(command) => {
            let words = line(command, state);
            let text = format!("ENTRYPOINT {}", text::quoted_list(&words));
            state.config.entrypoint = Some(words.into());
            if !state.has_cmd {
                // A command of the base image was written for its entry point.
                state.config.cmd = None;
            }
            text
        }
        Instruction::Shell(shell) => {
            state.config.shell = Some(shell.clone().into());
            format!("SHELL [{}]", shell.join(" "))
        }
        Instruction::Healthcheck(check) => {
            state.config.healthcheck = Some(check.clone());
            format!("HEALTHCHECK {}", text::healthcheck(check))
        }
        Instruction::OnBuild(trigger) => {
            state.config.on_build.get_or_insert_default().push(trigger.clone());
            format!("ONBUILD {trigger}")
        }
        // The others are carried out elsewhere.
        _ => String::new(),
    }
}

/// `80`, `80/udp`, `8000-8010/tcp` as Docker's keys. Source: go-connections, `nat.ParsePortSpecs`.
fn docker_port(word: &str) -> Option<String> {
    let (numbers, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    // `host:container` names the container's side last.
    let numbers = numbers.rsplit(':').next().unwrap_or(numbers);
    let protocol = protocol.to_ascii_lowercase();
    let number = |text: &str| text.parse::<u16>().ok().filter(|n| *n > 0);
    let is_valid = match numbers.split_once('-') {
        Some((low, high)) => number(low)? <= number(high)?,
        None => number(numbers).is_some(),
    };
    (is_valid && ["tcp", "udp", "sctp"].contains(&protocol.as_str())).then(|| format!("{numbers}/{protocol}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_name_or_a_number() {
        let text = "FROM a AS one\nFROM b AS two\nFROM c";
        let stages = |target: &str| {
            let mut file = dockerfile::parse(text).unwrap();
            choose_target(&mut file, target).map(|()| file.stages.len())
        };
        assert_eq!((stages("").unwrap(), stages("ONE").unwrap(), stages("1").unwrap()), (3, 1, 2));
        let error = stages("nope").unwrap_err().to_string();
        assert_eq!(error, "failed to reach build target nope in Dockerfile");
    }

    #[test]
    fn ports_become_dockers_keys() {
        for (word, expect) in [
            ("80", Some("80/tcp")),
            ("53/UDP", Some("53/udp")),
            ("1-2", Some("1-2/tcp")),
            ("8080:80", Some("80/tcp")),
            ("0", None),
            ("2-1", None),
            ("80/icmp", None),
        ] {
            assert_eq!(docker_port(word).as_deref(), expect, "{word}");
        }
    }
}
