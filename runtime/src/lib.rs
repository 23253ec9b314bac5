//! Loads ONNX, optimizes and quantizes it, packs one bundle, and runs it inside a RAM budget.

pub mod allocator;
pub mod budget;
pub mod bundle;
mod decode;
mod engine;
pub mod error;
pub mod evaluate;
pub mod golden;
pub mod graph;
pub mod kernels;
pub mod inspect;
pub mod manifest;
pub mod npy;
mod onnx;
pub mod optimize;
pub mod pack;
pub mod plan;
pub mod prepare;
mod program;
pub mod quantize;
pub mod session;
pub mod tensor;
pub mod text;
pub mod trust;
pub mod verify;

pub use budget::Budget;
pub use decode::{Prediction, Scored};
pub use error::{Error, Result};
pub use graph::Graph;
pub use manifest::{Manifest, Task};
pub use plan::Plan;
pub use program::Work;
pub use quantize::Precision;
pub use session::{Options, Session};
pub use tensor::{DType, Tensor};
pub use trust::TrustPolicy;
