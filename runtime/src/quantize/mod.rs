//! An optimized graph to the form in which it is stored and run: weights packed for the kernels,
//! in f32 or in int8.
//!
//! Int8 is *dynamic*: weights are rounded once, per output channel, symmetric in ±127; each row
//! of activations is rounded when it is known, to u8 with its own scale and zero point (ONNX:
//! DynamicQuantizeLinear, applied to a row). Attention, normalization and pooling stay f32.

mod embed;
mod linear;

use crate::error::{Error, Result};
use crate::graph::Graph;

/// In what numbers a model's weights are stored and its linear layers computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32-bit floating point throughout.
    F32,
    /// 8-bit weights per output channel, activations rounded row by row at run time.
    Int8,
}

impl Precision {
    /// The name that flags and manifests use.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Int8 => "int8",
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Precision, String> {
        match text {
            "f32" => Ok(Precision::F32),
            "int8" => Ok(Precision::Int8),
            _ => Err(format!("`{text}` is no precision; choose `f32` or `int8`")),
        }
    }
}

/// Rewrites every `dram.Linear` and `dram.Embed` of `graph` to its stored form in `precision`.
///
/// # Errors
/// [`Error::Graph`] where a weight is not finite or has no elements.
pub fn quantize(graph: &mut Graph, precision: Precision) -> Result<()> {
    for index in 0..graph.nodes.len() {
        let node = graph.nodes[index].clone();
        let (node, initializers) = match (node.op.as_str(), precision) {
            _ if node.is_onnx() => continue,
            ("Linear", Precision::F32) => linear::pack_f32(graph, node)?,
            ("Linear", Precision::Int8) => linear::pack_int8(graph, node)?,
            ("Embed", Precision::Int8) => embed::pack_int8(graph, node)?,
            _ => continue,
        };
        graph.nodes[index] = node;
        graph.initializers.extend(initializers);
    }
    graph.remove_dead();
    Ok(())
}

/// The finite f32 values of the constant `name`.
fn finite(graph: &Graph, name: &str) -> Result<Vec<f32>> {
    let place = || format!("initializer `{name}`");
    let tensor = graph.initializers.get(name);
    let values = tensor.and_then(crate::Tensor::to_f32).ok_or_else(|| {
        let got = tensor.map_or("none".to_owned(), |tensor| tensor.dtype().to_string());
        Error::graph(place(), "an f32 constant", got)
    })?;
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(Error::graph(place(), "finite weights", value.to_string())),
        None => Ok(values),
    }
}
