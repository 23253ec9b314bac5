//! An image that only int8 convolutions read, all of them rounding it in one calibrated range, is written in
//! that range: `y_scale` and `y_zero_point` of the convolution before them. No f32 lies between.
//!
//! Refused: outputs of the graph, values that anything else reads, and what no convolution writes.

use std::collections::BTreeSet;

use crate::graph::{Attribute, Graph, Node};

pub(super) fn run(graph: &mut Graph) {
    let ranges: Vec<Option<[Attribute; 2]>> =
        graph.nodes.iter().map(|node| range_of_readers(graph, node)).collect();
    for (node, range) in graph.nodes.iter_mut().zip(ranges) {
        let Some([scale, zero_point]) = range else { continue };
        node.attributes.insert("y_scale".to_owned(), scale);
        node.attributes.insert("y_zero_point".to_owned(), zero_point);
    }
}

/// The one range that all readers of what `node` writes round it in.
fn range_of_readers(graph: &Graph, node: &Node) -> Option<[Attribute; 2]> {
    let writes = ["ConvF32", "DepthwiseF32", "ConvInt8", "DepthwiseInt8"];
    if !writes.iter().any(|op| node.is_fused(op)) || has_residual(node) {
        return None;
    }
    let value = node.output();
    let readers = graph.nodes.iter().filter(|it| it.inputs.iter().any(|input| input == value));
    let readers: Vec<&Node> = readers.collect();
    let rounds = |it: &&&Node| {
        let image = it.inputs.iter().position(|input| input == value) == Some(0);
        image && (it.is_fused("ConvInt8") || it.is_fused("DepthwiseInt8"))
    };
    let reads: usize = readers.iter().filter(rounds).count();
    if readers.is_empty() || reads != graph.uses(value) {
        return None;
    }
    let range = |it: &&Node| {
        let attribute = |name: &str| it.attributes.get(name).cloned();
        Some([attribute("x_scale")?, attribute("x_zero_point")?])
    };
    let ranges: Vec<[Attribute; 2]> = readers.iter().map(range).collect::<Option<_>>()?;
    let distinct: BTreeSet<String> = ranges.iter().map(|range| format!("{range:?}")).collect();
    (distinct.len() == 1).then(|| ranges[0].clone())
}

/// Whether a residual is added, which may have to be broadcast.
fn has_residual(node: &Node) -> bool {
    let place = match node.op.as_str() {
        "ConvInt8" => 5,
        "DepthwiseInt8" => 4,
        _ => 3,
    };
    node.input(place).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv(op: &str, x: &str, y: &str, scale: f32) -> Node {
        Node::fused(op, &[x, "w"], &[y])
            .with("x_scale", Attribute::Float(scale))
            .with("x_zero_point", Attribute::Int(3))
    }

    fn rounds(nodes: Vec<Node>) -> bool {
        let mut graph = Graph { nodes, ..Graph::default() };
        run(&mut graph);
        let first = &graph.nodes[0];
        let scale = first.attributes.get("y_scale") == Some(&Attribute::Float(0.5));
        assert_eq!(scale, first.attributes.contains_key("y_zero_point"));
        scale
    }

    #[test]
    fn a_value_that_all_read_in_one_range_is_written_in_it() {
        let first = || conv("ConvInt8", "x", "a", 0.1);
        let second = || conv("DepthwiseInt8", "a", "b", 0.5);
        assert!(rounds(vec![first(), second()]));
        assert!(rounds(vec![first(), second(), conv("ConvInt8", "a", "c", 0.5)]));
        assert!(!rounds(vec![first(), second(), conv("ConvInt8", "a", "c", 0.25)]));
        assert!(!rounds(vec![first(), second(), Node::new("Relu", &["a"], &["c"])]));
        assert!(!rounds(vec![first(), Node::fused("ConvInt8", &["a", "w"], &["b"])]));
        let residual = Node::fused("ConvF32", &["x", "p", "b", "r"], &["a"]);
        assert!(!rounds(vec![residual, second()]));
        assert!(!rounds(vec![first()]));
    }
}
