//! Lets blocking code read a stream that arrives asynchronously.
//!
//! In: a stream of chunks, a job for a thread of its own. Out: the job's result. A stream that breaks off is an error
//! to the job, never an end; a dropped future breaks the stream off.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use tokio::sync::mpsc;

use crate::options::TarStream;

/// Chunks under way between the stream and the thread. Chosen: enough that neither waits for each single one.
const CHUNKS: usize = 16;

enum Item {
    Data(Bytes),
    /// Without this the stream was broken off.
    End,
    Failed(io::Error),
}

/// The reading side.
pub(crate) struct StreamReader {
    items: mpsc::Receiver<Item>,
    current: Bytes,
    has_ended: bool,
}

impl Read for StreamReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.has_ended {
            match self.items.blocking_recv() {
                Some(Item::Data(data)) => self.current = data,
                Some(Item::End) => self.has_ended = true,
                Some(Item::Failed(e)) => return Err(e),
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected EOF")),
            }
        }
        let n = buf.len().min(self.current.len());
        self.current.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}

/// Runs `job` on a thread for blocking work and feeds it `stream`. `None` if the thread ended without a result.
pub(crate) async fn read_in_thread<T: Send + 'static>(
    mut stream: TarStream,
    job: impl FnOnce(StreamReader) -> T + Send + 'static,
) -> Option<T> {
    let (sender, items) = mpsc::channel(CHUNKS);
    let reader = StreamReader { items, current: Bytes::new(), has_ended: false };
    let work = tokio::task::spawn_blocking(move || job(reader));
    let feed = async move {
        loop {
            let item = match stream.next().await {
                Some(Ok(data)) => Item::Data(data),
                Some(Err(e)) => Item::Failed(e),
                None => Item::End,
            };
            let is_last = !matches!(item, Item::Data(_));
            // A closed channel means that the job has seen enough, or failed: its result says which.
            if sender.send(item).await.is_err() || is_last {
                return;
            }
        }
    };
    let ((), done) = tokio::join!(feed, work);
    done.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    async fn read(chunks: Vec<io::Result<Bytes>>) -> io::Result<Vec<u8>> {
        let job = |mut reader: StreamReader| {
            let mut out = Vec::new();
            reader.read_to_end(&mut out).map(|_| out)
        };
        read_in_thread(Box::pin(stream::iter(chunks)), job).await.unwrap()
    }

    #[tokio::test]
    async fn chunks_arrive_in_order_and_an_error_is_no_end() {
        let many = (0..100u8).map(|n| Ok(Bytes::from(vec![n; 3]))).collect();
        let expect: Vec<u8> = (0..100u8).flat_map(|n| [n; 3]).collect();
        assert_eq!(read(many).await.unwrap(), expect);
        let broken = vec![Ok(Bytes::from_static(b"a")), Err(io::ErrorKind::ConnectionReset.into())];
        assert_eq!(read(broken).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_job_that_stops_reading_does_not_hang_the_stream() {
        let endless = stream::repeat_with(|| Ok(Bytes::from_static(b"x")));
        assert_eq!(read_in_thread(Box::pin(endless), |_| 7).await, Some(7));
    }
}
