//! Makes a layer's folder from its blob, on a thread of its own, verified before anybody sees it.
//!
//! In: a blob that is in place, the digest its plain content must have. Out: a layer in the store. A dropped future
//! stops the thread at its next read, and what it made is deleted.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::codec;
use crate::disk::{Hashing, Temp};
use crate::errors::{FileError, LayerError};
use crate::ids::Digest;
use crate::index::{Descriptor, Layer};
use crate::shelf::Shelf;
use crate::unpack::unpack;

/// Bytes between two reports. Chosen: a bar of 50 steps moves on for every layer worth one.
const REPORT_EVERY: u64 = 512 * 1024;

/// Unpacks `blob`; with `expected`, its plain content must have that digest. The caller has pinned the blob.
///
/// `report` is told how many bytes of the blob are read. The result is not yet in the store.
pub(crate) async fn unpack_blob(
    shelf: &Arc<Shelf>,
    blob: Descriptor,
    expected: Option<Digest>,
    report: impl FnMut(u64) + Send + 'static,
) -> Result<(Temp, Layer), LayerError> {
    let permit = Arc::clone(&shelf.unpacks).acquire_owned().await.map_err(|_| LayerError::Stopped)?;
    let is_cancelled = Arc::new(AtomicBool::new(false));
    let _guard = CancelOnDrop(Arc::clone(&is_cancelled));
    let shelf = Arc::clone(shelf);
    let work = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        unpack_now(&shelf, blob, expected, is_cancelled, report)
    });
    work.await.map_err(|_| LayerError::Stopped)?
}

fn unpack_now(
    shelf: &Shelf,
    blob: Descriptor,
    expected: Option<Digest>,
    is_cancelled: Arc<AtomicBool>,
    report: impl FnMut(u64),
) -> Result<(Temp, Layer), LayerError> {
    let path = shelf.disk.blob(&blob.digest);
    let file = File::open(&path).map_err(FileError::at("open", path))?;
    let metered = Metered { inner: file, is_cancelled, read: 0, reported: 0, report };
    let folder = shelf.disk.temp_folder("layer")?;
    let (_, plain) = codec::decode(metered).map_err(LayerError::Archive)?;
    let mut plain = Hashing::new(plain);
    let size = unpack(&mut plain, folder.path())?;
    let (diff_id, _) = plain.finish();
    if let Some(expected) = expected
        && expected != diff_id
    {
        return Err(LayerError::WrongDiffId { expected, found: diff_id });
    }
    Ok((folder, Layer { folder: String::new(), diff_id, size, blob }))
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reports how much was read, and fails once nobody waits for the result any more.
struct Metered<R, F> {
    inner: R,
    is_cancelled: Arc<AtomicBool>,
    read: u64,
    reported: u64,
    report: F,
}

impl<R: Read, F: FnMut(u64)> Read for Metered<R, F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.is_cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::other("cancelled"));
        }
        let n = self.inner.read(buf)?;
        self.read += n as u64;
        if self.read - self.reported >= REPORT_EVERY {
            self.reported = self.read;
            (self.report)(self.read);
        }
        Ok(n)
    }
}
