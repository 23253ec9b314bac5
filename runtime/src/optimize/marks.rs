//! What a node of a float graph says of the integers that it was quantized to by another tool: attributes
//! that `import` sets, the passes carry along, and `quantize` obeys.

use crate::graph::{Attribute, Graph, Node};
use crate::kernels::RowScale;

/// Set where the constant of a node was integers.
const QUANTIZED: &str = "quantized";

/// The range of a node's first input, as ONNX's `QLinearConv` names it; or `x_range`, `tensor` where all rows of
/// the input are rounded in one range that is known when they are.
const RANGE: [&str; 3] = ["x_scale", "x_zero_point", "x_range"];

/// `node`, whose constant was integers.
pub(crate) fn quantized(node: Node) -> Node {
    node.with(QUANTIZED, Attribute::Int(1))
}

/// `node`, whose first input is rounded in `range`.
pub(crate) fn with_range(node: Node, range: RowScale) -> Node {
    node.with(RANGE[0], Attribute::Float(range.scale))
        .with(RANGE[1], Attribute::Int(range.zero_point.into()))
}

/// `node`, whose first input is rounded in one range, that of all its elements (ONNX: DynamicQuantizeLinear).
pub(crate) fn together(node: Node) -> Node {
    node.with(RANGE[2], Attribute::String("tensor".to_owned()))
}

/// Whether its constant was integers.
pub(crate) fn is_quantized(node: &Node) -> bool {
    node.int(QUANTIZED, 0) == 1
}

/// Whether its first input has a range.
pub(crate) fn has_range(node: &Node) -> bool {
    node.attributes.contains_key(RANGE[0])
}

/// The range of its first input.
pub(crate) fn range(node: &Node) -> Option<RowScale> {
    let zero_point = u8::try_from(node.int(RANGE[1], -1)).ok()?;
    has_range(node).then(|| RowScale { scale: node.float(RANGE[0], 0.0), zero_point })
}

/// `node` with the marks of `other`, which it takes the place of.
pub(crate) fn carry(other: &Node, node: Node) -> Node {
    let marks = [QUANTIZED].into_iter().chain(RANGE);
    marks.fold(node, |node, name| match other.attributes.get(name) {
        Some(value) => node.with(name, value.clone()),
        None => node,
    })
}

/// Whether two nodes are marked alike.
pub(crate) fn alike(a: &Node, b: &Node) -> bool {
    let mut marks = [QUANTIZED].into_iter().chain(RANGE);
    marks.all(|name| a.attributes.get(name) == b.attributes.get(name))
}

/// `node` without the range of its first input.
pub(crate) fn without_range(mut node: Node) -> Node {
    RANGE.iter().for_each(|name| drop(node.attributes.remove(*name)));
    node
}

/// `node` without the mark that its constant was integers.
pub(crate) fn without_mark(mut node: Node) -> Node {
    node.attributes.remove(QUANTIZED);
    node
}

/// The graph as if nothing in it had been quantized.
pub(crate) fn removed(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    let nodes = std::mem::take(&mut graph.nodes).into_iter();
    graph.nodes = nodes.map(|node| without_range(without_mark(node))).collect();
    graph
}
