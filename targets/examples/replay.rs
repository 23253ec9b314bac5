//! Plays a recording through the pipeline and prints each decision:
//! `cargo run -p dram-targets --example replay -- RECORDING.csv`
//!
//! The recording has a header line with the channels (`ax_g,ay_g,az_g,gx_rad_s,gy_rad_s,gz_rad_s`),
//! then one sample a line, 50 a second; further columns are passed over. In place of a model stands
//! a threshold on the motion of the accelerometer.

use dram_targets::decision::{Decision, Rule, Vote};
use dram_targets::features::features;
use dram_targets::pipeline::{Error, Pipeline, Step};
use dram_targets::sensor::ACCELEROMETER_AND_GYROSCOPE as CHANNELS;
use dram_targets::sensor::replay::{Ended, Replay};
use dram_targets::window::{OnGap, Window};
use std::convert::Infallible;
use std::{env, fs, process::ExitCode};

const RATE_HZ: f32 = 50.0;
const LABELS: [&str; 2] = ["resting", "moving"];

fn main() -> ExitCode {
    let Some(path) = env::args().nth(1) else {
        eprintln!("usage: replay RECORDING.csv");
        return ExitCode::from(2);
    };
    let text = fs::read_to_string(&path).map_err(|error| error.to_string());
    match text.and_then(|text| samples(&text)) {
        Ok(samples) => replay(samples),
        Err(error) => {
            eprintln!("{path}: {error}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn replay(samples: Vec<[f32; 6]>) {
    let window = Window::<6, 128, 64>::new(OnGap::Interpolate { at_most: 5 });
    let rule = Rule { votes_needed: 2, enter_probability: 0.6, keep_probability: 0.5 };
    let decision = Decision::<3>::new(rule).expect("two of three is a majority");
    let mut pipeline = Pipeline::new(Replay::new(samples, CHANNELS), window, predict, decision);
    loop {
        match pipeline.step() {
            Ok(Step::Predicted { change: Some(change), .. }) => {
                let seconds = pipeline.counts().samples as f32 / RATE_HZ;
                println!(
                    "{seconds:7.2} s  {}",
                    change.to.map_or("undecided", |label| LABELS[label])
                );
            }
            Ok(Step::Idle | Step::Sampled | Step::Predicted { change: None, .. }) => {}
            Err(Error::Sensor(Ended)) => break,
            Err(error) => eprintln!("{error}"),
        }
    }
    let counts = pipeline.counts();
    println!("{} samples, {} windows, {} lost", counts.samples, counts.windows, counts.lost);
}

/// Half sure at a deviation of 0.4 g, summed over the axes.
fn predict(window: &[[f32; 6]; 128]) -> Result<Vote, Infallible> {
    let deviation: f32 = features(window)[..3].iter().map(|axis| axis.standard_deviation).sum();
    let moving = deviation * deviation / (deviation * deviation + 0.4 * 0.4);
    let label = usize::from(moving > 0.5);
    Ok(Vote { label, probability: if label == 1 { moving } else { 1.0 - moving } })
}

/// The samples of a recording whose first columns are the channels.
fn samples(text: &str) -> Result<Vec<[f32; 6]>, String> {
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    if !header.split(',').take(6).eq(CHANNELS) {
        return Err(format!("the header is `{header}`, expected `{}` first", CHANNELS.join(",")));
    }
    lines
        .enumerate()
        .map(|(index, line)| {
            let values: Result<Vec<f32>, _> = line.split(',').take(6).map(str::parse).collect();
            let values = values.map_err(|error| format!("line {}: {error}", index + 2))?;
            <[f32; 6]>::try_from(values).map_err(|found| {
                format!("line {}: {} columns, expected 6 or more", index + 2, found.len())
            })
        })
        .collect()
}
