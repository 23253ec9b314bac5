use super::*;
use embedded_hal::i2c::{ErrorKind, NoAcknowledgeSource};
use embedded_hal_mock::eh1::i2c::{Mock, Transaction};
use std::{vec, vec::Vec};

const AT: u8 = 0x68;
const NACK: ErrorKind = ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address);

fn read(register: u8, bytes: &[u8]) -> Transaction {
    Transaction::write_read(AT, vec![register], bytes.to_vec())
}

fn write(register: u8, value: u8) -> Transaction {
    Transaction::write(AT, vec![register, value])
}

fn driver(config: Config, transactions: &[Transaction]) -> Mpu6050<Mock> {
    Mpu6050::new(Mock::new(transactions), Address::Ad0Low, config)
}

fn burst(words: [i16; 7]) -> Vec<u8> {
    words.into_iter().flat_map(i16::to_be_bytes).collect()
}

#[test]
fn starting_checks_the_identity_then_wakes_and_configures() {
    let config = Config {
        acceleration: AccelerationRange::G8,
        rotation: RotationRange::Deg2000,
        low_pass: LowPass::Hz44,
        sample_rate_divider: 9,
    };
    let mut sensor = driver(
        config,
        &[
            read(0x75, &[0x68]),
            write(0x6b, 0x01),
            write(0x6c, 0x00),
            write(0x19, 9),
            write(0x1a, 3),
            write(0x1b, 0b0001_1000),
            write(0x1c, 0b0001_0000),
            write(0x38, 0x01),
        ],
    );
    assert_eq!(sensor.start(), Ok(()));
    sensor.release().done();
    assert_eq!(config.sample_rate_hz(), 100.0);
}

#[test]
fn another_device_is_refused_before_anything_is_written() {
    for found in [0x70, 0x71, 0x00, 0xff] {
        let mut sensor = driver(Config::default(), &[read(0x75, &[found])]);
        assert_eq!(sensor.start(), Err(Error::WrongDevice { expected: 0x68, found }));
        sensor.release().done();
    }
}

#[test]
fn the_other_address_still_holds_the_same_identity() {
    let mut transactions = vec![Transaction::write_read(0x69, vec![0x75], vec![0x68])];
    for (register, value) in
        [(0x6b, 1), (0x6c, 0), (0x19, 19), (0x1a, 4), (0x1b, 8), (0x1c, 8), (0x38, 1)]
    {
        transactions.push(Transaction::write(0x69, vec![register, value]));
    }
    let mut sensor = Mpu6050::new(Mock::new(&transactions), Address::Ad0High, Config::default());
    assert_eq!(sensor.start(), Ok(()));
    sensor.release().done();
}

#[test]
fn a_start_that_met_a_silent_bus_may_be_repeated() {
    let mut sensor = driver(
        Config::default(),
        &[
            read(0x75, &[0]).with_error(NACK),
            read(0x75, &[0x68]),
            write(0x6b, 1).with_error(NACK),
            read(0x75, &[0x68]),
            write(0x6b, 1),
            write(0x6c, 0),
            write(0x19, 19),
            write(0x1a, 4),
            write(0x1b, 8),
            write(0x1c, 8),
            write(0x38, 1),
        ],
    );
    assert_eq!(sensor.start(), Err(Error::Bus(NACK)));
    assert_eq!(sensor.start(), Err(Error::Bus(NACK)));
    assert_eq!(sensor.start(), Ok(()));
    sensor.release().done();
}

#[test]
fn samples_are_in_g_and_radians_a_second() {
    // Steps at full scale by the register map's sensitivities (Registers 59 and 67).
    let ranges = [
        (AccelerationRange::G2, RotationRange::Deg250, 16_384, 131.0),
        (AccelerationRange::G4, RotationRange::Deg500, 8_192, 65.5),
        (AccelerationRange::G8, RotationRange::Deg1000, 4_096, 32.8),
        (AccelerationRange::G16, RotationRange::Deg2000, 2_048, 16.4),
    ];
    for (acceleration, rotation, one_g, steps_per_deg_s) in ranges {
        let config = Config { acceleration, rotation, ..Config::default() };
        let words = [one_g, -one_g, one_g / 2, 1_234, 1_640, -1_640, i16::MIN];
        let mut sensor = driver(config, &[read(0x3a, &[0x01]), read(0x3b, &burst(words))]);
        let Sample { values, lost } = sensor.sample().unwrap().unwrap();
        sensor.release().done();
        assert_eq!(values[..3], [1.0, -1.0, 0.5], "{acceleration:?}");
        assert_eq!(lost, 0);
        for (value, word) in values[3..].iter().zip([1_640_i16, -1_640, i16::MIN]) {
            let exact = (f64::from(word) / steps_per_deg_s).to_radians();
            // Four roundings to f32 of half a unit in the last place each.
            let tolerance = exact.abs() * 4.0 * f64::from(f32::EPSILON / 2.0);
            let error = (f64::from(*value) - exact).abs();
            assert!(error <= tolerance, "{rotation:?}, {word}: {value} is not {exact}");
        }
    }
}

#[test]
fn no_data_ready_is_no_sample_and_no_burst() {
    let mut sensor = driver(Config::default(), &[read(0x3a, &[0x00]), read(0x3a, &[0xfe])]);
    assert_eq!(sensor.sample(), Ok(None));
    assert_eq!(sensor.sample(), Ok(None));
    sensor.release().done();
}

#[test]
fn a_burst_that_fails_after_data_ready_is_one_lost_sample() {
    let good = read(0x3b, &burst([0; 7]));
    let mut sensor = driver(
        Config::default(),
        &[
            read(0x3a, &[1]),
            good.clone().with_error(NACK),
            read(0x3a, &[1]),
            good.clone().with_error(ErrorKind::ArbitrationLoss),
            read(0x3a, &[1]).with_error(NACK), // the status is not cleared: nothing is lost by this
            read(0x3a, &[1]),
            good.clone(),
            read(0x3a, &[1]),
            good,
        ],
    );
    assert_eq!(sensor.sample(), Err(Error::Bus(NACK)));
    assert_eq!(sensor.sample(), Err(Error::Bus(ErrorKind::ArbitrationLoss)));
    assert_eq!(sensor.sample(), Err(Error::Bus(NACK)));
    assert_eq!(sensor.sample(), Ok(Some(Sample { values: [0.0; 6], lost: 2 })));
    assert_eq!(sensor.sample(), Ok(Some(Sample { values: [0.0; 6], lost: 0 })));
    sensor.release().done();
}
