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

mod agreement;
#[cfg(feature = "allocator")]
pub mod allocator;
pub mod budget;
pub mod bundle;
pub mod calibrate;
pub mod compare;
pub mod deadline;
mod decode;
mod engine;
pub mod error;
pub mod evaluate;
pub mod exits;
mod gate;
pub mod golden;
pub mod graph;
pub mod inspect;
pub mod install;
pub mod kernels;
pub mod manifest;
mod map;
pub mod npy;
mod onnx;
mod operators;
pub mod optimize;
pub mod pack;
pub mod plan;
pub mod prepare;
mod program;
pub mod protocol;
pub mod quantize;
pub mod repair;
mod rewrite;
pub mod samples;
pub mod session;
mod shapes;
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
pub use operators::Work;
pub use plan::Plan;
pub use quantize::Precision;
pub use session::{Options, Session, plans};
pub use shapes::Shapes;
pub use tensor::{DType, Tensor};
pub use trust::TrustPolicy;
