//! An optimized graph to the form in which it is stored and run: weights packed for the kernels,
//! in f32 or in int8.
//!
//! Weights are rounded to int8 once, per output channel, symmetric in ±127. Activations are rounded to u8
//! when they are known: in *dynamic* int8 each row with its own scale and zero point (ONNX:
//! DynamicQuantizeLinear, applied to a row), in *static* int8 all of them with those that were calibrated
//! (ONNX: QuantizeLinear). Attention rounds queries, keys, values and shares when they are known, in both. Normalization
//! and pooling stay f32.

mod conv;
mod embed;
mod flow;
mod gain;
mod linear;
#[cfg(test)]
mod properties;

use std::collections::BTreeMap;

use crate::calibrate::{Fit, Fitted, Ranges};
use crate::error::{Error, Result};
use crate::graph::{Graph, Node};
use crate::kernels::{MOST_INT8_INPUTS, RowScale};
use crate::optimize::marks;
pub use crate::precision::Precision;
use crate::tensor::{DType, Tensor};
pub(crate) use gain::{convolutions, without_gain};

/// Tables with fewer elements than this are no embeddings, and not worth a rounding.
const LEAST_TABLE: usize = 1024;

/// How the nodes of a graph are to be stored.
#[derive(Clone, Debug)]
pub struct Scheme {
    /// All nodes that have such a form,
    pub precision: Precision,
    /// but for these, by the values that they write.
    pub exceptions: BTreeMap<String, Precision>,
    /// The calibrated ranges of what static nodes read.
    pub ranges: Ranges,
    /// The constants that int8 nodes are stored with in place of their own.
    pub(crate) fitted: Fitted,
}

impl From<Precision> for Scheme {
    /// The same for all nodes, nothing calibrated.
    fn from(precision: Precision) -> Scheme {
        let (exceptions, ranges) = (BTreeMap::new(), Ranges::new());
        Scheme { precision, exceptions, ranges, fitted: Fitted::new() }
    }
}

impl Scheme {
    fn of(&self, node: &Node) -> Precision {
        match self.exceptions.get(node.output()) {
            Some(precision) => *precision,
            None if !marks::is_quantized(node) => self.precision,
            // As the file says, whatever is asked of the others.
            None if marks::has_range(node) => Precision::Int8Static,
            None if self.precision.is_float() => Precision::Int8,
            None => self.precision,
        }
    }
}

/// Rewrites every `dram.Linear`, `dram.Attention`, `dram.Embed` and lookup in a table of `graph` to its stored form in
/// `scheme`. Nodes that another tool quantized stay integers, in the ranges that it chose.
///
/// # Errors
/// [`Error::Graph`] where a weight is not finite, or what a static node reads has no range;
/// [`Error::Unsupported`] where int8 is asked for and nothing in the graph has a form in int8.
pub fn quantize(graph: &mut Graph, scheme: &Scheme) -> Result<()> {
    let has_int8_forms = graph.nodes.iter().any(|node| int8_form(graph, node).is_some());
    for index in 0..graph.nodes.len() {
        let node = graph.nodes[index].clone();
        let precision = scheme.of(&node);
        let int8 = int8_form(graph, &node).filter(|_| !precision.is_float());
        let node = match precision {
            Precision::Int8Static if marks::has_range(&node) => past_cut(graph, node),
            Precision::Int8Static if is_rounded(graph, &node) => with_range(node, scheme)?,
            // As the file says: dynamic ranges of rows, or of tensors.
            Precision::Int8 if !scheme.exceptions.contains_key(node.output()) => node,
            _ => marks::without_range(node),
        };
        // What another tool rounded is computed as it was there.
        let node = match int8 {
            Some(_) if !marks::is_quantized(&node) => linear::with_near_gelu(node),
            _ => marks::without_mark(node),
        };
        let node = match precision {
            Precision::Int8 | Precision::Int8Static => with_fitted(graph, node, &scheme.fitted),
            _ => node,
        };
        let (node, initializers) = match int8 {
            Some(pack) => match precision.group().filter(|_| node.is_fused("Linear")) {
                Some(group) => linear::pack_int4(graph, node, group)?,
                None => pack(graph, node)?,
            },
            None if node.is_fused("Conv") => conv::pack_f32(graph, node)?,
            None if !node.is_fused("Linear") => (node, Vec::new()),
            None if precision == Precision::F16 => linear::pack_f16(graph, node)?,
            None => linear::pack_f32(graph, node)?,
        };
        graph.nodes[index] = node;
        graph.initializers.extend(initializers);
    }
    flow::run(graph);
    graph.remove_dead();
    if !scheme.precision.is_float() && !has_int8_forms {
        return Err(Error::Unsupported {
            model: graph.name.clone(),
            findings: vec![
                "int8: no matrix product, convolution or lookup in it has constant weights; pack it with \
                 `--precision f32`"
                    .to_owned(),
            ],
        });
    }
    Ok(())
}

