//! Accepts connections and owns them: one task each, bounded in number, ended on shutdown.
//!
//! In: listeners and a token that says stop. Out: nothing; returns when every connection has ended or the grace is over.
//! Never parses a request by itself.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dispatch::Dispatcher;
use crate::leftover::Leftover;
use crate::listen::{Incoming, Listener};
use crate::takeover::{Slot, Socket};

/// Connections at once; further ones wait in the kernel's backlog. chosen: each may follow a log or an attach of one of
/// a thousand containers, and costs about 10 KiB.
const MOST_CONNECTIONS: usize = 4096;
/// How long a connection may stay silent between requests, or take to send a request's head.
/// chosen: longer than the 90 s that Go's default client keeps its idle connections.
const IDLE: Duration = Duration::from_secs(120);
/// Longest request head. chosen: hyper's smallest plus room for a registry token of 64 KiB.
const LONGEST_HEAD: usize = 128 * 1024;
/// How long requests may go on after the stop; streams are cut then. Source: moby, `cmd/dockerd` waits 15 s in all.
const GRACE: Duration = Duration::from_secs(5);
/// Pause after `accept` failed (out of file descriptors), so that the loop does not spin. chosen: short for people.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown`, then lets what runs end.
pub(crate) async fn run<S>(
    listeners: Vec<Listener>,
    dispatcher: Arc<Dispatcher<S>>,
    shutdown: CancellationToken,
) where
    S: Clone + Send + Sync + 'static,
{
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let accepting = TaskTracker::new();
    for listener in listeners {
        let (dispatcher, connections, room) = (dispatcher.clone(), connections.clone(), room.clone());
        let (shutdown, cut) = (shutdown.clone(), cut.clone());
        accepting.spawn(async move {
            while let Some((socket, permit)) = next(&listener, &room, &shutdown).await {
                let one =
                    Connection { dispatcher: dispatcher.clone(), stop: shutdown.clone(), _permit: permit };
                let cut = cut.clone();
                connections.spawn(async move {
                    tokio::select! {
                        () = cut.cancelled() => {}
                        () = one.shake_hands_and_serve(socket) => {}
                    }
                });
            }
        });
    }
    accepting.close();
    accepting.wait().await;
    connections.close();
    if tokio::time::timeout(GRACE, connections.wait()).await.is_err() {
        cut.cancel();
        connections.wait().await;
    }
}

