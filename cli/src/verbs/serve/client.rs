//! One client: lines in, replies out, and nothing of either kept beyond a bound.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use dram_runtime::protocol::{Line, Lines};

/// Requests of one client that wait for their answers at most, so that one who asks much and reads
/// nothing neither fills the queue nor leaves many replies behind.
pub(super) const IN_FLIGHT: usize = 8;

/// How long a client may leave its replies unread.
const PATIENCE: Duration = Duration::from_secs(10);

/// A pipe that poll(2) calls ready takes so many bytes without blocking (PIPE_BUF).
const WITHOUT_BLOCKING: usize = 4096;

/// The two directions of a client.
#[derive(Debug)]
pub(super) enum Connection {
    /// Stdin and stdout, which stay in blocking mode: other processes share them.
    Standard,
    /// A socket in non-blocking mode.
    Socket(UnixStream),
}

impl Connection {
    pub(super) fn input(&self) -> BorrowedFd<'_> {
        match self {
            Connection::Standard => rustix::stdio::stdin(),
            Connection::Socket(stream) => stream.as_fd(),
        }
    }

    pub(super) fn output(&self) -> BorrowedFd<'_> {
        match self {
            Connection::Standard => rustix::stdio::stdout(),
            Connection::Socket(stream) => stream.as_fd(),
        }
    }

    fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Standard => Ok(rustix::io::read(rustix::stdio::stdin(), chunk)?),
            Connection::Socket(stream) => stream.read(chunk),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Standard => {
                let bytes = &bytes[..bytes.len().min(WITHOUT_BLOCKING)];
                Ok(rustix::io::write(rustix::stdio::stdout(), bytes)?)
            }
            Connection::Socket(stream) => stream.write(bytes),
        }
    }
}

/// A connected client.
#[derive(Debug)]
pub(super) struct Client {
    /// Its number; none is given twice.
    pub(super) number: u64,
    pub(super) connection: Connection,
    lines: Lines,
    /// When the last bytes came.
    heard: Instant,
    /// Whether there may be more to read.
    open: bool,
    /// Replies, or a part of one, that are still to be written.
    unsent: Vec<u8>,
    /// Since when nothing could be written though there was something.
    stuck: Option<Instant>,
    /// Requests that were taken and are not answered yet.
    in_flight: usize,
}

impl Client {
    pub(super) fn new(number: u64, connection: Connection, longest: usize) -> Client {
        Client {
            number,
            connection,
            lines: Lines::new(longest),
            heard: Instant::now(),
            open: true,
            unsent: Vec::new(),
            stuck: None,
            in_flight: 0,
        }
    }

    /// Whether it may be read from now.
    pub(super) fn wants_to_read(&self) -> bool {
        self.open && self.lines.has_room() && self.may_ask()
    }

    /// Whether something waits to be written.
    pub(super) fn wants_to_write(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Who does not read replies, or has enough of them to come, asks no more.
    fn may_ask(&self) -> bool {
        self.in_flight < IN_FLIGHT && self.unsent.is_empty()
    }

    /// Whether all that was asked is answered and written, and no more will be asked.
    pub(super) fn is_done(&self) -> bool {
        !self.open && self.lines.is_empty() && self.in_flight == 0 && self.unsent.is_empty()
    }

    /// How long it may still be left waiting before [`Client::is_dead`]; `None` where it is not stuck.
    pub(super) fn patience(&self, now: Instant) -> Option<Duration> {
        self.stuck.map(|since| (since + PATIENCE).saturating_duration_since(now))
    }

    /// Whether it has left its replies unread for too long.
    pub(super) fn is_dead(&self, now: Instant) -> bool {
        self.patience(now) == Some(Duration::ZERO)
    }

    /// Takes what has arrived, as far as there is room.
    ///
    /// # Errors
    /// Where the connection broke.
    pub(super) fn read(&mut self, chunk: &mut [u8]) -> io::Result<()> {
        match self.lines.fill(chunk, |room| self.connection.read(room)) {
            Ok(0) => self.hang_up(),
            Ok(_) => self.heard = Instant::now(),
            Err(error) if is_transient(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Reads no more; what was read will still be answered.
    pub(super) fn hang_up(&mut self) {
        self.open = false;
    }

    /// The next request, and when it came; `None` where there is none, or where it asks too much.
    pub(super) fn take_line(&mut self) -> Option<(Line, Instant)> {
        if !self.may_ask() {
            return None;
        }
        let line = match self.lines.next() {
            None if !self.open => self.lines.last(),
            line => line,
        }?;
        self.in_flight += 1;
        Some((line, self.heard))
    }

    /// Sends a reply to a request that was taken, or as much of it as goes out now.
    ///
    /// # Errors
    /// Where the connection broke.
    pub(super) fn reply(&mut self, line: &[u8]) -> io::Result<()> {
        self.in_flight -= 1;
        self.unsent.extend_from_slice(line);
        // Stdout is written when poll(2) says that it takes something.
        if let Connection::Socket(_) = self.connection { self.write() } else { Ok(()) }
    }

    /// Writes what waits, as far as that goes without blocking.
    ///
    /// # Errors
    /// Where the connection broke.
    pub(super) fn write(&mut self) -> io::Result<()> {
        match self.connection.write(&self.unsent) {
            Ok(count) => {
                self.unsent.drain(..count);
                self.stuck = None;
            }
            Err(error) if is_transient(&error) => {}
            Err(error) => return Err(error),
        }
        // Nobody else waits for a reader of stdout, who may be a person.
        if self.wants_to_write() && matches!(self.connection, Connection::Socket(_)) {
            self.stuck.get_or_insert_with(Instant::now);
        }
        Ok(())
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