/// The values that the nodes of an optimized graph write which `precision` stores in another form than f32.
pub(crate) fn with_form_in(graph: &Graph, precision: Precision) -> Vec<String> {
    let has_form = |node: &&Node| match precision {
        Precision::Int8Static => is_rounded(graph, node),
        Precision::Int8 => int8_form(graph, node).is_some(),
        _ => node.is_fused("Linear") && int8_form(graph, node).is_some(),
    };
    graph.nodes.iter().filter(has_form).map(|node| node.output().to_owned()).collect()
}

/// The values that nodes of an optimized graph round to int8 before they compute.
pub(crate) fn rounded_values(graph: &Graph) -> impl Iterator<Item = &str> {
    let nodes = graph.nodes.iter().filter(|node| is_rounded(graph, node));
    nodes.filter_map(|node| node.input(0))
}

/// Whether the int8 form of `node` rounds its first input: a lookup rounds nothing.
fn is_rounded(graph: &Graph, node: &Node) -> bool {
    let rounds = node.is_fused("Linear") || node.is_fused("Conv");
    rounds && int8_form(graph, node).is_some()
}

/// `node`, which rounds its first input, without a `Clip` to the same range before it: rounding cuts.
fn past_cut(graph: &Graph, mut node: Node) -> Node {
    let constant = |name: Option<&str>| {
        let values = graph.initializers.get(name?)?.to_f32()?;
        (values.len() == 1).then(|| values[0])
    };
    let source = || {
        let RowScale { scale, zero_point } = marks::range(&node)?;
        let end = |steps: i32| (steps - i32::from(zero_point)) as f32 * scale;
        let clip = &graph.nodes[graph.producer(node.input(0)?)?];
        let same = clip.is("Clip")
            && is_rounded(graph, &node)
            && constant(clip.input(1)) == Some(end(0))
            && constant(clip.input(2)) == Some(end(255));
        same.then(|| clip.input(0).map(str::to_owned))?
    };
    if let Some(source) = source() {
        node.inputs[0] = source;
    }
    node
}

/// `node` with the weights and bias that were fitted to it, where there are such.
fn with_fitted(graph: &mut Graph, mut node: Node, fitted: &Fitted) -> Node {
    let Some(Fit { weight, bias, bias_of_range }) = fitted.get(node.output()) else {
        return node;
    };
    let bias = if marks::has_range(&node) { bias_of_range } else { bias };
    if node.inputs.len() < 3 {
        node.inputs.resize(3, String::new());
    }
    for (place, constant) in [(1, weight), (2, bias)] {
        let name = format!("{}.fitted.{place}", node.output());
        graph.initializers.insert(name.clone(), constant.clone());
        node.inputs[place] = name;
    }
    node
}

