//! The thread that computes: requests in, replies out, one after another.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::Scope;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use dram_runtime::Session;
use dram_runtime::protocol::{self, Line, Reply};

use super::Bounds;

/// A request, and whose it is.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) client: u64,
    pub(super) line: Arc<Line>,
    /// When it came.
    pub(super) came: Instant,
}

impl Request {
    /// The reply once it is late by `deadline`. A line that was too long is told at its turn.
    fn expired(&self, deadline: Duration, now: Instant) -> Option<Reply> {
        match &*self.line {
            Line::Whole(line) if now.duration_since(self.came) > deadline => {
                Some(protocol::expired(line, deadline))
            }
            _ => None,
        }
    }
}

/// A request that the thread has not given back yet.
#[derive(Debug)]
struct Waiting {
    request: Request,
    /// Whether its client has its reply: that it is too late.
    given_up: bool,
}

/// The queue before the computing thread and the one behind it. The thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    requests: SyncSender<Request>,
    replies: Receiver<Reply>,
    /// Readable whenever there are replies.
    bell: UnixStream,
    /// Requests that were put in and whose replies were not taken out, in their order.
    waiting: VecDeque<Waiting>,
    bounds: Bounds,
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
        let waiting = VecDeque::with_capacity(bounds.queue);
        Ok(Worker { requests, replies, bell, waiting, bounds, progress: Instant::now() })
    }

    /// What poll(2) waits for.
    pub(super) fn bell(&self) -> &UnixStream {
        &self.bell
    }

    /// Whether the queue takes another request.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < self.bounds.queue
    }

    /// Since when it has been at its present request; `None` where it has none.
    pub(super) fn busy_since(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.progress)
    }

    /// Puts a request into the queue, which has room.
    pub(super) fn put(&mut self, request: Request) {
        if self.waiting.is_empty() {
            self.progress = Instant::now();
        }
        self.waiting.push_back(Waiting { request: request.clone(), given_up: false });
        // Where the thread has ended, the bell has told, and `take` says so.
        let _ = self.requests.try_send(request);
    }

    /// The next reply and whose it is, if there is one. What comes of a request that was given up is dropped.
    ///
    /// # Errors
    /// Where the thread has ended, which only a fault of ours can make it do.
    pub(super) fn take(&mut self) -> Result<Option<(u64, Reply)>> {
        loop {
            let reply = match self.replies.try_recv() {
                Ok(reply) => reply,
                Err(TryRecvError::Empty) => return Ok(None),
                Err(TryRecvError::Disconnected) => {
                    bail!("the computing thread has ended; please report this")
                }
            };
            self.progress = Instant::now();
            let waiting = self.waiting.pop_front().expect("each reply is to one that waits");
            if !waiting.given_up {
                return Ok(Some((waiting.request.client, reply)));
            }
        }
    }

    /// The next of the requests whose deadline is over, with the reply that says so.
    pub(super) fn give_up(&mut self, now: Instant) -> Option<(u64, Reply)> {
        let deadline = self.bounds.deadline?;
        self.waiting.iter_mut().filter(|waiting| !waiting.given_up).find_map(|waiting| {
            let reply = waiting.request.expired(deadline, now)?;
            waiting.given_up = true;
            Some((waiting.request.client, reply))
        })
    }

    /// The time until the next deadline is over; `None` where none is set or nothing waits.
    pub(super) fn patience(&self, now: Instant) -> Option<Duration> {
        let deadline = self.bounds.deadline?;
        let open = self.waiting.iter().filter(|waiting| !waiting.given_up);
        let ends = open.map(|waiting| waiting.request.came + deadline).min()?;
        Some(ends.saturating_duration_since(now))
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
    outbox: &SyncSender<Reply>,
    mut ringer: UnixStream,
) {
    for request in inbox {
        // What nobody waits for any more is not computed.
        let deadline = bounds.deadline;
        let expired = deadline.and_then(|deadline| request.expired(deadline, Instant::now()));
        let reply = expired.unwrap_or_else(|| match &*request.line {
            Line::TooLong => protocol::too_long(bounds.max_request),
            Line::Whole(line) => protocol::answer(session, line, bounds.top),
        });
        if outbox.send(reply).is_err() {
            return;
        }
        // A bell that is full has rung.
        let _ = ringer.write(&[1]);
    }
}
