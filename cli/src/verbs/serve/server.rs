//! The loop that waits for signals, replies and clients, and moves lines from each to the other.

use std::collections::VecDeque;
use std::fmt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::Scope;
use std::time::{Duration, Instant};

use anyhow::Result;
use dram_runtime::Session;
use dram_runtime::protocol::Reply;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::Bounds;
use super::client::{Client, Connection};
use super::door::Door;
use super::supervisor::Supervisor;
use super::worker::{Request, Worker};
use crate::arguments::Trial;
use crate::output::Output;

/// Bytes that are read from a client at a time.
const CHUNK: usize = 16 * 1024;

/// A running service.
pub(super) struct Server {
    bounds: Bounds,
    /// Shut, that is `None`, when the service ends.
    door: Option<Door>,
    /// Whose turn is next stands first.
    clients: VecDeque<Client>,
    /// Clients there have ever been.
    admitted: u64,
    worker: Worker,
    supervisor: Supervisor,
    /// Readable when the service is asked to end.
    signals: UnixStream,
    /// The trial that the first answer confirms.
    trial: Option<Trial>,
    served: Served,
}

/// What a service has done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Served {
    answers: u64,
    errors: u64,
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests answered, {} refused", self.answers, self.errors)
    }
}

/// What poll(2) found.
struct Ready {
    signal: bool,
    bell: bool,
    door: bool,
    /// For each client, in order: whether there is something to read, whether it can be written.
    clients: Vec<(bool, bool)>,
}

