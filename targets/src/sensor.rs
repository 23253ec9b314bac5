//! Sensors: a bus turned into samples in physical units.
//!
//! A driver owns its bus, never waits and never allocates. Its constructor touches nothing; `start`
//! checks which device answers and configures it, and may be called again after a power dip;
//! `release` gives the bus back.

pub mod lis3dh;
pub mod mpu6050;
mod registers;
pub mod replay;

use core::fmt;

pub use registers::{OverI2c, OverSpi, Registers};

/// Channels of an accelerometer, in the order of its samples.
pub const ACCELEROMETER: [&str; 3] = ["ax_g", "ay_g", "az_g"];

/// Channels of an accelerometer with a gyroscope, in the order of its samples.
pub const ACCELEROMETER_AND_GYROSCOPE: [&str; 6] =
    ["ax_g", "ay_g", "az_g", "gx_rad_s", "gy_rad_s", "gz_rad_s"];

/// Something that is sampled at a steady rate, `CHANNELS` numbers at a time.
///
/// The caller polls, at the sample rate or faster; a driver never waits for a sample.
pub trait Sensor<const CHANNELS: usize> {
    /// What can go wrong on the way to the sensor. No error is final: a caller may always poll again.
    type Error;

    /// The oldest sample not yet given out, or `None` where nothing new has arrived since.
    ///
    /// # Errors
    /// The sensor did not answer, or not understandably. Samples that pass by meanwhile are counted
    /// in [`Sample::lost`] of the next one as far as the sensor can tell.
    fn sample(&mut self) -> Result<Option<Sample<CHANNELS>>, Self::Error>;

    /// Name and unit of each channel, in the order of [`Sample::values`]: `ax_g`, `gz_rad_s`. A model
    /// that was trained on other channels, or on these in another order, answers nonsense without
    /// any error, so compare before the first prediction.
    fn channels(&self) -> [&'static str; CHANNELS];
}

/// What a sensor measured at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample<const CHANNELS: usize> {
    /// One value a channel, in the unit that the channel's name ends in.
    pub values: [f32; CHANNELS],
    /// Samples known to be missing between the previous one and this: 0 where none is. A sensor
    /// that only knows *that* some are missing says 1.
    pub lost: u32,
}

/// Why a driver over a bus gave no sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error<B> {
    /// The bus failed: no acknowledge, arbitration lost, and the like.
    Bus(B),
    /// Another device answers at this address, or none: an idle bus reads as `0x00` or `0xff`.
    WrongDevice {
        /// What the identity register of the right device holds.
        expected: u8,
        /// What it held.
        found: u8,
    },
}

impl<const CHANNELS: usize> From<[f32; CHANNELS]> for Sample<CHANNELS> {
    /// A sample with nothing lost before it.
    fn from(values: [f32; CHANNELS]) -> Self {
        Self { values, lost: 0 }
    }
}

impl<B> From<B> for Error<B> {
    fn from(bus: B) -> Self {
        Self::Bus(bus)
    }
}

impl<B: fmt::Debug> fmt::Display for Error<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bus(error) => write!(f, "the sensor's bus failed: {error:?}"),
            Self::WrongDevice { expected, found } => write!(
                f,
                "the device identifies itself as {found:#04x}, expected {expected:#04x}; \
                 check the address and the wiring"
            ),
        }
    }
}

impl<B: fmt::Debug> core::error::Error for Error<B> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn errors_say_what_was_expected_and_found() {
        let wrong = Error::<()>::WrongDevice { expected: 0x68, found: 0xff };
        assert_eq!(
            wrong.to_string(),
            "the device identifies itself as 0xff, expected 0x68; check the address and the wiring"
        );
        assert_eq!(Error::Bus("nack").to_string(), "the sensor's bus failed: \"nack\"");
    }
}
