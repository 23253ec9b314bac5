//! `DequantizeLinear(QuantizeLinear(x))` with one scale: what reads it reads `x`. A marked product takes the
//! range along and rounds in it, as the file says; others do not round at all.
//!
//! Where the range begins or ends at zero, quantizers leave out a `Relu` or `Clip` before it and rely on
//! what the range cuts off. There a `Clip` to the range stays, unless what writes `x` cannot leave it: a product
//! that is put back to floats would not cut. `quantize` reads past it where the product does.
//!
//! Refused: scales that belong to an axis, other types than 8- and 16-bit integers, and halves of a pair
//! that say different things.

use std::collections::BTreeMap;

use super::dequantize::whole;
use crate::graph::{Graph, Node};
use crate::kernels::RowScale;
use crate::optimize::marks;
use crate::optimize::pattern::View;
use crate::tensor::{DType, Tensor};

pub(super) fn run(graph: &mut Graph) -> usize {
    let view = View::new(graph);
    let pairs: Vec<Pair> = graph.nodes.iter().filter_map(|node| Pair::of(&view, node)).collect();
    let by_value: BTreeMap<&str, &Pair> = pairs.iter().map(|it| (it.value.as_str(), it)).collect();
    let is_output = |name: &str| graph.outputs.iter().any(|output| output.name == name);
    let mut renamed = BTreeMap::new();
    let mut replaced: BTreeMap<String, Node> = BTreeMap::new();
    for pair in &pairs {
        if pair.cuts || is_output(&pair.value) {
            replaced.insert(pair.value.clone(), pair.cut());
        } else {
            renamed.insert(pair.value.clone(), pair.source.clone());
        }
    }
    // What a pair reads may itself be what another pair gives.
    let sources: BTreeMap<String, String> = renamed
        .keys()
        .map(|value| {
            let mut source = &renamed[value];
            while let Some(next) = renamed.get(source) {
                source = next;
            }
            (value.clone(), source.clone())
        })
        .collect();
    let mut nodes = Vec::with_capacity(graph.nodes.len());
    let mut constants = Vec::new();
    for node in &graph.nodes {
        let product = matches!(node.op.as_str(), "MatMul" | "Gemm" | "Conv");
        let x = node.input(0).unwrap_or_default();
        let range = by_value.get(x).filter(|_| product && marks::is_quantized(node));
        let mut node = match range.and_then(|pair| Some((pair, pair.range?))) {
            Some((pair, range)) => {
                let mut node = marks::with_range(node.clone(), range);
                if !pair.cuts {
                    node.inputs[0].clone_from(&pair.source);
                }
                node
            }
            None => node.clone(),
        };
        if let Some(cut) = replaced.remove(node.output()) {
            constants.extend(by_value[node.output()].bounds());
            node = cut;
        }
        node.rename_reads(&sources);
        nodes.push(node);
    }
    let count = pairs.len();
    graph.nodes = nodes;
    graph.initializers.extend(constants);
    count
}

/// A value that was rounded to integers and back.
struct Pair {
    /// What `DequantizeLinear` writes.
    value: String,
    /// What `QuantizeLinear` reads.
    source: String,
    /// As rows of u8 are rounded, where it is of 8 bits.
    range: Option<RowScale>,
    least: f32,
    most: f32,
    /// Whether cutting to the range may be what the model means.
    cuts: bool,
}

impl Pair {
    fn of(view: &View, node: &Node) -> Option<Pair> {
        let back = node.is("DequantizeLinear").then_some(node)?;
        let forth = view.written_by(back.input(0)?, "QuantizeLinear")?;
        let (scale, zero_point) = steps(view, forth)?;
        if steps(view, back)? != (scale, zero_point.clone()) {
            return None;
        }
        let (dtype, zero) = match &zero_point {
            None => (DType::U8, 0),
            Some(tensor) => (tensor.dtype(), whole(tensor)?.first().copied()?),
        };
        let (least, most) = match dtype {
            DType::U8 => (0, 255),
            DType::I8 => (-128, 127),
            DType::U16 => (0, 65_535),
            DType::I16 => (-32_768, 32_767),
            _ => return None,
        };
        let range = u8::try_from(zero - least).ok().filter(|_| most - least == 255);
        let source = forth.input(0)?.to_owned();
        let bounded = view.writer(&source).is_some_and(|writer| {
            let within = ["Relu", "Clip", "Sigmoid", "Softmax", "HardSigmoid"];
            writer.is_onnx() && within.contains(&writer.op.as_str())
        });
        Some(Pair {
            value: back.output().to_owned(),
            source,
            range: range.map(|zero_point| RowScale { scale, zero_point }),
            least: (least - zero) as f32 * scale,
            most: (most - zero) as f32 * scale,
            cuts: (zero == least || zero == most) && !bounded,
        })
    }

    /// The node that writes the value where the pair goes.
    fn cut(&self) -> Node {
        if !self.cuts {
            return Node::new("Identity", &[&self.source], &[&self.value]);
        }
        let [least, most] = self.bounds().map(|(name, _)| name);
        Node::new("Clip", &[&self.source, &least, &most], &[&self.value])
    }

    fn bounds(&self) -> [(String, Tensor); 2] {
        let bound = |name: &str, value: f32| {
            (format!("{}.{name}", self.value), Tensor::from_f32(&[], &[value]))
        };
        [bound("least", self.least), bound("most", self.most)]
    }
}

/// The only scale of a node, above zero, and its zero point.
fn steps(view: &View, node: &Node) -> Option<(f32, Option<Tensor>)> {
    let scale = view.scalar(node.input(1)?).filter(|scale| scale.is_normal() && *scale > 0.0)?;
    let zero_point = match node.input(2) {
        None => None,
        // A scalar and a list of one are the same.
        Some(name) => {
            let tensor = view.constant(name).filter(|tensor| tensor.len() == 1)?;
            Some(tensor.clone().reshaped(&[]).ok()?)
        }
    };
    Some((scale, zero_point))
}