impl Server {
    /// Starts the computing thread in `scope`; answers once it [runs](Server::run).
    ///
    /// # Errors
    /// Where the system refuses a thread, a socket or a signal handler.
    pub(super) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        session: &'scope Session,
        bounds: Bounds,
        door: Door,
        supervisor: Supervisor,
        trial: Option<Trial>,
    ) -> Result<Server> {
        let (signals, handler) = UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT] {
            signal_hook::low_level::pipe::register(signal, handler.try_clone()?)?;
        }
        let worker = Worker::start(scope, session, bounds)?;
        let mut server = Server {
            bounds,
            door: None,
            clients: VecDeque::new(),
            admitted: 0,
            worker,
            supervisor,
            signals,
            trial,
            served: Served::default(),
        };
        match door {
            Door::Standard => server.admit(Connection::Standard),
            door => server.door = Some(door),
        }
        Ok(server)
    }

    /// Serves until a signal or the end of stdin, and until all that was read is answered.
    ///
    /// # Errors
    /// Where the system fails poll(2) or accept(2), or the computing thread has ended.
    pub(super) fn run(&mut self, output: &Output) -> Result<Served> {
        self.supervisor.ready();
        let mut chunk = vec![0; CHUNK.min(self.bounds.max_request + 1)];
        while self.door.is_some() || !self.clients.is_empty() {
            let ready = self.wait()?;
            if ready.bell {
                self.deliver(output)?;
            }
            while let Some((client, late)) = self.worker.give_up(Instant::now()) {
                self.reply(client, &late);
            }
            self.exchange(&ready, &mut chunk);
            if ready.door {
                let door = self.door.as_ref();
                let connection = door.map(Door::admit).transpose()?.flatten();
                connection.into_iter().for_each(|connection| self.admit(connection));
            }
            // What had arrived before the signal was read above.
            if ready.signal {
                self.stop();
            }
            self.queue_up();
            let now = Instant::now();
            self.clients.retain(|client| !client.is_done() && !client.is_dead(now));
        }
        // A stop that was in order is no crash, even where nobody asked anything.
        self.confirm(output);
        Ok(self.served)
    }

    fn admit(&mut self, connection: Connection) {
        self.admitted += 1;
        let client = Client::new(self.admitted, connection, self.bounds.max_request);
        self.clients.push_back(client);
    }

    /// Blocks until there is something to do.
    fn wait(&mut self) -> Result<Ready> {
        let now = Instant::now();
        let ping = self.supervisor.ping(self.worker.busy_since(), now);
        let patience = self.clients.iter().filter_map(|client| client.patience(now));
        let timeout = patience.chain(ping).chain(self.worker.patience(now)).min().map(timespec);
        let mut polled = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(self.worker.bell(), PollFlags::IN),
        ];
        let has_room = self.clients.len() < self.bounds.clients;
        let listener = self.door.as_ref().filter(|_| has_room).and_then(Door::listener);
        polled.extend(listener.map(|listener| PollFd::new(listener, PollFlags::IN)));
        let reads = self.worker.has_room();
        let wants = |client: &Client| (reads && client.wants_to_read(), client.wants_to_write());
        for client in &self.clients {
            // Who is not waited for must not stand in the list: a connection that broke would end every wait.
            let (read, write) = wants(client);
            let (input, output) = (client.connection.input(), client.connection.output());
            polled.extend(read.then(|| PollFd::from_borrowed_fd(input, PollFlags::IN)));
            polled.extend(write.then(|| PollFd::from_borrowed_fd(output, PollFlags::OUT)));
        }
        match poll(&mut polled, timeout.as_ref()) {
            // An interruption found nothing, and is followed by another wait.
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
        let mut found = polled.iter().map(|polled| !polled.revents().is_empty());
        let mut next = |asked: bool| asked && found.next().unwrap_or(false);
        let (signal, bell, door) = (next(true), next(true), next(listener.is_some()));
        let clients = self.clients.iter().map(wants).map(|(read, write)| (next(read), next(write)));
        Ok(Ready { signal, bell, door, clients: clients.collect() })
    }

    /// Hands replies to their clients.
    fn deliver(&mut self, output: &Output) -> Result<()> {
        self.worker.silence();
        while let Some((number, reply)) = self.worker.take()? {
            if reply.answered {
                self.confirm(output);
            }
            self.reply(number, &reply);
        }
        Ok(())
    }

    /// Sends `reply` to the client of that number; who has left gets none.
    fn reply(&mut self, client: u64, reply: &Reply) {
        match reply.answered {
            true => self.served.answers += 1,
            false => self.served.errors += 1,
        }
        let place = self.clients.iter_mut().position(|it| it.number == client);
        if let Some(at) = place
            && self.clients[at].reply(&reply.line).is_err()
        {
            self.clients.remove(at);
        }
    }

    fn confirm(&mut self, output: &Output) {
        if let Some(Err(error)) = self.trial.take().map(Trial::confirm) {
            output.note(&format_args!("dram: the new bundle works but is not confirmed: {error}"));
        }
    }

    /// Reads and writes where that does not block; lets go of clients whose connection broke.
    fn exchange(&mut self, ready: &Ready, chunk: &mut [u8]) {
        let mut ready = ready.clients.iter();
        self.clients.retain_mut(|client| {
            let &(read, write) = ready.next().unwrap_or(&(false, false));
            let wrote = if write { client.write() } else { Ok(()) };
            let read = if read { client.read(chunk) } else { Ok(()) };
            wrote.is_ok() && read.is_ok()
        });
    }

    /// Takes no more clients and reads no more lines.
    fn stop(&mut self) {
        if self.door.take().is_some() || !self.clients.is_empty() {
            self.supervisor.stopping();
        }
        self.clients.iter_mut().for_each(Client::hang_up);
    }

    /// Puts lines into the queue, one a client in turn, until it is full or there are none.
    fn queue_up(&mut self) {
        let mut idle = 0;
        while idle < self.clients.len() && self.worker.has_room() {
            let Some(mut client) = self.clients.pop_front() else { return };
            match client.take_line() {
                Some((line, came)) => {
                    let line = Arc::new(line);
                    self.worker.put(Request { client: client.number, line, came });
                    idle = 0;
                }
                None => idle += 1,
            }
            self.clients.push_back(client);
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    // Rounded up to the next millisecond, so that what is waited for is over when it returns.
    let millis = duration.as_millis() as i64 + 1;
    Timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 }
}
