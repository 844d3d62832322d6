//! The context of a build and its Dockerfile: out of a request's body, or from an address.
//!
//! In: an archive, an address. Out: a tree to copy from, and the text of the Dockerfile. Never follows a link out of the
//! context. Source: moby, `builder/remotecontext/detect.go`.

use std::io::Read;
use std::sync::Arc;

use dockerfile::Ignore;
use images::{FileKind, Scratch, Store, TarStream, View};

use crate::error::BuildError;
use crate::options::BuildOptions;

/// Source: moby, `builder.DefaultDockerfileName`.
const DOCKERFILE: &str = "Dockerfile";
const IGNORE: &str = ".dockerignore";
/// Longest Dockerfile or `.dockerignore`. Chosen: far beyond what people or generators write.
const MAX_TEXT: u64 = 4 << 20;

/// Where a context comes from.
pub enum Source {
    /// A tar, plain or compressed.
    Archive(TarStream),
    /// An address of a tar or of a Dockerfile.
    Remote(String),
}

/// Files to copy from.
pub(crate) struct Tree {
    pub(crate) view: Arc<View>,
    /// Holds the files.
    _scratch: Scratch,
}

/// What a build begins with.
pub(crate) struct Context {
    /// `None` if there is only a Dockerfile.
    pub(crate) tree: Option<Tree>,
    /// The Dockerfile's text.
    pub(crate) text: String,
    /// The Dockerfile's name.
    pub(crate) name: String,
}

/// Brings the context here.
pub(crate) async fn open(
    images: &Store,
    source: Source,
    options: &BuildOptions,
) -> Result<Context, BuildError> {
    let name = if options.dockerfile.is_empty() { DOCKERFILE } else { &options.dockerfile };
    let scratch = match source {
        Source::Archive(archive) => images.unpack(archive).await.map_err(BuildError::Context)?,
        Source::Remote(url) => {
            let fetched = images.fetch(checked(&url)?).await?;
            let path = fetched.path();
            if fetched.content_type.starts_with("text/plain") || !is_archive(&path) {
                let text = std::fs::File::open(&path).and_then(limited);
                let text = text.map_err(|source| BuildError::Read { what: url, source })?;
                return context(None, text, name.to_owned());
            }
            images.unpack_file(path).await.map_err(BuildError::Context)?
        }
    };
    let tree = tree(scratch)?;
    let (name, text) = dockerfile(&tree, name)?;
    leave_out(&tree, &name)?;
    context(Some(tree), text, name)
}

fn context(tree: Option<Tree>, text: String, name: String) -> Result<Context, BuildError> {
    match text.is_empty() {
        true => Err(BuildError::Invalid(format!("the Dockerfile ({name}) cannot be empty"))),
        false => Ok(Context { tree, text, name }),
    }
}

/// Source: moby, `builder/remotecontext/urlutil`, for what counts as git.
fn checked(url: &str) -> Result<&str, BuildError> {
    let is_http = url.starts_with("http://") || url.starts_with("https://");
    let (path, _) = url.split_once('#').unwrap_or((url, ""));
    if !is_http || path.ends_with(".git") {
        return Err(BuildError::Invalid(format!(
            "{url} cannot be a context: git is not supported, clone it and build from the folder, or give the address of \
             a tar archive"
        )));
    }
    Ok(url)
}

fn is_archive(path: &std::path::Path) -> bool {
    let first = std::fs::File::open(path).and_then(images::decompressed).map(images::Archive::new);
    first.and_then(|mut archive| archive.next_entry()).is_ok_and(|entry| entry.is_some())
}

fn tree(scratch: Scratch) -> Result<Tree, BuildError> {
    let view = View::open(&[scratch.path().to_owned()]);
    let view = view.map_err(|source| BuildError::Read { what: "build context".to_owned(), source })?;
    Ok(Tree { view: Arc::new(view), _scratch: scratch })
}

/// The Dockerfile, also under its name in lower case if it has the usual one.
fn dockerfile(tree: &Tree, name: &str) -> Result<(String, String), BuildError> {
    let lower = name.to_lowercase();
    let names = if name == DOCKERFILE { vec![name, lower.as_str()] } else { vec![name] };
    for name in names {
        if let Some(text) = text(tree, name)? {
            return Ok((name.to_owned(), text));
        }
    }
    Err(BuildError::Invalid(format!("Cannot locate specified Dockerfile: {name}")))
}

/// A small file of the context; `None` if it is not there or no file.
fn text(tree: &Tree, name: &str) -> Result<Option<String>, BuildError> {
    let failed = |source| BuildError::Read { what: name.to_owned(), source };
    let Ok(located) = tree.view.locate(name.as_bytes(), true) else { return Ok(None) };
    let Some(found) = located.found.filter(|found| found.meta.kind == FileKind::File) else {
        return Ok(None);
    };
    tree.view.file(&found).and_then(limited).map(Some).map_err(failed)
}

fn limited(file: std::fs::File) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    file.take(MAX_TEXT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_TEXT {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "file is too long"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Clients leave out what `.dockerignore` says, but send the Dockerfile and that file in any case: those go here.
/// Source: moby, `builder/remotecontext/detect.go`, `removeDockerfile`.
fn leave_out(tree: &Tree, dockerfile: &str) -> Result<(), BuildError> {
    let Some(rules) = text(tree, IGNORE)? else { return Ok(()) };
    let rules = Ignore::parse(&rules).map_err(|e| BuildError::Invalid(format!("{IGNORE}: {e}")))?;
    for name in [dockerfile, IGNORE] {
        let Ok(located) = tree.view.locate(name.as_bytes(), false) else { continue };
        let Ok(path) = String::from_utf8(located.path) else { continue };
        if located.found.is_some() && rules.leaves_out(&path) {
            // A normal path without links leads to nothing but the context's own file.
            let file = tree._scratch.path().join(&path);
            std::fs::remove_file(&file).map_err(|source| BuildError::Read { what: path, source })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_is_refused_and_addresses_of_archives_are_not() {
        assert!(checked("https://a/b.tar.gz").is_ok());
        for url in ["https://a/b.git", "https://a/b.git#main", "git@a:b", "github.com/a/b", "git://a/b"] {
            let error = checked(url).unwrap_err().to_string();
            assert!(error.contains("git is not supported"), "{error}");
        }
    }
}
