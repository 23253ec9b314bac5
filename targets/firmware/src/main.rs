//! A recording through window, features and decision: on a Cortex-M without an allocator, and on a host,
//! whose lines must be the same.

#![cfg_attr(target_os = "none", no_std, no_main)]

use core::convert::Infallible;
use core::fmt::Write;

use dram_targets::decision::{Decision, Rule, Vote};
use dram_targets::features::features;
use dram_targets::pipeline::{Error, Pipeline, Step};
use dram_targets::sensor::ACCELEROMETER_AND_GYROSCOPE;
use dram_targets::sensor::replay::{Ended, Replay};
use dram_targets::window::{OnGap, Window};

/// A header, then one sample of six channels and a label a line, 50 a second.
const RECORDING: &str = include_str!(env!("RECORDING"));
/// Samples of a window.
const LEN: usize = 128;
/// Samples from one window to the next.
const HOP: usize = 64;

/// One line a window: its samples, the vote and the decision, floats by their bits.
fn play(out: &mut impl Write) {
    let sensor = Replay::new(RECORDING.lines().skip(1).map(sample), ACCELEROMETER_AND_GYROSCOPE);
    let predict = |window: &[[f32; 6]; LEN]| Ok::<_, Infallible>(vote(window));
    let rule = Rule { votes_needed: 3, enter_probability: 0.6, keep_probability: 0.5 };
    let decision = Decision::<5>::new(rule).expect("a rule for five votes");
    let window = Window::<6, LEN, HOP>::new(OnGap::Reset);
    let mut pipeline = Pipeline::new(sensor, window, predict, decision);
    loop {
        match pipeline.step() {
            Ok(Step::Predicted { vote, .. }) => {
                let (end, label) = (pipeline.counts().samples, pipeline.label());
                let bits = vote.probability.to_bits();
                writeln!(out, "{end} votes {} {bits:08x} decides {label:?}", vote.label)
                    .expect("lines can be written");
            }
            Ok(_) => {}
            Err(Error::Sensor(Ended)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let counts = pipeline.counts();
    writeln!(out, "{} samples, {} windows", counts.samples, counts.windows)
        .expect("lines can be written");
}

fn sample(line: &str) -> [f32; 6] {
    let mut values = line.split(',').map(|value| value.parse().expect("a number"));
    core::array::from_fn(|_| values.next().expect("six channels"))
}

/// Label 1, moving, where the accelerometer's deviations of all axes add up to more than 0.4 g.
fn vote(window: &[[f32; 6]; LEN]) -> Vote {
    let axes = &features(window)[..3];
    let deviation: f32 = axes.iter().map(|axis| axis.standard_deviation).sum();
    let moving = deviation * deviation / (deviation * deviation + 0.4 * 0.4);
    Vote::of(&[1.0 - moving, moving]).expect("no sample is a NaN")
}

#[cfg(not(target_os = "none"))]
fn main() {
    let mut lines = String::new();
    play(&mut lines);
    print!("{lines}");
}

#[cfg(target_os = "none")]
mod board {
    use core::panic::PanicInfo;

    use cortex_m_rt::entry;
    use cortex_m_semihosting::debug::{EXIT_FAILURE, EXIT_SUCCESS, exit};
    use cortex_m_semihosting::{heprintln, hio};

    #[entry]
    fn main() -> ! {
        super::play(&mut hio::hstdout().expect("an emulator that takes lines"));
        exit(EXIT_SUCCESS);
        loop {
            cortex_m::asm::wfi();
        }
    }

    #[panic_handler]
    fn panic(panic: &PanicInfo) -> ! {
        heprintln!("{}", panic);
        exit(EXIT_FAILURE);
        loop {
            cortex_m::asm::wfi();
        }
    }
}
