//! An optimized graph to the form in which it is stored and run: weights packed for the kernels,
//! in f32 or in int8.
//!
//! Weights are rounded to int8 once, per output channel, symmetric in ±127. Activations are rounded to u8
//! when they are known: in *dynamic* int8 each row with its own scale and zero point (ONNX:
//! DynamicQuantizeLinear, applied to a row), in *static* int8 all of them with those that were calibrated
//! (ONNX: QuantizeLinear). Attention, normalization and pooling stay f32.

mod embed;
mod linear;

use std::collections::BTreeMap;

use crate::calibrate::Ranges;
use crate::error::{Error, Result};
use crate::graph::{Attribute, Graph, Node};
use crate::kernels::{MOST_INT8_INPUTS, RowScale};
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
    /// 8-bit weights per output channel, activations rounded in one calibrated range a tensor.
    Int8Static,
}

impl Precision {
    const ALL: [Precision; 3] = [Precision::F32, Precision::Int8, Precision::Int8Static];

    /// The name that flags and manifests use.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Int8 => "int8",
            Precision::Int8Static => "int8-static",
        }
    }

    /// The next one with less rounding, which a node is put back to where this one costs too much.
    pub(crate) fn finer(self) -> Option<Precision> {
        match self {
            Precision::F32 => None,
            Precision::Int8 => Some(Precision::F32),
            // A range for each row in place of one for all.
            Precision::Int8Static => Some(Precision::Int8),
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
        let found = Precision::ALL.into_iter().find(|precision| precision.name() == text);
        let names = Precision::ALL.map(Precision::name).join("`, `");
        found.ok_or_else(|| format!("`{text}` is no precision; choose one of `{names}`"))
    }
}

/// How the nodes of a graph are to be stored.
#[derive(Clone, Debug)]
pub struct Scheme {
    /// All nodes that have such a form,
    pub precision: Precision,
    /// but for these, by the values that they write.
    pub exceptions: BTreeMap<String, Precision>,
    /// The calibrated ranges of what static nodes read.
    pub ranges: Ranges,
}

impl From<Precision> for Scheme {
    /// The same for all nodes, nothing calibrated.
    fn from(precision: Precision) -> Scheme {
        Scheme { precision, exceptions: BTreeMap::new(), ranges: Ranges::new() }
    }
}

impl Scheme {
    fn of(&self, node: &Node) -> Precision {
        self.exceptions.get(node.output()).copied().unwrap_or(self.precision)
    }
}

/// Rewrites every `dram.Linear`, `dram.Embed` and lookup in a table of `graph` to its stored form in
/// `scheme`.
///
/// # Errors
/// [`Error::Graph`] where a weight is not finite, or what a static node reads has no range;
/// [`Error::Unsupported`] where int8 is asked for and nothing in the graph has a form in int8.
pub fn quantize(graph: &mut Graph, scheme: &Scheme) -> Result<()> {
    let mut int8_nodes = 0;
    for index in 0..graph.nodes.len() {
        let node = graph.nodes[index].clone();
        let precision = scheme.of(&node);
        let int8 = int8_form(graph, &node).filter(|_| precision != Precision::F32);
        let (node, initializers) = match int8 {
            Some(pack) => {
                int8_nodes += 1;
                let node = match precision {
                    Precision::Int8Static if is_rounded(graph, &node) => with_range(node, scheme)?,
                    _ => node,
                };
                pack(graph, node)?
            }
            None if node.is_fused("Linear") => linear::pack_f32(graph, node)?,
            None => continue,
        };
        graph.nodes[index] = node;
        graph.initializers.extend(initializers);
    }
    graph.remove_dead();
    if scheme.precision != Precision::F32 && int8_nodes == 0 {
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

/// Those of them which can have a range of their own.
pub(crate) fn ranged(graph: &Graph) -> Vec<String> {
    let nodes = graph.nodes.iter().filter(|node| is_rounded(graph, node));
    nodes.map(|node| node.output().to_owned()).collect()
}

/// The values that nodes of an optimized graph round to int8 before they compute.
pub(crate) fn rounded_values(graph: &Graph) -> impl Iterator<Item = &str> {
    let nodes = graph.nodes.iter().filter(|node| is_rounded(graph, node));
    nodes.filter_map(|node| node.input(0))
}

/// Whether the int8 form of `node` rounds its first input: a lookup rounds nothing.
fn is_rounded(graph: &Graph, node: &Node) -> bool {
    node.is_fused("Linear") && int8_form(graph, node).is_some()
}

/// `node` with the range of its first input: `x_scale` and `x_zero_point`, as ONNX's `QLinearConv` names
/// them.
fn with_range(node: Node, scheme: &Scheme) -> Result<Node> {
    let value = node.input(0).unwrap_or_default();
    let RowScale { scale, zero_point } = scheme.ranges.get(value).copied().ok_or_else(|| {
        Error::graph(node.place(), format!("a calibrated range of `{value}`"), "none")
    })?;
    Ok(node
        .with("x_scale", Attribute::Float(scale))
        .with("x_zero_point", Attribute::Int(zero_point.into())))
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
