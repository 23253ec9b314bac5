//! The registers of a LIS3DH over either of its two buses.

use embedded_hal::{
    i2c::I2c,
    spi::{Operation, SpiDevice},
};

/// The two ways to the registers. Outside this crate there is nothing to implement it for.
pub trait Registers {
    /// The bus's own error.
    type Error;

    /// Fills `bytes` from `first` and the registers that follow it.
    ///
    /// # Errors
    /// Those of the bus.
    fn read(&mut self, first: u8, bytes: &mut [u8]) -> Result<(), Self::Error>;

    /// Sets one register.
    ///
    /// # Errors
    /// Those of the bus.
    fn write(&mut self, register: u8, value: u8) -> Result<(), Self::Error>;
}

/// The registers over I2C (section 6.1).
#[derive(Debug)]
pub struct OverI2c<I2C> {
    pub(super) i2c: I2C,
    pub(super) address: Address,
}

/// The registers over four-wire SPI, mode 0 or 3, at most 10 MHz (section 6.2).
#[derive(Debug)]
pub struct OverSpi<SPI> {
    pub(super) spi: SPI,
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

impl<I2C: I2c> Registers for OverI2c<I2C> {
    type Error = I2C::Error;

    fn read(&mut self, first: u8, bytes: &mut [u8]) -> Result<(), Self::Error> {
        const INCREMENT: u8 = 1 << 7; // section 6.1.1
        let first = if bytes.len() > 1 { first | INCREMENT } else { first };
        self.i2c.write_read(self.address as u8, &[first], bytes)
    }

    fn write(&mut self, register: u8, value: u8) -> Result<(), Self::Error> {
        self.i2c.write(self.address as u8, &[register, value])
    }
}

impl<SPI: SpiDevice> Registers for OverSpi<SPI> {
    type Error = SPI::Error;

    fn read(&mut self, first: u8, bytes: &mut [u8]) -> Result<(), Self::Error> {
        const READ: u8 = 1 << 7; // section 6.2.1
        const INCREMENT: u8 = 1 << 6;
        let first = if bytes.len() > 1 { first | INCREMENT } else { first };
        self.spi.transaction(&mut [Operation::Write(&[READ | first]), Operation::Read(bytes)])
    }

    fn write(&mut self, register: u8, value: u8) -> Result<(), Self::Error> {
        self.spi.write(&[register, value])
    }
}
