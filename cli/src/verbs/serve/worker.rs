//! The thread that computes: requests in, replies out, one after another.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::Scope;
use std::time::Instant;

use anyhow::{Result, bail};
use dram_runtime::Session;
use dram_runtime::protocol::{self, Line, Reply};

use super::Bounds;

/// A request, and whose it is.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) client: u64,
    pub(super) line: Line,
    /// When it came.
    pub(super) came: Instant,
}

/// The queue before the computing thread and the one behind it. The thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    requests: SyncSender<Request>,
    replies: Receiver<(u64, Reply)>,
    /// Readable whenever there are replies.
    bell: UnixStream,
    /// Requests that were put in and whose replies were not taken out.
    waiting: usize,
    capacity: usize,
    /// When it last had nothing to do, or had just finished something.
    progress: Instant,
}

impl Worker {
    /// Starts the thread in `scope`.
    ///
    /// # Errors
    /// Where the system has no thread or no pair of sockets left.
    pub(super) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        session: &'scope Session,
        bounds: Bounds,
    ) -> Result<Worker> {
        let (requests, inbox) = sync_channel(bounds.queue);
        let (outbox, replies) = sync_channel(bounds.queue);
        let (bell, ringer) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ringer.set_nonblocking(true)?;
        let work = move || work(session, bounds, &inbox, &outbox, ringer);
        std::thread::Builder::new().name("worker".to_owned()).spawn_scoped(scope, work)?;
        let (waiting, capacity) = (0, bounds.queue);
        Ok(Worker { requests, replies, bell, waiting, capacity, progress: Instant::now() })
    }

    /// What poll(2) waits for.
    pub(super) fn bell(&self) -> &UnixStream {
        &self.bell
    }

    /// Whether the queue takes another request.
    pub(super) fn has_room(&self) -> bool {
        self.waiting < self.capacity
    }

    /// Since when it has been at its present request; `None` where it has none.
    pub(super) fn busy_since(&self) -> Option<Instant> {
        (self.waiting > 0).then_some(self.progress)
    }

    /// Puts a request into the queue, which has room.
    pub(super) fn put(&mut self, request: Request) {
        if self.waiting == 0 {
            self.progress = Instant::now();
        }
        self.waiting += 1;
        // Where the thread has ended, the bell has told, and `take` says so.
        let _ = self.requests.try_send(request);
    }

    /// The next reply and whose it is, if there is one.
    ///
    /// # Errors
    /// Where the thread has ended, which only a fault of ours can make it do.
    pub(super) fn take(&mut self) -> Result<Option<(u64, Reply)>> {
        match self.replies.try_recv() {
            Ok(reply) => {
                self.waiting -= 1;
                self.progress = Instant::now();
                Ok(Some(reply))
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => {
                bail!("the computing thread has ended; please report this")
            }
        }
    }

    /// Silences the bell, before all replies are taken.
    pub(super) fn silence(&self) {
        // Replies that ring after this are found at once or ring again.
        while (&self.bell).read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
    }
}

fn work(
    session: &Session,
    bounds: Bounds,
    inbox: &Receiver<Request>,
    outbox: &SyncSender<(u64, Reply)>,
    mut ringer: UnixStream,
) {
    for Request { client, line, came } in inbox {
        let reply = match (line, bounds.deadline) {
            (Line::TooLong, _) => protocol::too_long(bounds.max_request),
            (Line::Whole(line), Some(deadline)) if came.elapsed() > deadline => {
                protocol::expired(&line, deadline)
            }
            (Line::Whole(line), _) => protocol::answer(session, &line, bounds.top),
        };
        if outbox.send((client, reply)).is_err() {
            return;
        }
        // A bell that is full has rung.
        let _ = ringer.write(&[1]);
    }
}
