use super::*;
use embedded_hal::i2c::{ErrorKind, NoAcknowledgeSource};
use embedded_hal::spi;
use embedded_hal_mock::eh1::{i2c, spi as mock_spi};
use std::{vec, vec::Vec};

const AT: u8 = 0x18;
const NACK: ErrorKind = ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address);

fn read(register: u8, bytes: &[u8]) -> i2c::Transaction {
    i2c::Transaction::write_read(AT, vec![register], bytes.to_vec())
}

fn over_i2c(config: Config, transactions: &[i2c::Transaction]) -> Lis3dh<OverI2c<i2c::Mock>> {
    Lis3dh::over_i2c(i2c::Mock::new(transactions), Address::Sa0Low, config)
}

/// One exchange under one chip select: `sent`, then `received`.
fn exchange(sent: &[u8], received: &[u8]) -> Vec<mock_spi::Transaction<u8>> {
    let mut all = vec![mock_spi::Transaction::transaction_start()];
    all.push(mock_spi::Transaction::write_vec(sent.to_vec()));
    if !received.is_empty() {
        all.push(mock_spi::Transaction::read_vec(received.to_vec()));
    }
    all.push(mock_spi::Transaction::transaction_end());
    all
}

/// 12-bit values, left-justified, low byte first.
fn data(steps: [i16; 3]) -> Vec<u8> {
    steps.into_iter().flat_map(|steps| (steps << 4).to_le_bytes()).collect()
}

#[test]
fn starting_over_i2c_checks_the_identity_then_configures() {
    let config = Config { range: Range::G8, rate: Rate::Hz100 };
    let mut sensor = over_i2c(
        config,
        &[
            read(0x0f, &[0x33]),
            i2c::Transaction::write(AT, vec![0x23, 0b1010_1000]),
            i2c::Transaction::write(AT, vec![0x20, 0b0101_0111]),
        ],
    );
    assert_eq!(sensor.start(), Ok(()));
    sensor.release().done();
}

#[test]
fn starting_over_spi_sets_the_read_bit_only_to_read() {
    let transactions = [
        exchange(&[0x8f], &[0x33]),
        exchange(&[0x23, 0b1001_1000], &[]),
        exchange(&[0x20, 0b0100_0111], &[]),
    ]
    .concat();
    let mut sensor = Lis3dh::over_spi(mock_spi::Mock::new(&transactions), Config::default());
    assert_eq!(sensor.start(), Ok(()));
    sensor.release().done();
}

#[test]
fn another_device_is_refused_before_anything_is_written() {
    for found in [0x32, 0x00, 0xff] {
        let mut sensor = over_i2c(Config::default(), &[read(0x0f, &[found])]);
        assert_eq!(sensor.start(), Err(Error::WrongDevice { expected: 0x33, found }));
        sensor.release().done();
        let spi = mock_spi::Mock::new(&exchange(&[0x8f], &[found]));
        let mut sensor = Lis3dh::over_spi(spi, Config::default());
        assert_eq!(sensor.start(), Err(Error::WrongDevice { expected: 0x33, found }));
        sensor.release().done();
    }
}

#[test]
fn samples_are_in_g_on_every_range() {
    // Sensitivity by table 4 of the datasheet, in mg a step.
    for (range, mg) in [(Range::G2, 1.0), (Range::G4, 2.0), (Range::G8, 4.0), (Range::G16, 12.0)] {
        let config = Config { range, rate: Rate::Hz50 };
        let transactions = [read(0x27, &[0x0f]), read(0xa8, &data([1_000, -2_048, 2_047]))];
        let mut sensor = over_i2c(config, &transactions);
        let sample = sensor.sample().unwrap().unwrap();
        sensor.release().done();
        let expected = [mg, -2_048.0 * mg / 1_000.0, 2_047.0 * mg / 1_000.0];
        assert_eq!(sample, Sample { values: expected, lost: 0 }, "{range:?}");
    }
}

#[test]
fn the_unused_low_bits_do_not_count() {
    let bytes = [0x1f, 0x00, 0xff, 0xff, 0x0f, 0x00];
    let mut sensor = over_i2c(
        Config { range: Range::G2, ..Config::default() },
        &[read(0x27, &[8]), read(0xa8, &bytes)],
    );
    assert_eq!(sensor.sample().unwrap().unwrap().values, [0.001, -0.001, 0.0]);
    sensor.release().done();
}

#[test]
fn both_buses_give_the_same_sample() {
    let bytes = data([12, -345, 678]);
    let mut i2c = over_i2c(Config::default(), &[read(0x27, &[8]), read(0xa8, &bytes)]);
    let transactions = [exchange(&[0xa7], &[8]), exchange(&[0xe8], &bytes)].concat();
    let mut spi = Lis3dh::over_spi(mock_spi::Mock::new(&transactions), Config::default());
    assert_eq!(i2c.sample().unwrap(), spi.sample().unwrap());
    i2c.release().done();
    spi.release().done();
}

#[test]
fn an_overrun_is_a_loss_except_before_the_first_sample() {
    let overrun = read(0x27, &[0xff]);
    let zero = read(0xa8, &[0; 6]);
    let mut sensor = over_i2c(
        Config::default(),
        &[
            overrun.clone(),
            zero.clone(),
            overrun.clone(),
            zero.clone(),
            read(0x27, &[0x0f]),
            zero.clone(),
            read(0x27, &[0x07]), // single axes, not yet all
            overrun.clone(),
            zero.clone().with_error(NACK),
            overrun, // it stands until the data have been read
            zero,
        ],
    );
    let sample = |lost| Ok(Some(Sample { values: [0.0; 3], lost }));
    assert_eq!(sensor.sample(), sample(0));
    assert_eq!(sensor.sample(), sample(1));
    assert_eq!(sensor.sample(), sample(0));
    assert_eq!(sensor.sample(), Ok(None));
    assert_eq!(sensor.sample(), Err(Error::Bus(NACK)));
    assert_eq!(sensor.sample(), sample(1));
    sensor.release().done();
}

#[test]
fn errors_of_an_spi_bus_come_through_typed() {
    struct Broken;
    impl spi::ErrorType for Broken {
        type Error = spi::ErrorKind;
    }
    impl SpiDevice for Broken {
        fn transaction(&mut self, _: &mut [spi::Operation<'_, u8>]) -> Result<(), spi::ErrorKind> {
            Err(spi::ErrorKind::ChipSelectFault)
        }
    }
    let mut sensor = Lis3dh::over_spi(Broken, Config::default());
    assert_eq!(sensor.start(), Err(Error::Bus(spi::ErrorKind::ChipSelectFault)));
    assert_eq!(sensor.sample(), Err(Error::Bus(spi::ErrorKind::ChipSelectFault)));
}
