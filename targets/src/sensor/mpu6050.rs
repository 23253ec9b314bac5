//! InvenSense MPU-6050 over I2C: three axes of acceleration in g and of angular rate in rad/s.
//!
//! Register numbers and meanings are those of *MPU-6000 and MPU-6050 Register Map and Descriptions*,
//! RM-MPU-6000A-00, revision 4.2; `Register n` below is its decimal number. Registers that are not
//! named here are left at their reset values.
//!
//! ```
//! use dram_targets::sensor::{mpu6050::{Address, Config, Mpu6050}, Error, Sensor};
//! use embedded_hal::i2c::I2c;
//!
//! fn first_sample<B: I2c>(i2c: B) -> Result<[f32; 6], Error<B::Error>> {
//!     let mut sensor = Mpu6050::new(i2c, Address::Ad0Low, Config::default());
//!     sensor.start()?;
//!     loop {
//!         if let Some(sample) = sensor.sample()? {
//!             return Ok(sample.values);
//!         }
//!     }
//! }
//! ```

use super::{ACCELEROMETER_AND_GYROSCOPE, Error, OverI2c, Registers, Sample, Sensor};
use core::f32::consts::PI;
use embedded_hal::i2c::I2c;

const SMPLRT_DIV: u8 = 0x19; // Register 25
const CONFIG: u8 = 0x1a; // Register 26
const GYRO_CONFIG: u8 = 0x1b; // Register 27
const ACCEL_CONFIG: u8 = 0x1c; // Register 28
const INT_ENABLE: u8 = 0x38; // Register 56
const INT_STATUS: u8 = 0x3a; // Register 58
const ACCEL_XOUT_H: u8 = 0x3b; // Register 59, the first of 14 data bytes
const PWR_MGMT_1: u8 = 0x6b; // Register 107
const PWR_MGMT_2: u8 = 0x6c; // Register 108
const WHO_AM_I: u8 = 0x75; // Register 117

/// What [`WHO_AM_I`] holds, at either address.
const IDENTITY: u8 = 0x68;
/// In [`INT_ENABLE`] and [`INT_STATUS`]: all sensor registers have been written.
const DATA_RDY: u8 = 1 << 0;
/// In [`PWR_MGMT_1`]: awake, clocked by the X gyroscope, which Register 107 recommends for stability.
const AWAKE_ON_GYRO_CLOCK: u8 = 1;

/// The driver. Poll [`sample`](Sensor::sample) at the sample rate or faster: this device holds one
/// sample and does not tell that one was overwritten, so [`Sample::lost`] counts only what fell to a
/// bus error. A caller with a clock knows better and says so (`Pipeline::note_lost`).
#[derive(Debug)]
pub struct Mpu6050<I2C> {
    bus: OverI2c<I2C>,
    config: Config,
    lost: u32,
}

/// The I2C address, chosen by the level of the AD0 pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Address {
    /// AD0 low: `0x68`.
    Ad0Low = 0x68,
    /// AD0 high: `0x69`.
    Ad0High = 0x69,
}

/// How the device measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Full scale of the accelerometer.
    pub acceleration: AccelerationRange,
    /// Full scale of the gyroscope.
    pub rotation: RotationRange,
    /// The low-pass filter ahead of sampling; choose at most half the sample rate.
    pub low_pass: LowPass,
    /// The sample rate is 1,000 Hz divided by one more than this (Register 25, filter on).
    pub sample_rate_divider: u8,
}

/// Full scale of the accelerometer (Register 28, `AFS_SEL`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum AccelerationRange {
    /// ±2 g, 16,384 steps a g.
    G2 = 0,
    /// ±4 g, 8,192 steps a g.
    G4 = 1,
    /// ±8 g, 4,096 steps a g.
    G8 = 2,
    /// ±16 g, 2,048 steps a g.
    G16 = 3,
}

/// Full scale of the gyroscope (Register 27, `FS_SEL`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RotationRange {
    /// ±250 °/s, 131 steps a °/s.
    Deg250 = 0,
    /// ±500 °/s, 65.5 steps a °/s.
    Deg500 = 1,
    /// ±1,000 °/s, 32.8 steps a °/s.
    Deg1000 = 2,
    /// ±2,000 °/s, 16.4 steps a °/s.
    Deg2000 = 3,
}