/// `node` with the calibrated range of its first input.
fn with_range(node: Node, scheme: &Scheme) -> Result<Node> {
    let value = node.input(0).unwrap_or_default();
    let range = scheme.ranges.get(value).copied().ok_or_else(|| {
        Error::graph(node.place(), format!("a calibrated range of `{value}`"), "none")
    })?;
    Ok(marks::with_range(marks::without_range(node), range))
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
    if node.is_fused("Conv") {
        return conv::fits_int8(table(1)?).then_some(conv::pack_int8);
    }
    if node.is_fused("Embed") {
        return Some(embed::pack_int8);
    }
    if node.is_fused("Attention") {
        return Some(|_, node| Ok((Node { op: "AttentionInt8".to_owned(), ..node }, Vec::new())));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attribute, ValueSpec};

    /// `y = Clip(x, 0, most) · w`, the product marked with a range of 0 to 25.5.
    fn cut_at(most: f32) -> Graph {
        let range = RowScale { scale: 0.1, zero_point: 0 };
        let product = Node::fused("Linear", &["cut", "w"], &["y"]);
        let scalar = |value: f32| Tensor::from_f32(&[], &[value]);
        Graph {
            inputs: vec![ValueSpec::new("x", DType::F32, &[])],
            outputs: vec![ValueSpec::new("y", DType::F32, &[])],
            nodes: vec![
                Node::new("Clip", &["x", "least", "most"], &["cut"]),
                marks::with_range(marks::quantized(product), range),
            ],
            initializers: [
                ("w".to_owned(), Tensor::from_f32(&[2, 1], &[1.0, 2.0])),
                ("least".to_owned(), scalar(0.0)),
                ("most".to_owned(), scalar(most)),
            ]
            .into(),
            ..Graph::default()
        }
    }

    fn operators(mut graph: Graph, scheme: &Scheme) -> Vec<String> {
        quantize(&mut graph, scheme).unwrap();
        graph.nodes.into_iter().map(|node| node.op).collect()
    }

    #[test]
    fn a_node_that_rounds_cuts_and_one_that_was_put_back_does_not() {
        let as_it_is: Scheme = Precision::F32.into();
        let range_ends = 255.0 * 0.1;
        assert_eq!(operators(cut_at(range_ends), &as_it_is), ["LinearInt8"]);
        assert_eq!(operators(cut_at(6.0), &as_it_is), ["Clip", "LinearInt8"]);
        for precision in [Precision::F32, Precision::Int8] {
            let exceptions = BTreeMap::from([("y".to_owned(), precision)]);
            let put_back = Scheme { exceptions, ..Precision::Int8Static.into() };
            let mut graph = cut_at(range_ends);
            // Something else in int8, so that there is some.
            let table = Tensor::from_f32(&[64, 16], &[1.0; 1024]);
            graph.initializers.insert("table".to_owned(), table);
            graph.nodes.push(Node::new("Gather", &["table", "x"], &["rows"]));
            graph.outputs.push(ValueSpec::new("rows", DType::F32, &[]));
            let stored = if precision == Precision::F32 { "LinearF32" } else { "LinearInt8" };
            assert_eq!(operators(graph, &put_back), ["Clip", stored, "GatherInt8"]);
        }
    }

    #[test]
    fn what_another_tool_quantized_stays_so_and_the_rest_is_as_asked() {
        for (precision, stored) in [
            (Precision::F32, "LinearF32"),
            (Precision::F16, "LinearF16"),
            (Precision::Int8, "LinearInt8"),
            (Precision::Int4, "LinearInt4"),
            (Precision::Int4By8, "LinearInt4"),
        ] {
            let mut graph = cut_at(6.0);
            graph.nodes.push(Node::fused("Linear", &["x", "w"], &["z"]));
            graph.outputs.push(ValueSpec::new("z", DType::F32, &[]));
            assert_eq!(operators(graph, &precision.into()), ["Clip", "LinearInt8", stored]);
        }
    }

    #[test]
    fn a_layer_that_is_rounded_here_takes_the_polynomial_for_gelu() {
        for (precision, expected) in [
            (Precision::F32, ["gelu", "gelu"]),
            (Precision::Int8, ["gelu", "gelu_polynomial"]),
            (Precision::Int4, ["gelu", "gelu_polynomial"]),
        ] {
            let mut graph = cut_at(6.0);
            graph.nodes.push(Node::fused("Linear", &["x", "w"], &["z"]));
            graph.outputs.push(ValueSpec::new("z", DType::F32, &[]));
            for node in &mut graph.nodes[1..] {
                *node = node.clone().with("activation", Attribute::String("gelu".to_owned()));
            }
            quantize(&mut graph, &precision.into()).unwrap();
            let found = graph.nodes[1..].iter().map(|node| node.string("activation", "none"));
            assert_eq!(found.collect::<Vec<_>>(), expected, "{precision}");
        }
    }

    #[test]
    fn halves_refuse_what_they_do_not_reach() {
        let mut graph = cut_at(6.0);
        graph.nodes = vec![Node::fused("Linear", &["x", "w"], &["y"])];
        graph.initializers.insert("w".to_owned(), Tensor::from_f32(&[1, 2], &[1.0, 1e6]));
        let error = quantize(&mut graph, &Precision::F16.into()).unwrap_err().to_string();
        assert!(error.contains("65504"), "{error}");
    }
}
