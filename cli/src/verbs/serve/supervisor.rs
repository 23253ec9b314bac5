//! What systemd is told: that the service is ready, that it stops, and, where it asks, that it is alive
//! (sd_notify(3)). Nobody is told where nobody asked.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Whoever supervises this process, if anybody does.
#[derive(Debug)]
pub(super) struct Supervisor {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Watchdog>,
}

#[derive(Debug)]
struct Watchdog {
    /// Time between two signs of life: half of what the supervisor waits for one.
    interval: Duration,
    /// When the next one is due.
    due: Instant,
}

impl Supervisor {
    /// The supervisor that `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` name.
    ///
    /// # Errors
    /// Where the socket's name is none.
    pub(super) fn from_environment() -> Result<Supervisor> {
        let socket = match std::env::var_os("NOTIFY_SOCKET") {
            Some(name) => {
                Some((UnixDatagram::unbound()?, address(&name).context("NOTIFY_SOCKET")?))
            }
            None => None,
        };
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&wait| wait > 0 && for_us).map(|wait| {
            Watchdog { interval: Duration::from_micros(wait) / 2, due: Instant::now() }
        });
        Ok(Supervisor { watchdog: watchdog.filter(|_| socket.is_some()), socket })
    }

    /// Requests are answered from now on.
    pub(super) fn ready(&self) {
        self.tell("READY=1");
    }

    /// No more requests are taken.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Gives a sign of life if one is due and the worker, at its present request since `busy`, makes
    /// progress. Gives the time until the next one, `None` where none is due before the worker moves.
    pub(super) fn ping(&mut self, busy: Option<Instant>, now: Instant) -> Option<Duration> {
        let Watchdog { interval, due } = self.watchdog.as_mut()?;
        let interval = *interval;
        if busy.is_some_and(|since| now.duration_since(since) >= interval) {
            return None;
        }
        if now >= *due {
            *due = now + interval;
            self.tell("WATCHDOG=1");
            return Some(interval);
        }
        Some(due.duration_since(now))
    }

    fn tell(&self, what: &str) {
        if let Some((socket, address)) = &self.socket {
            // A supervisor that does not listen is no reason to stop.
            let _ = socket.send_to_addr(what.as_bytes(), address);
        }
    }
}

/// A socket's file, or behind an `@` its abstract name.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_of_life_stop_when_the_worker_is_stuck() {
        let now = Instant::now();
        let name = format!("dram-supervisor-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let ear = UnixDatagram::bind_addr(&address).unwrap();
        ear.set_nonblocking(true).unwrap();
        let interval = Duration::from_secs(5);
        let mut supervisor = Supervisor {
            socket: Some((
                UnixDatagram::unbound().unwrap(),
                super::address(format!("@{name}").as_ref()).unwrap(),
            )),
            watchdog: Some(Watchdog { interval, due: now }),
        };
        let heard = || {
            let mut told = [0; 32];
            let length = ear.recv(&mut told).ok()?;
            Some(String::from_utf8_lossy(&told[..length]).into_owned())
        };
        let after = |seconds| now + Duration::from_secs(seconds);
        let ping = Some("WATCHDOG=1".to_owned());
        for (busy, seconds, next, tells) in [
            (None, 0, Some(5), &ping),
            (None, 2, Some(3), &None),
            (Some(after(4)), 6, Some(5), &ping),
            (Some(after(4)), 9, None, &None),
            (Some(after(4)), 30, None, &None),
            (Some(after(30)), 31, Some(5), &ping),
        ] {
            let wait = supervisor.ping(busy, after(seconds));
            assert_eq!(wait, next.map(Duration::from_secs), "after {seconds} s");
            assert_eq!(heard(), *tells, "after {seconds} s");
        }
    }
}
