//! An optimized graph to the form in which it is stored and run: weights packed for the kernels,
//! in f32 or in int8.
//!
//! Int8 is *dynamic*: weights are rounded once, per output channel, symmetric in ±127; each row
//! of activations is rounded when it is known, to u8 with its own scale and zero point (ONNX:
//! DynamicQuantizeLinear, applied to a row). Attention, normalization and pooling stay f32.

mod embed;
mod linear;

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::graph::{Graph, Node};
use crate::kernels::MOST_INT8_INPUTS;
use crate::tensor::{DType, Tensor};

/// Tables with fewer elements than this are no embeddings, and not worth a rounding.
const LEAST_TABLE: usize = 1024;

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

/// Rewrites every `dram.Linear`, `dram.Embed` and lookup in a table of `graph` to its stored form in
/// `precision`; those that write a value of `stays_f32` to that of f32.
///
/// # Errors
/// [`Error::Graph`] where a weight is not finite; [`Error::Unsupported`] where int8 is asked for and
/// nothing in the graph has a form in int8.
pub fn quantize(
    graph: &mut Graph,
    precision: Precision,
    stays_f32: &BTreeSet<String>,
) -> Result<()> {
    let mut int8_nodes = 0;
    for index in 0..graph.nodes.len() {
        let node = graph.nodes[index].clone();
        let int8 = precision == Precision::Int8 && !stays_f32.contains(node.output());
        let (node, initializers) = match int8_form(graph, &node).filter(|_| int8) {
            Some(pack) => {
                int8_nodes += 1;
                pack(graph, node)?
            }
            None if node.is_fused("Linear") => linear::pack_f32(graph, node)?,
            None => continue,
        };
        graph.nodes[index] = node;
        graph.initializers.extend(initializers);
    }
    graph.remove_dead();
    if precision == Precision::Int8 && int8_nodes == 0 {
        return Err(Error::Unsupported {
            model: graph.name.clone(),
            findings: vec![
                "int8: no matrix product or lookup in it has constant weights; pack it with \
                 `--precision f32`"
                    .to_owned(),
            ],
        });
    }
    Ok(())
}

/// The values that the nodes of an optimized graph write which have a form in int8.
pub(crate) fn quantizable(graph: &Graph) -> Vec<String> {
    let nodes = graph.nodes.iter().filter(|node| int8_form(graph, node).is_some());
    nodes.map(|node| node.output().to_owned()).collect()
}

type Packed = (Node, Vec<(String, Tensor)>);

/// How `node` is rewritten to int8, where it has such a form.
fn int8_form(graph: &Graph, node: &Node) -> Option<fn(&Graph, Node) -> Result<Packed>> {
    let table = |index: usize| graph.initializers.get(node.input(index)?);
    if node.is_fused("Linear") {
        // More inputs could overflow 32-bit sums.
        let fits = table(1)?.shape().first().is_some_and(|&k| k <= MOST_INT8_INPUTS);
        return fits.then_some(linear::pack_int8);
    }
    if node.is_fused("Embed") {
        return Some(embed::pack_int8);
    }
    let rows = table(0).filter(|_| node.is("Gather") && node.int("axis", 0) == 0)?;
    let lookup = rows.dtype() == DType::F32 && rows.shape().len() == 2;
    (lookup && rows.len() >= LEAST_TABLE).then_some(embed::pack_gather)
}

/// The finite f32 values of the constant `name`.
fn finite(graph: &Graph, name: &str) -> Result<Vec<f32>> {
    let place = || format!("initializer `{name}`");
    let tensor = graph.initializers.get(name);
    let values = tensor.and_then(Tensor::to_f32).ok_or_else(|| {
        let got = tensor.map_or("none".to_owned(), |tensor| tensor.dtype().to_string());
        Error::graph(place(), "an f32 constant", got)
    })?;
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(Error::graph(place(), "finite weights", value.to_string())),
        None => Ok(values),
    }
}
