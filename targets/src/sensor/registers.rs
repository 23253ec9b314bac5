//! The registers of a sensor over either of the two buses that sensors have.

use embedded_hal::{
    i2c::I2c,
    spi::{Operation, SpiDevice},
};

use super::Error;

/// The ways to the registers. Outside this crate there is nothing to implement it for.
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

    /// The bytes of `first` and the registers that follow it.
    ///
    /// # Errors
    /// Those of the bus.
    fn bytes<const N: usize>(&mut self, first: u8) -> Result<[u8; N], Self::Error> {
        let mut bytes = [0; N];
        self.read(first, &mut bytes)?;
        Ok(bytes)
    }

    /// Makes sure that `register` holds `expected`.
    ///
    /// # Errors
    /// [`Error::WrongDevice`] where it does not, and bus errors.
    fn identify(&mut self, register: u8, expected: u8) -> Result<(), Error<Self::Error>> {
        match self.bytes(register)? {
            [found] if found == expected => Ok(()),
            [found] => Err(Error::WrongDevice { expected, found }),
        }
    }
}

/// Registers over I2C.
#[derive(Debug)]
pub struct OverI2c<I2C> {
    pub(super) i2c: I2C,
    pub(super) address: u8,
    /// What a device wants to be added to a register's number to read the ones behind it too.
    pub(super) increment: u8,
}

/// Registers over four-wire SPI, mode 0 or 3, as ST's sensors have them (LIS3DH, section 6.2).
#[derive(Debug)]
pub struct OverSpi<SPI> {
    pub(super) spi: SPI,
}

impl<I2C: I2c> Registers for OverI2c<I2C> {
    type Error = I2C::Error;

    fn read(&mut self, first: u8, bytes: &mut [u8]) -> Result<(), Self::Error> {
        let first = if bytes.len() > 1 { first | self.increment } else { first };
        self.i2c.write_read(self.address, &[first], bytes)
    }

    fn write(&mut self, register: u8, value: u8) -> Result<(), Self::Error> {
        self.i2c.write(self.address, &[register, value])
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
