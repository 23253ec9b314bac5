//! ST LIS3DH over I2C or SPI: three axes of acceleration in g.
//!
//! Register numbers and meanings are those of the LIS3DH datasheet, DocID17530 revision 2, sections 6
//! (digital interfaces) and 8 (register description). Registers that are not named here are left at
//! their reset values.

use super::{ACCELEROMETER, Error, OverI2c, OverSpi, Registers, Sample, Sensor};
use embedded_hal::{i2c::I2c, spi::SpiDevice};

const WHO_AM_I: u8 = 0x0f;
const CTRL_REG1: u8 = 0x20;
const CTRL_REG4: u8 = 0x23;
const STATUS_REG: u8 = 0x27;
const OUT_X_L: u8 = 0x28; // the first of 6 data bytes

/// What [`WHO_AM_I`] holds.
const IDENTITY: u8 = 0x33;
/// In the number of a register over I2C: read on to the next ones (section 6.1.1).
const INCREMENT: u8 = 1 << 7;
/// In [`CTRL_REG1`]: X, Y and Z enabled.
const XYZ_EN: u8 = 0b111;
/// In [`CTRL_REG4`]: a sample's bytes change together or not at all.
const BDU: u8 = 1 << 7;
/// In [`CTRL_REG4`]: 12 bits rather than 10.
const HR: u8 = 1 << 3;
/// In [`STATUS_REG`]: a new sample of all axes.
const ZYXDA: u8 = 1 << 3;
/// In [`STATUS_REG`]: a sample of all axes was overwritten before it was read.
const ZYXOR: u8 = 1 << 7;

/// The driver, over [`OverI2c`] or [`OverSpi`]. The device holds one sample and tells when it was
/// overwritten: [`Sample::lost`] is then 1, for one or more.
#[derive(Debug)]
pub struct Lis3dh<B> {
    bus: B,
    config: Config,
    /// Whether a sample has been given out since the start; an overrun before that loses nothing.
    running: bool,
}

/// The I2C address, chosen by the level of the SDO/SA0 pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Address {
    /// SA0 low: `0x18`.
    Sa0Low = 0x18,
    /// SA0 high: `0x19`. The pin has a pull-up, so this is also the address where it is left open.
    Sa0High = 0x19,
}

/// How the device measures; always in its 12-bit high-resolution mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Full scale.
    pub range: Range,
    /// Samples a second.
    pub rate: Rate,
}

/// Full scale (`CTRL_REG4`, `FS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Range {
    /// ±2 g, 1 mg a step.
    G2 = 0,
    /// ±4 g, 2 mg a step.
    G4 = 1,
    /// ±8 g, 4 mg a step.
    G8 = 2,
    /// ±16 g, 12 mg a step.
    G16 = 3,
}

/// Samples a second (`CTRL_REG1`, `ODR`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Rate {
    /// 1 Hz.
    Hz1 = 1,
    /// 10 Hz.
    Hz10 = 2,
    /// 25 Hz.
    Hz25 = 3,
    /// 50 Hz.
    Hz50 = 4,
    /// 100 Hz.
    Hz100 = 5,
    /// 200 Hz.
    Hz200 = 6,
    /// 400 Hz.
    Hz400 = 7,
}

impl<I2C: I2c> Lis3dh<OverI2c<I2C>> {
    /// A driver over I2C that has not yet spoken to its device.
    pub fn over_i2c(i2c: I2C, address: Address, config: Config) -> Self {
        let bus = OverI2c { i2c, address: address as u8, increment: INCREMENT };
        Self { bus, config, running: false }
    }

    /// The bus, for other use. The device keeps measuring.
    pub fn release(self) -> I2C {
        self.bus.i2c
    }
}

impl<SPI: SpiDevice> Lis3dh<OverSpi<SPI>> {
    /// A driver over SPI that has not yet spoken to its device.
    pub fn over_spi(spi: SPI, config: Config) -> Self {
        Self { bus: OverSpi { spi }, config, running: false }
    }

    /// The SPI device, for other use. The device keeps measuring.
    pub fn release(self) -> SPI {
        self.bus.spi
    }
}

impl<B: Registers> Lis3dh<B> {
    /// Checks the device's identity and configures it. The first samples, for 7 periods at most, are
    /// still settling; a device that has just been powered answers after 5 ms.
    ///
    /// # Errors
    /// [`Error::WrongDevice`] where the identity is not `0x33`, and bus errors; after either, try
    /// again.
    pub fn start(&mut self) -> Result<(), Error<B::Error>> {
        self.bus.identify(WHO_AM_I, IDENTITY)?;
        self.running = false;
        self.bus.write(CTRL_REG4, BDU | HR | (self.config.range as u8) << 4)?;
        self.bus.write(CTRL_REG1, XYZ_EN | (self.config.rate as u8) << 4)?;
        Ok(())
    }
}

impl<B: Registers> Sensor<3> for Lis3dh<B> {
    type Error = Error<B::Error>;

    fn sample(&mut self) -> Result<Option<Sample<3>>, Self::Error> {
        // Two reads, not one burst: a sample that arrived between the status byte and the data bytes
        // would be read, and so marked as taken, under a status that says nothing is there.
        let [status] = self.bus.bytes(STATUS_REG)?;
        if status & ZYXDA == 0 {
            return Ok(None);
        }
        let bytes: [u8; 6] = self.bus.bytes(OUT_X_L)?;
        let axis = |index: usize| {
            // 12 bits, left-justified (section 8.14 and table 4).
            let steps = i16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]) >> 4;
            f32::from(steps * self.config.range.mg_per_step()) / 1_000.0
        };
        let values = [axis(0), axis(1), axis(2)];
        let lost = u32::from(self.running && status & ZYXOR != 0);
        self.running = true;
        Ok(Some(Sample { values, lost }))
    }

    fn channels(&self) -> [&'static str; 3] {
        ACCELEROMETER
    }
}

impl Range {
    /// Table 4: sensitivity in the high-resolution mode.
    fn mg_per_step(self) -> i16 {
        match self {
            Self::G2 => 1,
            Self::G4 => 2,
            Self::G8 => 4,
            Self::G16 => 12,
        }
    }
}

impl Default for Config {
    /// Human motion: ±4 g, 50 samples a second.
    fn default() -> Self {
        Self { range: Range::G4, rate: Rate::Hz50 }
    }
}

#[cfg(test)]
mod tests;