/// Bandwidth of the low-pass filter of the accelerometer; that of the gyroscope differs by a few
/// hertz (Register 26, `DLPF_CFG`). It cannot be off: sampling then runs from another clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LowPass {
    /// 184 Hz, delay 2.0 ms.
    Hz184 = 1,
    /// 94 Hz, delay 3.0 ms.
    Hz94 = 2,
    /// 44 Hz, delay 4.9 ms.
    Hz44 = 3,
    /// 21 Hz, delay 8.5 ms.
    Hz21 = 4,
    /// 10 Hz, delay 13.8 ms.
    Hz10 = 5,
    /// 5 Hz, delay 19.0 ms.
    Hz5 = 6,
}

impl<I2C: I2c> Mpu6050<I2C> {
    /// A driver that has not yet spoken to its device.
    pub fn new(i2c: I2C, address: Address, config: Config) -> Self {
        let bus = OverI2c { i2c, address: address as u8, increment: 0 };
        Self { bus, config, lost: 0 }
    }

    /// Checks the device's identity, wakes it and configures it. The gyroscope settles within 30 ms;
    /// a device that has just been powered answers after 100 ms at the latest.
    ///
    /// # Errors
    /// [`Error::WrongDevice`] where the identity is not `0x68` (relatives such as the MPU-6500 and
    /// MPU-9250 have other registers), and bus errors; after either, try again.
    pub fn start(&mut self) -> Result<(), Error<I2C::Error>> {
        self.bus.identify(WHO_AM_I, IDENTITY)?;
        self.lost = 0;
        for (register, value) in [
            (PWR_MGMT_1, AWAKE_ON_GYRO_CLOCK),
            (PWR_MGMT_2, 0), // no axis in standby
            (SMPLRT_DIV, self.config.sample_rate_divider),
            (CONFIG, self.config.low_pass as u8),
            (GYRO_CONFIG, (self.config.rotation as u8) << 3),
            (ACCEL_CONFIG, (self.config.acceleration as u8) << 3),
            (INT_ENABLE, DATA_RDY),
        ] {
            self.bus.write(register, value)?;
        }
        Ok(())
    }

    /// The bus, for other use. The device keeps measuring.
    pub fn release(self) -> I2C {
        self.bus.i2c
    }
}

impl<I2C: I2c> Sensor<6> for Mpu6050<I2C> {
    type Error = Error<I2C::Error>;

    fn sample(&mut self) -> Result<Option<Sample<6>>, Self::Error> {
        let [status] = self.bus.bytes(INT_STATUS)?;
        if status & DATA_RDY == 0 {
            return Ok(None);
        }
        // Reading the status has cleared it, so a sample that cannot be read now is gone. One burst
        // reads one moment (Registers 59 to 64).
        let bytes: [u8; 14] = self
            .bus
            .bytes(ACCEL_XOUT_H)
            .inspect_err(|_| self.lost = self.lost.saturating_add(1))?;
        let word = |index: usize| i16::from_be_bytes([bytes[2 * index], bytes[2 * index + 1]]);
        let g = |index| f32::from(word(index)) / self.config.acceleration.steps_per_g();
        let rad_s = |index| f32::from(word(index)) * self.config.rotation.rad_s_per_step();
        // Word 3 is the temperature.
        let values = [g(0), g(1), g(2), rad_s(4), rad_s(5), rad_s(6)];
        Ok(Some(Sample { values, lost: core::mem::take(&mut self.lost) }))
    }

    fn channels(&self) -> [&'static str; 6] {
        ACCELEROMETER_AND_GYROSCOPE
    }
}

impl Config {
    /// Samples a second.
    pub fn sample_rate_hz(&self) -> f32 {
        1_000.0 / (f32::from(self.sample_rate_divider) + 1.0)
    }
}

impl Default for Config {
    /// Human motion: ±4 g, ±500 °/s, filtered at 21 Hz, 50 samples a second.
    fn default() -> Self {
        Self {
            acceleration: AccelerationRange::G4,
            rotation: RotationRange::Deg500,
            low_pass: LowPass::Hz21,
            sample_rate_divider: 19,
        }
    }
}

impl AccelerationRange {
    /// Register 59: LSB sensitivity.
    fn steps_per_g(self) -> f32 {
        f32::from(16_384_u16 >> self as u8)
    }
}

impl RotationRange {
    /// Register 67: LSB sensitivity, from degrees to radians.
    fn rad_s_per_step(self) -> f32 {
        let steps_per_deg_s = match self {
            Self::Deg250 => 131.0,
            Self::Deg500 => 65.5,
            Self::Deg1000 => 32.8,
            Self::Deg2000 => 16.4,
        };
        PI / 180.0 / steps_per_deg_s
    }
}

#[cfg(test)]
mod tests;
