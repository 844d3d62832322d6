//! Finds the image that a stage begins with or that files are copied from.
//!
//! In: a name, a platform. Out: an image that is here; one that is not is pulled first.
//! Source: moby, `daemon/images/image_builder.go`, `GetImageAndReleasableLayer`.

use docker::Reference;
use images::{Image, LookupError, Platform, PullOptions, Store};

use crate::error::BuildError;
use crate::options::BuildOptions;
use crate::output::Output;

/// The image `name` means; with `--pull` as its registry has it now.
pub(crate) async fn find(
    images: &Store,
    name: &str,
    platform: Option<&Platform>,
    options: &BuildOptions,
    out: &Output,
) -> Result<Image, BuildError> {
    if !options.pull {
        match images.resolve(name) {
            Ok(id) => {
                let image = images.image(&id).await?;
                if platform.is_none_or(|wanted| wanted.rank(&image.platform).is_some()) {
                    return Ok(image);
                }
            }
            Err(LookupError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let reference = Reference::parse(name).map_err(|error| BuildError::Invalid(error.to_string()))?;
    let pull = PullOptions {
        reference: name.to_owned(),
        platform: platform.cloned(),
        auth: options.auth_of(&reference.domain),
    };
    let pulled = images.pull(pull, out.pulling()).await?;
    Ok(images.image(&pulled.id).await?)
}
