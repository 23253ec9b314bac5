//! Boards, sensors and windows: everything between a sensor's wires and a model's input, and between
//! the model's output and an answer that does not flicker.
//!
//! ```text
//! I2C or SPI ──sensor──▶ sample ──window──▶ [LEN, CHANNELS] ──model──▶ vote ──decision──▶ label
//! ```
//!
//! `no_std`, and nothing allocates: capacity is in the type, full and empty are values, drivers own
//! their bus. Nothing waits either; the caller polls [`pipeline::Pipeline::step`]. The crate knows no
//! model: a closure takes the window and gives a vote, so that the same pipeline runs a student on a
//! Linux board, a threshold on a microcontroller, or a recording on a host.
//!
//! ```
//! use core::convert::Infallible;
//! use dram_targets::decision::{Decision, Rule, Vote};
//! use dram_targets::features::features;
//! use dram_targets::pipeline::{Error, Pipeline, Step};
//! use dram_targets::sensor::replay::{Ended, Replay};
//! use dram_targets::sensor::ACCELEROMETER;
//! use dram_targets::window::{OnGap, Window};
//!
//! // Half a second at rest, then a shake; on a board a driver such as `Mpu6050` stands here.
//! let recording = (0..50).map(|i| [0.0, 0.0, if i > 25 && i % 2 == 0 { 2.0 } else { 1.0 }]);
//! let sensor = Replay::new(recording, ACCELEROMETER);
//!
//! // Windows of 10 samples, every 5; gaps of one sample are bridged, longer ones start over.
//! let window = Window::<3, 10, 5>::new(OnGap::Interpolate { at_most: 1 });
//!
//! // In place of a model: label 1, moving, where the vertical axis deviates by 0.1 g.
//! let predict = |window: &[[f32; 3]; 10]| {
//!     let [_, _, z] = features(window);
//!     let label = usize::from(z.standard_deviation > 0.1);
//!     Ok::<_, Infallible>(Vote { label, probability: 1.0 })
//! };
//!
//! // A label must win 2 of the last 3 windows.
//! let rule = Rule { votes_needed: 2, enter_probability: 0.8, keep_probability: 0.6 };
//! let mut pipeline = Pipeline::new(sensor, window, predict, Decision::<3>::new(rule)?);
//!
//! let mut answers = vec![];
//! loop {
//!     match pipeline.step() {
//!         Ok(Step::Predicted { change: Some(change), .. }) => answers.push(change.to),
//!         Ok(_) => {}
//!         Err(Error::Sensor(Ended)) => break,
//!         Err(error) => eprintln!("{error}"), // and go on: no error is final
//!     }
//! }
//! assert_eq!(answers, [Some(0), Some(1)]);
//! assert_eq!(pipeline.counts().windows, 9);
//! # Ok::<_, dram_targets::decision::RuleError>(())
//! ```
//!
//! [`boards`] stands apart: a table of the machines that a student may run on, for the tools on the
//! host that ask whether a model fits.

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod boards;
pub mod decision;
pub mod features;
pub mod pipeline;
pub mod sensor;
pub mod window;

#[cfg(test)]
extern crate std;
