//! A server over a pipe, for tests: no daemon, no socket file.
//!
//! In: routes and the bytes a client sends. Out: the bytes the server sends back. Only in tests.

use std::sync::Arc;

use http::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::dispatch::Dispatcher;
use crate::route::Route;
use crate::server::Connection;

/// A client's end of a connection that is being served.
pub(crate) struct Client {
    pub(crate) pipe: DuplexStream,
    pub(crate) stop: CancellationToken,
    pub(crate) served: tokio::task::JoinHandle<()>,
}

/// Serves one connection with these routes.
pub(crate) fn serve(routes: Vec<Route<()>>) -> Client {
    let (pipe, server) = tokio::io::duplex(64 * 1024);
    let dispatcher = Dispatcher::new((), routes, HeaderValue::from_static("Docker/test (linux)"));
    let room = Arc::new(Semaphore::new(1));
    let permit = room.try_acquire_owned().unwrap();
    let stop = CancellationToken::new();
    let connection = Connection { dispatcher, stop: stop.clone(), _permit: permit };
    Client { pipe, stop, served: tokio::spawn(connection.serve(Box::new(server))) }
}

impl Client {
    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, text: &str) {
        self.pipe.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until what came ends with `end`.
    pub(crate) async fn read_until(&mut self, end: &str) -> String {
        let mut read = Vec::new();
        while !read.ends_with(end.as_bytes()) {
            let byte = self.pipe.read_u8().await;
            read.push(
                byte.unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&read))),
            );
        }
        String::from_utf8(read).unwrap()
    }

    /// Reads until the server closes.
    pub(crate) async fn rest(&mut self) -> String {
        let mut read = Vec::new();
        self.pipe.read_to_end(&mut read).await.unwrap();
        String::from_utf8(read).unwrap()
    }

    /// One request on a connection that closes after it: status line and body.
    pub(crate) async fn ask(mut self, method: &str, path: &str) -> (String, String) {
        self.send(&format!("{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")).await;
        let answer = self.rest().await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }
}
