//! A sensor that plays a recording back, sample by sample, as fast as it is polled.
//!
//! It runs the very code of the board on a host: in a test, in a benchmark, or to see what a new
//! model would have decided yesterday.

use super::{Sample, Sensor};
use core::fmt;

/// Plays back what an iterator yields: samples, or plain `[f32; CHANNELS]` with nothing lost.
///
/// ```
/// use dram_targets::sensor::{replay::{Ended, Replay}, Sample, Sensor, ACCELEROMETER};
/// let recording = [[0.0, 0.0, 1.0], [0.1, 0.0, 0.9]];
/// let mut sensor = Replay::new(recording, ACCELEROMETER);
/// assert_eq!(sensor.sample(), Ok(Some(Sample { values: [0.0, 0.0, 1.0], lost: 0 })));
/// assert_eq!(sensor.sample(), Ok(Some(Sample { values: [0.1, 0.0, 0.9], lost: 0 })));
/// assert_eq!(sensor.sample(), Err(Ended));
/// ```
#[derive(Debug, Clone)]
pub struct Replay<I, const CHANNELS: usize> {
    samples: I,
    channels: [&'static str; CHANNELS],
}

/// The recording has no more samples. Unlike other sensor errors this one stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended;

impl<I: Iterator, const CHANNELS: usize> Replay<I, CHANNELS> {
    /// Plays `samples` from the first to the last; `channels` are their names and units.
    pub fn new(
        samples: impl IntoIterator<IntoIter = I>,
        channels: [&'static str; CHANNELS],
    ) -> Self {
        Self { samples: samples.into_iter(), channels }
    }
}

impl<I, const CHANNELS: usize> Sensor<CHANNELS> for Replay<I, CHANNELS>
where
    I: Iterator<Item: Into<Sample<CHANNELS>>>,
{
    type Error = Ended;

    fn sample(&mut self) -> Result<Option<Sample<CHANNELS>>, Ended> {
        self.samples.next().map(|sample| Some(sample.into())).ok_or(Ended)
    }

    fn channels(&self) -> [&'static str; CHANNELS] {
        self.channels
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the recording has ended")
    }
}

impl core::error::Error for Ended {}
