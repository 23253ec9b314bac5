//! Loads ONNX, optimizes and quantizes it, packs one bundle, and runs it inside a RAM budget.

pub mod budget;
pub mod bundle;
mod engine;
pub mod error;
pub mod graph;
pub mod kernels;
pub mod manifest;
mod onnx;
pub mod optimize;
pub mod plan;
mod program;
pub mod quantize;
pub mod tensor;

pub use budget::Budget;
pub use error::{Error, Result};
pub use graph::Graph;
pub use plan::Plan;
pub use tensor::{DType, Tensor};
