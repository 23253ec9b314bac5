//! Loads ONNX, optimizes and quantizes it, packs one bundle, and runs it inside a RAM budget.
//!
//! On a host, [`pack::pack`] turns an ONNX file, a tokenizer and labels into one bundle. On a
//! device, a [`Session`] opens that bundle and predicts:
//! ```
//! use dram_runtime::{Budget, Options, Prediction, Session};
//! use std::path::Path;
//!
//! # let bundle = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/zoo/intents.dram");
//! let options = Options { budget: Budget::bytes(16 << 20), ..Options::default() };
//! let session = Session::open(Path::new(bundle), &options)?;
//! if let Prediction::Labels(labels) = session.predict("wake me at six")? {
//!     assert_eq!(labels[0].label, "alarm");
//! }
//! # Ok::<(), dram_runtime::Error>(())
//! ```
//!
//! The modules follow the data: [`graph`] (read and written as ONNX), [`optimize`], [`quantize`],
//! [`kernels`], [`plan`] and [`budget`], [`bundle`], [`text`], [`session`]. The library prints
//! nothing and reads no environment. What it promises about numbers: a bundle that our kernels run
//! gives the same bits on every CPU; see [`kernels`].
//!
//! The feature `tract`, on by default, is what reads and packs ONNX and runs what our kernels do not cover;
//! without it a session opens bundles that they run from end to end.

// What only the modules of the host use stands beside what a device uses too; the linker leaves it out.
#![cfg_attr(not(feature = "tract"), allow(dead_code))]

#[cfg(feature = "tract")]
mod agreement;
#[cfg(feature = "allocator")]
pub mod allocator;
mod arena;
pub mod budget;
pub mod bundle;
#[cfg(feature = "tract")]
pub mod calibrate;
#[cfg(feature = "tract")]
pub mod compare;
pub mod deadline;
mod decode;
#[cfg(feature = "tract")]
mod engine;
pub mod error;
pub mod evaluate;
pub mod exits;
#[cfg(feature = "tract")]
mod gate;
pub mod golden;
pub mod graph;
pub mod heap;
#[cfg(feature = "tract")]
pub mod inspect;
pub mod install;
pub mod kernels;
pub mod manifest;
mod map;
mod network;
pub mod npy;
mod onnx;
mod operators;
#[cfg(feature = "tract")]
pub mod optimize;
#[cfg(feature = "tract")]
pub mod pack;
#[cfg(not(feature = "tract"))]
mod pb;
pub mod plan;
mod precision;
#[cfg(feature = "tract")]
pub mod prepare;
mod profile;
mod program;
pub mod protocol;
#[cfg(feature = "tract")]
pub mod quantize;
#[cfg(test)]
mod random;
#[cfg(feature = "tract")]
pub mod repair;
#[cfg(feature = "tract")]
mod rewrite;
pub mod samples;
pub mod session;
mod shapes;
#[cfg(feature = "tract")]
mod specialize;
pub mod tensor;
pub mod text;
pub mod trust;
pub mod verify;

pub use budget::Budget;
pub use decode::{Prediction, Scored};
pub use error::{Error, Result};
pub use graph::Graph;
pub use manifest::{Manifest, Task};
pub use operators::{NetworkWork, Work};
pub use plan::Plan;
pub use precision::Precision;
pub use profile::Span;
pub use session::{Options, Session, plans};
pub use shapes::{Planned, Shapes};
pub use tensor::{DType, Tensor};
pub use trust::TrustPolicy;

#[cfg(feature = "tract")]
use tract_onnx::pb;
