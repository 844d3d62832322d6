//! Work that tells its progress while the client listens.
//!
//! In: a future and the channel its progress comes through. Out: a stream of JSON lines. A failure before the first line
//! is a plain error with its own status; after it, the last line carries it, since the status has long been sent. Dropping
//! the stream drops the work, and so does the daemon's stop: whoever asked is told. Source: moby, `api/server/router/image/image_routes.go` (`output.Flushed()`).

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use docker::ProgressMessage;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::answer::{Answer, JSON, line, stream};
use crate::error::ApiError;

/// Lines that may wait for a slow client. Source: `images::ProgressSender`, which advises 64.
pub(crate) const BACKLOG: usize = 64;
/// Source: moby, `pkg/streamformatter`.
const LINE_END: &[u8] = b"\r\n";

type Work = Pin<Box<dyn Future<Output = Result<Vec<ProgressMessage>, ApiError>> + Send>>;

/// Work under way: its progress, then the lines it ends with.
struct Telling {
    lines: mpsc::Receiver<ProgressMessage>,
    work: Option<Work>,
    last: std::vec::IntoIter<ProgressMessage>,
    first: Option<ProgressMessage>,
}

/// Waits for the first sign of life, then streams. `work` returns the lines that end the stream; it is dropped and fails
/// when `shutdown` is cancelled.
pub(crate) async fn tell(
    shutdown: &CancellationToken,
    mut lines: mpsc::Receiver<ProgressMessage>,
    work: impl Future<Output = Result<Vec<ProgressMessage>, ApiError>> + Send + 'static,
) -> Result<Answer, ApiError> {
    let shutdown = shutdown.clone();
    let mut work: Work = Box::pin(async move {
        let done = shutdown.run_until_cancelled(work).await;
        done.unwrap_or(Err(ApiError::ShuttingDown))
    });
    let mut telling = tokio::select! {
        biased;
        Some(first) = lines.recv() => {
            Telling { lines, work: Some(work), last: Vec::new().into_iter(), first: Some(first) }
        }
        done = &mut work => match lines.try_recv() {
            // Told and done in the same moment.
            Ok(first) => Telling { lines, work: None, last: ending(done).into_iter(), first: Some(first) },
            Err(_) => Telling { lines, work: None, last: done?.into_iter(), first: None },
        },
    };
    if telling.work.is_none() {
        telling.lines.close();
    }
    Ok(stream(JSON, telling))
}

fn ending(done: Result<Vec<ProgressMessage>, ApiError>) -> Vec<ProgressMessage> {
    done.unwrap_or_else(|error| vec![ProgressMessage::error(error.message())])
}

impl Stream for Telling {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let this = &mut *self;
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(line(&first, LINE_END)));
        }
        if let Poll::Ready(Some(told)) = this.lines.poll_recv(cx) {
            return Poll::Ready(Some(line(&told, LINE_END)));
        }
        if let Some(work) = &mut this.work {
            let Poll::Ready(done) = work.as_mut().poll(cx) else { return Poll::Pending };
            this.work = None;
            this.last = ending(done).into_iter();
            // What was told last is still in the channel.
            this.lines.close();
            if let Poll::Ready(Some(told)) = this.lines.poll_recv(cx) {
                return Poll::Ready(Some(line(&told, LINE_END)));
            }
        }
        Poll::Ready(this.last.next().map(|told| line(&told, LINE_END)))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use http_body_util::BodyExt;

    use super::*;

    async fn text(answer: Answer) -> String {
        let Answer::Http(response) = answer else { panic!("a response") };
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_failure_before_the_first_line_keeps_its_status() {
        let (_tell, lines) = mpsc::channel(BACKLOG);
        let result =
            tell(&CancellationToken::new(), lines, async { Err(ApiError::NotFound("gone".into())) }).await;
        assert_eq!(result.err().unwrap().status(), http::StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn a_failure_after_the_first_line_is_the_last_line() {
        let (sender, lines) = mpsc::channel(BACKLOG);
        let answer = tell(&CancellationToken::new(), lines, async move {
            sender.send(ProgressMessage::status("one")).await.unwrap();
            sender.send(ProgressMessage::status("two")).await.unwrap();
            Err(ApiError::NotFound("gone".into()))
        })
        .await
        .unwrap();
        assert_eq!(
            text(answer).await,
            "{\"status\":\"one\"}\r\n{\"status\":\"two\"}\r\n{\"errorDetail\":{\"message\":\"gone\"},\"error\":\"gone\"}\r\n"
        );
    }

    #[tokio::test]
    async fn all_lines_come_in_order_with_the_ending_last() {
        let (sender, lines) = mpsc::channel(2);
        let answer = tell(&CancellationToken::new(), lines, async move {
            for number in 0..10 {
                sender.send(ProgressMessage::status(number.to_string())).await.unwrap();
            }
            Ok(vec![ProgressMessage::status("end")])
        })
        .await
        .unwrap();
        let text = text(answer).await;
        let told: Vec<&str> = text.lines().collect();
        assert_eq!(told.len(), 11);
        assert_eq!(
            (told[0], told[9], told[10]),
            ("{\"status\":\"0\"}", "{\"status\":\"9\"}", "{\"status\":\"end\"}")
        );
    }

    #[tokio::test]
    async fn the_stop_of_the_daemon_ends_the_work_and_says_so() {
        let (stop, (sender, lines)) = (CancellationToken::new(), mpsc::channel(BACKLOG));
        let (alive, mut watch) = mpsc::channel::<()>(1);
        let work = async move {
            let _alive = alive;
            sender.send(ProgressMessage::status("one")).await.unwrap();
            std::future::pending().await
        };
        let answer = tell(&stop, lines, work).await.unwrap();
        stop.cancel();
        let told = text(answer).await;
        assert!(told.starts_with("{\"status\":\"one\"}\r\n"), "{told}");
        assert!(told.contains("\"error\":\"the daemon is shutting down\""), "{told}");
        assert_eq!(watch.recv().await, None, "the work was dropped");
    }

    #[tokio::test]
    async fn leaving_drops_the_work() {
        let (sender, lines) = mpsc::channel(BACKLOG);
        let (alive, mut watch) = mpsc::channel::<()>(1);
        let answer = tell(&CancellationToken::new(), lines, async move {
            let _alive = alive;
            sender.send(ProgressMessage::status("one")).await.unwrap();
            std::future::pending().await
        })
        .await
        .unwrap();
        drop(answer);
        assert_eq!(futures_util::stream::poll_fn(|cx| watch.poll_recv(cx)).next().await, None);
    }
}
