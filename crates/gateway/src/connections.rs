//! Connections: so many at once, none for ever.

use crate::server::Limits;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Bytes the system keeps for a client that does not read them yet; it may take twice as many. Left alone it takes
/// megabytes for each, and so much later is a client that reads nothing noticed.
const UNREAD_BYTES: usize = 256 << 10;

/// Serves connections until `shutdown`, then lets those that are in the middle of an answer finish for a while.
pub async fn serve(listener: TcpListener, router: Router, limits: &Limits, shutdown: impl Future<Output = ()>) {
    let grace = limits.shutdown_grace;
    serve_until(listener, router, limits, async {
        shutdown.await;
        grace
    })
    .await;
}

/// As [`serve`]; what `shutdown` gives is how long those in the middle of an answer may go on.
pub(crate) async fn serve_until(
    listener: TcpListener,
    router: Router,
    limits: &Limits,
    shutdown: impl Future<Output = Duration>,
) {
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let grace = loop {
        let accepted = tokio::select! {
            grace = &mut shutdown => break grace,
            accepted = accept(&listener, &slots) => accepted,
        };
        while connections.try_join_next().is_some() {}
        let (stream, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Too many open files, for one: goes by.
                tracing::warn!("a connection was not accepted: {error}");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(limits.idle_deadline).max_buf_size(HEAD_BYTES_MAX);
        let io = TokioIo::new(Impatient::new(stream, limits.stall_deadline));
        let connection = graceful.watch(builder.serve_connection(io, TowerToHyperService::new(router.clone())));
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a connection broke off: {error}");
            }
            drop(slot);
        });
    };
    drop(listener);
    if timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("answers that were not finished in time are broken off");
    }
    connections.shutdown().await;
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_send_buffer_size(UNREAD_BYTES)?;
    Ok((stream, slot))
}

/// A connection that fails if the other side takes nothing for too long.
struct Impatient<S> {
    stream: S,
    patience: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Impatient { stream, patience, stalled: None }
    }

    /// Passes a write's outcome on, unless it has waited too long.
    fn judge<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(context, outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    #[tokio::test]
    async fn who_reads_slowly_is_waited_for_and_who_reads_nothing_is_let_go() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut ours = Impatient::new(ours, Duration::from_secs(3600));
        for _ in 0..8 {
            ours.write_all(&[7; 16]).await.unwrap();
            assert!(ours.stalled.is_none(), "whoever takes something is not waited for");
            let since = Instant::now();
            let full = poll_fn(|context| Poll::Ready(Pin::new(&mut ours).poll_write(context, &[7; 16]))).await;
            assert!(full.is_pending());
            // However long the waits before took.
            let until = ours.stalled.as_ref().unwrap().deadline();
            assert!(until >= since + ours.patience, "each wait may take as long as the first");
            theirs.read_exact(&mut [0; 16]).await.unwrap();
        }
        ours.patience = Duration::from_millis(50);
        let error = ours.write_all(&[7; 128]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
