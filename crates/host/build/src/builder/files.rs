//! Steps that put files into an image: `COPY`, `ADD`, `WORKDIR`.
//!
//! In: an instruction, the state of a stage. Out: the next image, unless the same files went the same way before.

use std::sync::Arc;

use dockerfile::Copy;
use images::{Scratch, View};

use super::{Builder, SCRATCH};
use crate::base;
use crate::copy::{self, Item, Job, Owner};
use crate::error::BuildError;
use crate::step::{State, Steps};
use crate::text;

/// Permission bits of what was fetched. Source: moby, `downloadSource`.
const FETCHED_MODE: u32 = 0o600;
/// What is fetched from an address without a name. Source: moby, `unnamedFilename`.
const UNNAMED: &str = "__unnamed__";

/// What an instruction copies, with the folders that hold it.
struct Found {
    items: Vec<Item>,
    /// What was fetched, until it is copied.
    fetched: Vec<(Scratch, images::Fetched)>,
}

impl Builder<'_> {
    /// `COPY` and `ADD`.
    pub(super) async fn copy(
        &self,
        name: &'static str,
        copy: &Copy,
        state: &mut State,
        steps: &Steps<'_>,
    ) -> Result<(), BuildError> {
        let failed = |because: String| BuildError::Copy { instruction: name, because };
        let mut sources = Vec::new();
        for source in &copy.sources {
            sources.push(self.word(source, state)?);
        }
        let destination = self.word(&copy.destination, state)?;
        let (chown, chmod) = (self.word(&copy.chown, state)?, self.word(&copy.chmod, state)?);
        let mode = mode(&chmod)?;
        let found = self.find(name, copy, &sources, &destination).await?;
        if found.items.is_empty() {
            return Err(failed("no source files were specified".to_owned()));
        }
        if found.items.len() > 1 && !destination.ends_with('/') {
            return Err(BuildError::Invalid(format!(
                "When using {name} with more than one source file, the destination must be a directory and end with a /"
            )));
        }
        let digest = copy::joint(&found.items)
            .map_err(|source| BuildError::Read { what: "copied files".to_owned(), source })?;
        let mut flags = if chown.is_empty() { String::new() } else { format!("--chown={chown}") };
        if !chmod.is_empty() {
            flags.push_str(&format!("--chmod={chmod}"));
        }
        let created_by = state.comment(&format!("{name} {flags}{digest} in {destination} "), true);
        if steps.reuse(state, &created_by).await {
            return Ok(());
        }
        let below = self.below(state).await?;
        let owner = match (chown.as_str(), copy.from.as_str()) {
            // Files of another image keep whom they belong to. Source: moby, `dispatchCopy`, `preserveOwnership`.
            ("", from) if !from.is_empty() => None,
            ("", _) => Some(Owner { uid: 0, gid: 0 }),
            (chown, _) => Some(copy::resolve(chown, &below).map_err(BuildError::Invalid)?),
        };
        let is_folder = destination.ends_with('/') || destination.ends_with("/.");
        let mut place = text::absolute(&state.config.working_dir, &destination);
        if is_folder && !place.ends_with('/') {
            place.push('/');
        }
        let layer = copy::layer(Job { items: found.items, below, destination: place, owner, mode });
        let made = steps.make(state, created_by, Some(layer)).await;
        drop(found.fetched);
        made.map_err(|error| match error {
            BuildError::Derive(images::DeriveError::Write(because)) => {
                BuildError::Invalid(format!("failed to copy files: {because}"))
            }
            other => other,
        })
    }

    async fn find(
        &self,
        name: &'static str,
        copy: &Copy,
        sources: &[String],
        destination: &str,
    ) -> Result<Found, BuildError> {
        let failed = |because: String| BuildError::Copy { instruction: name, because };
        let is_add = name == "ADD";
        let tree = match copy.from.as_str() {
            "" => self.context.tree.as_ref().map(|tree| Arc::clone(&tree.view)),
            from => Some(Arc::new(self.stage_or_image(from).await?)),
        };
        let mut found = Found { items: Vec::new(), fetched: Vec::new() };
        for source in sources {
            let is_url = source.starts_with("http://") || source.starts_with("https://");
            if is_url && !is_add {
                return Err(failed("source can't be a URL for COPY".to_owned()));
            }
            if is_url {
                self.fetch(source, copy, destination, &mut found).await?;
                continue;
            }
            let is_git =
                [".git", ".git/"].iter().any(|end| source.ends_with(end)) && source.contains(['@', ':']);
            if is_add && (is_git || source.starts_with("git://")) {
                return Err(failed(format!("{source}: git is not supported")));
            }
            let tree = tree.as_ref().ok_or_else(|| failed("missing build context".to_owned()))?;
            let items = copy::find(tree, source, is_add, copy.from.is_empty()).map_err(failed)?;
            found.items.extend(items);
        }
        Ok(found)
    }

    /// What `--from` names: a stage by name or number, else an image.
    async fn stage_or_image(&self, from: &str) -> Result<View, BuildError> {
        let by_name = self.done.iter().find(|done| !done.name.is_empty() && done.name == from.to_lowercase());
        let by_number = || from.parse::<usize>().ok().and_then(|number| self.done.get(number));
        let layers = match by_name.or_else(by_number) {
            Some(done) => match &done.image {
                Some(id) => self.images.image(id).await?.layers,
                None => Vec::new(),
            },
            None if from == SCRATCH => Vec::new(),
            None => {
                let platform = self.options.platform.as_ref();
                base::find(self.images, from, platform, self.options, self.out).await?.layers
            }
        };
        View::open(&layers).map_err(|source| BuildError::Read { what: from.to_owned(), source })
    }

    async fn fetch(
        &self,
        url: &str,
        copy: &Copy,
        destination: &str,
        found: &mut Found,
    ) -> Result<(), BuildError> {
        let failed = |because: String| BuildError::Copy { instruction: "ADD", because };
        let fetched = self.images.fetch(url).await?;
        self.out.text("\n").await;
        let name = match &fetched.name {
            Some(name) => name.clone(),
            None if destination.ends_with('/') => {
                return Err(failed(format!("cannot determine filename for source {url}")));
            }
            None => UNNAMED.to_owned(),
        };
        let read = |source| BuildError::Read { what: url.to_owned(), source };
        if !copy.checksum.is_empty() {
            let digest = std::fs::File::open(fetched.path()).and_then(images::digest_of).map_err(read)?;
            if digest.as_str() != copy.checksum {
                let text = format!("digest mismatch {digest}: {}", copy.checksum);
                return Err(BuildError::Invalid(text));
            }
        }
        // In a folder of its own under its name, so that it is copied like any other file.
        let scratch = self.images.scratch()?;
        std::fs::rename(fetched.path(), scratch.path().join(&name)).map_err(read)?;
        let tree = Arc::new(View::open(&[scratch.path().to_owned()]).map_err(read)?);
        let place = tree.locate(name.as_bytes(), false).map_err(read)?.found;
        let place = place.ok_or_else(|| failed(format!("{url} is gone")))?;
        found.items.push(Item {
            digest: copy::digest(&tree, &place).map_err(read)?,
            tree,
            found: place,
            name: name.into_bytes(),
            unpacks: false,
            mode: Some(FETCHED_MODE),
            mtime: Some(fetched.modified),
        });
        found.fetched.push((scratch, fetched));
        Ok(())
    }

    /// The tree of the image so far.
    async fn below(&self, state: &State) -> Result<View, BuildError> {
        let layers = match &state.image {
            Some(id) => self.images.image(id).await?.layers,
            None => Vec::new(),
        };
        View::open(&layers).map_err(|source| BuildError::Read { what: "image".to_owned(), source })
    }

    /// `WORKDIR`: the folder is there from now on.
    pub(super) async fn working_folder(
        &self,
        state: &mut State,
        steps: &Steps<'_>,
    ) -> Result<(), BuildError> {
        let path = state.config.working_dir.clone();
        let created_by = state.comment(&format!("WORKDIR {path}"), true);
        if steps.reuse(state, &created_by).await {
            return Ok(());
        }
        let below = self.below(state).await?;
        let read = |source| BuildError::Read { what: path.clone(), source };
        let is_there = below.locate(path.as_bytes(), true).map_err(read)?.found.is_some();
        let layer = (!is_there).then(|| copy::folder(below, path.clone()));
        let shown = self.tell_begin(&created_by).await;
        steps.make(state, created_by, layer).await?;
        self.tell_end(&shown).await;
        Ok(())
    }
}

/// Octal digits. Source: buildkit, `dispatchCopy`, "invalid chmod parameter".
fn mode(text: &str) -> Result<Option<u32>, BuildError> {
    if text.is_empty() {
        return Ok(None);
    }
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
    mode.map(Some).ok_or_else(|| {
        let text =
            format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777");
        BuildError::Invalid(text)
    })
}
