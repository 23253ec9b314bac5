//! `dram serve`: requests as JSON lines, from stdin or over a Unix socket, answered one after another.
//!
//! One thread waits for whatever comes first in poll(2) - signals, answers, clients - and one computes.
//! Everything is bounded beforehand: lines, the queue, clients, what waits to be written. Where a bound
//! is reached nothing is dropped: reading stops until there is room.

mod client;
mod door;
mod server;
mod supervisor;
mod worker;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use dram_runtime::{Budget, Plan};

use crate::Answer;
use crate::arguments::Limits;
use crate::opening::duration;
use crate::output::Output;
use door::Door;
use server::Server;
use supervisor::Supervisor;

/// Answer requests, one JSON object a line, from stdin or over a Unix socket
#[derive(Debug, Args)]
#[command(after_help = "\
A request:  {\"id\": 7, \"text\": \"wake me at six\"}
            {\"id\": 7, \"inputs\": {\"x\": {\"shape\": [1, 2], \"values\": [0.5, 2]}}}
Its reply:  {\"id\":7,\"labels\":[{\"label\":\"alarm\",\"probability\":0.98}]}
            or `embedding`, `outputs` or `error` instead of `labels`
Every line gets one reply, in the order of its client's lines. SIGTERM and SIGINT end the service once all
that was read is answered; so does the end of stdin. With a slot folder, a new bundle is confirmed by its
first answer; where it crashes before, the next start returns to the bundle before. Under systemd it takes
its socket, reports that it is ready, and pings the watchdog as long as it makes progress.")]
pub(crate) struct Serve {
    /// A bundle, a folder that `dram install` keeps, or an ONNX file
    file: PathBuf,

    /// Listen on this Unix socket instead of stdin
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// Requests that wait at most; then no more are read
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u16).range(1..=4096))]
    queue: u16,

    /// Longest request line
    #[arg(long, value_name = "SIZE", default_value = "16KiB")]
    max_request: Budget,

    /// Clients at one time; more of them wait
    // With the soft limit of 1024 open files there is always one to spare.
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u16).range(1..=512))]
    clients: u16,

    /// Answer a request that has no answer by then with an error: `250ms`, `2s`
    #[arg(long, value_name = "TIME", value_parser = duration)]
    deadline: Option<Duration>,

    /// Labels to give for each text, the likeliest first
    #[arg(long, value_name = "K", default_value = "3")]
    top: usize,

    #[command(flatten)]
    limits: Limits,
}

/// What the service is held to.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    queue: usize,
    max_request: usize,
    clients: usize,
    deadline: Option<Duration>,
    top: usize,
}

impl Serve {
    pub(crate) fn call(&self, output: &Output) -> Result<Answer> {
        let bounds = Bounds {
            queue: self.queue.into(),
            max_request: usize::try_from(self.max_request.ram_bytes()).unwrap_or(usize::MAX),
            clients: if self.socket.is_some() { self.clients.into() } else { 1 },
            deadline: self.deadline,
            top: self.top,
        };
        let (session, trial) = self.limits.open_on_trial(&self.file)?;
        let plan = bounds.added_to(session.plan());
        self.limits.options().budget.admit(&[plan])?;

        let door = Door::open(self.socket.as_deref())?;
        let serving = format!("serving on {door}");
        let served = std::thread::scope(|scope| {
            let supervisor = Supervisor::from_environment()?;
            let mut server = Server::start(scope, &session, bounds, door, supervisor, trial)?;
            // From here on a signal ends the service in order.
            output.note(&serving);
            server.run(output)
        })?;
        output.note(&served);
        Ok(Answer::Yes)
    }
}

impl Bounds {
    /// What a session needs by `plan`, and the service beside it.
    fn added_to(self, plan: &Plan) -> Plan {
        let lines = (self.queue + self.clients + 1) * (self.max_request + 1);
        let replies = (self.queue + self.clients * client::IN_FLIGHT) * REPLY_BYTES;
        // A line's numbers become f64s in a growing list, then a tensor, then the session's copy.
        let asked = 32 * self.max_request;
        let serving = lines + replies + asked;
        Plan { scratch_bytes: plan.scratch_bytes + serving as u64, ..*plan }
    }
}

/// Bytes that a reply of ordinary size takes, and its place in the queue.
const REPLY_BYTES: usize = 2048;
