//! Reading a model within bounds of memory and time, whatever its file says.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use clap::Args;
use dram_runtime::{Budget, Error};

use crate::{ALLOCATOR, end};

/// What reading a model may take where nobody says how much: more than any model that we know of needs
/// beside many times its file, and less than a small file should be able to ask for.
const FIXED_BYTES: u64 = 512 << 20;
const PER_FILE_BYTE: u64 = 32;

/// What it takes to find out that a model does not fit, and to say so.
const LEAST_BYTES: u64 = 1 << 20;

/// How long a model may take until it is open.
#[derive(Clone, Debug, Args)]
pub(crate) struct Patience {
    /// Give up a model that is not read and prepared after this time: `90s`, `10min`
    #[arg(long, value_name = "TIME", default_value = "10min", value_parser = duration)]
    within: Duration,
}

/// The bounds of a model that is being opened; they end when this is dropped.
#[derive(Debug)]
#[must_use = "the bounds end when this is dropped"]
pub(crate) struct Opening {
    /// Dropped with this, which the watchdog hears.
    _done: Sender<()>,
}

impl Patience {
    /// From now on the heap may take `ram`, of which so many bytes are taken by what is mapped, or, where
    /// there is no such limit, 512 MiB and 32 times the `files`; and the process ends with an error when the
    /// time is over. A thread cannot be stopped from outside, a process can.
    ///
    /// # Errors
    /// Where the system refuses another thread.
    pub(crate) fn begin(
        &self,
        files: &[&Path],
        ram: Option<(Budget, u64)>,
    ) -> std::io::Result<Opening> {
        let length = |path: &&Path| std::fs::metadata(path).map_or(0, |file| file.len());
        ALLOCATOR.set_limit(match ram {
            Some((budget, mapped)) => budget.ram_bytes().saturating_sub(mapped).max(LEAST_BYTES),
            None => FIXED_BYTES + PER_FILE_BYTE * files.iter().map(length).sum::<u64>(),
        });
        let (done, wait) = channel();
        let time = self.within;
        std::thread::Builder::new().name("watchdog".to_owned()).stack_size(64 << 10).spawn(
            move || {
                if wait.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
                    end(&Error::Deadline { time });
                }
            },
        )?;
        Ok(Opening { _done: done })
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        ALLOCATOR.set_limit(u64::MAX);
    }
}

/// A time as people write it: `250ms`, `2s`, `1.5 s`, `10min`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; write a number and a unit: 250ms, 2s, 10min");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit.trim() {
        "ms" => 1e-3,
        "s" => 1.0,
        "min" => 60.0,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<f64>().map_err(|_| wrong())? * seconds;
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_people_write_them() {
        for (text, millis) in
            [("250ms", 250), ("2s", 2000), ("1.5 s", 1500), ("0s", 0), ("10min", 600_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "ms", "2", "-1s", "2 h", "1e400s", "9999999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
