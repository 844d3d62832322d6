//! Makes an image of one layer from the tar of a root file system.
//!
//! In: the tar as it streams in, a name, instructions for the config. Out: an image in the index. A broken stream
//! leaves nothing.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use docker::{ImageConfig, ProgressMessage, Reference};

use crate::changes;
use crate::codec::{Encoding, HEAD};
use crate::disk::Temp;
use crate::errors::{FileError, ImportError, LayerError};
use crate::ids::{Digest, Hasher, ImageId};
use crate::index::{Descriptor, Layer, Record};
use crate::layer::unpack_blob;
use crate::manifest::{Config, RootFs, Step};
use crate::options::{ImportOptions, TarStream};
use crate::platform::Platform;
use crate::progress::ProgressSender;
use crate::register::{Ready, finish};
use crate::shelf::{Pins, Shelf, now};
use crate::spool::{StreamReader, read_in_thread};

const COPY_BUFFER: usize = 128 * 1024;

/// See [`crate::Store::import`].
pub(crate) async fn import(
    shelf: &Arc<Shelf>,
    stream: TarStream,
    options: ImportOptions,
    progress: &ProgressSender,
) -> Result<ImageId, ImportError> {
    let name = options.reference.as_deref().filter(|name| !name.is_empty()).map(parse_name).transpose()?;
    let mut config = ImageConfig::default();
    changes::apply(&mut config, &options.changes)?;
    let disk = Arc::clone(shelf);
    let stored =
        read_in_thread(stream, move |reader| store(&disk, reader)).await.ok_or(ImportError::Stopped)?;
    let (temp, blob) = stored?;
    let mut pins = Pins::new(shelf);
    let made = make_layer(shelf, &mut pins, temp, blob).await;
    let ready = made.map(|layer| {
        let config = describe(&layer, config, &options);
        let bytes = serde_json::to_vec(&config).expect("a config has string keys and plain values");
        let id = ImageId(Digest::of(&bytes));
        pins.add([id.0.clone()]);
        let record = Record::new(&config, vec![layer.diff_id], Vec::new());
        let names = name.iter().map(Reference::canonical).collect();
        Ready { id, record, documents: vec![bytes], names }
    });
    let id = ready.as_ref().map(|ready| ready.id.clone()).ok();
    finish(shelf, pins, ready).await.ok_or(ImportError::Stopped)??;
    let id = id.ok_or(ImportError::Stopped)?;
    progress.send(ProgressMessage::status(id.as_str())).await;
    Ok(id)
}

/// Source: moby, `daemon/images/image_import.go`.
pub(crate) fn parse_name(text: &str) -> Result<Reference, ImportError> {
    let parsed = Reference::parse(text).map_err(|e| ImportError::InvalidReference(e.to_string()))?;
    if parsed.digest.is_some() {
        return Err(ImportError::InvalidReference("cannot import digest reference".to_owned()));
    }
    Ok(parsed.with_default_tag())
}

/// Writes the stream as it is into `tmp/`. Blocks on the stream and the disk.
pub(crate) fn store(shelf: &Shelf, mut reader: StreamReader) -> Result<(Temp, Descriptor), ImportError> {
    let temp = shelf.disk.temp("import");
    let mut file = File::create(temp.path()).map_err(FileError::at("open", temp.path()))?;
    let (mut hasher, mut size, mut head) = (Hasher::default(), 0, Vec::new());
    let mut buffer = vec![0; COPY_BUFFER];
    loop {
        let n = reader.read(&mut buffer).map_err(ImportError::Archive)?;
        if n == 0 {
            break;
        }
        head.extend_from_slice(&buffer[..n.min(HEAD.saturating_sub(head.len()))]);
        hasher.update(&buffer[..n]);
        size += n as u64;
        file.write_all(&buffer[..n]).map_err(FileError::at("write", temp.path()))?;
    }
    let encoding = Encoding::of(&head).map_err(|e| ImportError::Archive(io::Error::other(e)))?;
    let media_type = encoding.layer_media_type().to_owned();
    Ok((temp, Descriptor { media_type, digest: hasher.finish(), size }))
}

/// The only layer; its chain id is its diff id.
async fn make_layer(
    shelf: &Arc<Shelf>,
    pins: &mut Pins,
    temp: Temp,
    blob: Descriptor,
) -> Result<Layer, ImportError> {
    pins.add([blob.digest.clone()]);
    temp.put(&shelf.disk.blob(&blob.digest))?;
    let (folder, layer) = unpack_blob(shelf, blob, None, |_| {}).await?;
    let chain = layer.diff_id.clone();
    pins.add([chain.clone()]);
    let _turn = shelf.turn(format!("layer {chain}"), async |_| {}).await;
    if shelf.layer(&chain).is_none() {
        shelf.add_layer(&chain, folder, layer.clone()).map_err(LayerError::from)?;
    }
    Ok(layer)
}

/// Source: moby, `daemon/images/image_import.go`, for the history and the comment.
fn describe(layer: &Layer, config: ImageConfig, options: &ImportOptions) -> Config {
    let created = now();
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    let comment =
        options.message.clone().filter(|m| !m.is_empty()).unwrap_or_else(|| "Imported from -".to_owned());
    Config {
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        comment: comment.clone(),
        created,
        config: Some(config),
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![layer.diff_id.clone()] },
        history: vec![Step { created, comment, ..Step::default() }],
        ..Config::default()
    }
}