/// The next connection and the room it takes; `None` on shutdown.
async fn next(
    listener: &Listener,
    room: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(Incoming, OwnedSemaphorePermit)> {
    let permit = tokio::select! {
        () = shutdown.cancelled() => return None,
        permit = room.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
    };
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(socket) => return Some((socket, permit)),
            Err(error) => {
                tracing::warn!(%error, "accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection and what it holds.
pub(crate) struct Connection<S> {
    pub(crate) dispatcher: Arc<Dispatcher<S>>,
    pub(crate) stop: CancellationToken,
    pub(crate) _permit: OwnedSemaphorePermit,
}

impl<S: Clone + Send + Sync + 'static> Connection<S> {
    async fn shake_hands_and_serve(self, incoming: Incoming) {
        match incoming.ready().await {
            Ok(socket) => self.serve(socket).await,
            Err(error) => tracing::debug!(%error, "no TLS connection came to be"),
        }
    }

    /// Speaks HTTP until the client leaves, a handler takes over, or the daemon stops.
    pub(crate) async fn serve(self, socket: Box<dyn Socket>) {
        let (slot, leftover) = (Slot::default(), Leftover::default());
        let service = service_fn(|request| {
            let answer = self.dispatcher.clone().dispatch(request, slot.clone(), leftover.clone());
            Box::pin(async move { Ok::<_, std::convert::Infallible>(answer.await) })
        });
        let mut http = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(LONGEST_HEAD)
            .serve_connection(TokioIo::new(socket), service);
        let draining = leftover.drain(&self.stop);
        tokio::pin!(draining);
        let mut is_stopping = false;
        let takeover = loop {
            tokio::select! {
                biased;
                takeover = slot.filled() => break takeover,
                ended = &mut http => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection ended");
                    }
                    return;
                }
                () = self.stop.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    std::pin::Pin::new(&mut http).graceful_shutdown();
                }
                never = &mut draining => match never {},
            }
        };
        // Nothing of a response was written: the handler gave the connection away instead of answering.
        let parts = http.into_parts();
        tokio::select! {
            () = self.stop.cancelled() => {}
            ended = takeover.run(parts.io.into_inner(), parts.read_buf) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection taken over by a handler ended");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::StreamExt;
    use http::HeaderValue;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use crate::answer::{Answer, ok, stream};
    use crate::call::Call;
    use crate::error::ApiError;
    use crate::route::{Route, serve};
    use crate::takeover::Takeover;
    use crate::testing;

    /// Sends back what it gets, and says so at the end of the client's half.
    async fn echo(mut call: Call<()>) -> Result<Answer, ApiError> {
        call.bytes().await?;
        let upgrade = call.wants_upgrade();
        Ok(Answer::Takeover(Takeover {
            upgrade,
            kind: "application/vnd.docker.raw-stream",
            speak: Box::new(|mut raw| {
                Box::pin(async move {
                    let mut all = Vec::new();
                    raw.read_to_end(&mut all).await.unwrap();
                    raw.write_all(&all).await.unwrap();
                    raw.write_all(b"|end").await.unwrap();
                })
            }),
        }))
    }

    async fn silent(_call: Call<()>) -> Result<Answer, ApiError> {
        Ok(stream(HeaderValue::from_static("text/plain"), futures_util::stream::pending::<Bytes>().boxed()))
    }

    async fn fine(_call: Call<()>) -> Result<Answer, ApiError> {
        Ok(ok())
    }

    fn routes() -> Vec<Route<()>> {
        vec![
            serve!(POST "/echo", 24, echo, "echoes"),
            serve!(GET "/silent", 24, silent, "says nothing"),
            serve!(GET "/fine", 24, fine, "is fine"),
        ]
    }

    #[tokio::test]
    async fn an_upgraded_connection_speaks_raw_and_honours_half_close() {
        let mut client = testing::serve(routes());
        client
            .send("POST /v1.41/echo HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly ")
            .await;
        let head = client.read_until("\r\n\r\n").await;
        assert_eq!(
            head,
            "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        );
        client.send("late").await;
        client.pipe.shutdown().await.unwrap();
        assert_eq!(client.rest().await, "early late|end");
        client.served.await.unwrap();
    }

    #[tokio::test]
    async fn without_an_upgrade_header_the_stream_follows_a_bare_200() {
        let mut client = testing::serve(routes());
        client.send("POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n{}").await;
        let head = client.read_until("\r\n\r\n").await;
        assert_eq!(head, "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n");
        client.send("raw").await;
        client.pipe.shutdown().await.unwrap();
        assert_eq!(client.rest().await, "raw|end");
    }

    #[tokio::test]
    async fn the_head_of_a_stream_goes_out_before_its_first_piece() {
        let mut client = testing::serve(routes());
        client.send("GET /silent HTTP/1.1\r\nHost: d\r\n\r\n").await;
        assert!(client.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 200 OK\r\n"));
        // The client leaves: so does the server, though the stream never ends.
        drop(client.pipe);
        client.served.await.unwrap();
    }

    #[tokio::test]
    async fn connections_are_kept_until_the_daemon_stops() {
        let mut client = testing::serve(routes());
        for _ in 0..2 {
            client.send("GET /fine HTTP/1.1\r\nHost: d\r\n\r\n").await;
            assert!(client.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 200 OK\r\n"));
        }
        client.stop.cancel();
        client.served.await.unwrap();
    }
}
