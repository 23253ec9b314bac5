//! Which layers int8 makes no cheaper. A row has to be rounded before its products save anything, and a narrow
//! layer has few of them.
//!
//! What decides is a core that multiplies bytes without a dot product, where int8 saves least: the instructions of our
//! kernels there, counted on an emulated Cortex-A53 (docs/boards.md).

use crate::graph::{Graph, Node};
use crate::operators::surplus;
use crate::optimize::marks;

/// The values that layers of an optimized graph write which int8 would make dearer on such a core: narrow linear ones, and
/// attention among narrow ones. What another tool quantized is not among them.
pub(crate) fn without_gain(graph: &Graph) -> Vec<String> {
    let narrow = |node: &&Node| {
        if node.is_fused("Attention") {
            return !attention_pays(graph, node);
        }
        let narrow = weight_of(graph, node).is_some_and(|[k, n]| !pays(k, n));
        node.is_fused("Linear") && !marks::is_quantized(node) && narrow
    };
    graph.nodes.iter().filter(narrow).map(|node| node.output().to_owned()).collect()
}

/// The values that convolutions of an optimized graph write, but for those that another tool quantized.
pub(crate) fn convolutions(graph: &Graph) -> Vec<String> {
    let convolutions = graph.nodes.iter().filter(|node| node.is_fused("Conv"));
    let ours = convolutions.filter(|node| !marks::is_quantized(node));
    ours.map(|node| node.output().to_owned()).collect()
}

/// Inputs and outputs of a linear layer with constant weights.
fn weight_of(graph: &Graph, node: &Node) -> Option<[usize; 2]> {
    let weight = graph.initializers.get(node.input(1)?).filter(|_| node.is_fused("Linear"))?;
    weight.shape().try_into().ok()
}

/// Whether the layers beside attention save more by int8 than attention costs by it. On short texts attention itself takes up to
/// two fifths more instructions in int8: in layers of 128 and more that is little beside what they save.
fn attention_pays(graph: &Graph, node: &Node) -> bool {
    const LEAST_WIDTH: usize = 128;
    let before = node.input(0).and_then(|value| graph.producer(value));
    let weight = before.and_then(|before| weight_of(graph, &graph.nodes[before]));
    weight.is_none_or(|[_, n]| n >= 3 * LEAST_WIDTH)
}

/// Whether a row of `k` numbers to one of `n` takes fewer instructions in int8 than in f32, sixteen rows at a time or more.
fn pays(k: usize, n: usize) -> bool {
    surplus::of_row(k, n) < 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Tensor;

    /// Inputs, outputs, and the instructions of int8 for a hundred of f32: sixteen rows on an emulated Cortex-A53.
    const COUNTED: [(usize, usize, f32); 30] = [
        (16, 64, 118.0),
        (16, 512, 102.0),
        (24, 512, 106.0),
        (32, 32, 124.0),
        (32, 64, 109.0),
        (32, 96, 104.0),
        (32, 128, 101.0),
        (32, 192, 99.0),
        (32, 256, 97.0),
        (36, 256, 100.1),
        (37, 512, 104.0),
        (40, 256, 101.0),
        (44, 512, 100.2),
        (48, 96, 100.1),
        (48, 128, 98.0),
        (48, 512, 89.0),
        (52, 128, 100.5),
        (64, 8, 115.0),
        (64, 32, 116.0),
        (64, 64, 102.0),
        (64, 96, 98.0),
        (64, 128, 95.0),
        (96, 64, 100.1),
        (96, 96, 95.0),
        (128, 64, 98.0),
        (192, 32, 109.0),
        (192, 64, 96.0),
        (256, 64, 96.0),
        (384, 8, 106.0),
        (384, 64, 95.0),
    ];

    #[test]
    fn layers_that_were_counted_are_told_apart() {
        for (k, n, percent) in COUNTED {
            assert_eq!(pays(k, n), percent < 100.0, "{k} x {n}: {percent} %");
        }
    }

    #[test]
    fn attention_stays_f32_among_narrow_layers() {
        for (hidden, stays) in [(32, true), (64, true), (128, false), (384, false)] {
            let weight = Tensor::from_f32(&[hidden, 3 * hidden], &vec![0.5; 3 * hidden * hidden]);
            let graph = Graph {
                nodes: vec![
                    Node::fused("Linear", &["x", "w"], &["qkv"]),
                    Node::fused("Attention", &["qkv", "mask"], &["attended"]),
                ],
                initializers: [("w".to_owned(), weight)].into(),
                ..Graph::default()
            };
            let left = without_gain(&graph);
            assert_eq!(left.contains(&"attended".to_owned()), stays, "{hidden}: {left:?}");
        }
    }

    #[test]
    fn only_narrow_layers_of_floats_are_left_alone() {
        let layer = |weight: &str, y: &str| Node::fused("Linear", &["x", weight], &[y]);
        let graph = Graph {
            nodes: vec![
                layer("narrow", "a"),
                layer("wide", "b"),
                marks::quantized(layer("narrow", "c")),
            ],
            initializers: [("narrow", 32), ("wide", 256)]
                .map(|(name, n)| (name.to_owned(), Tensor::from_f32(&[32, n], &vec![0.5; 32 * n])))
                .into(),
            ..Graph::default()
        };
        assert_eq!(without_gain(&graph), ["a"]);
    }
}
