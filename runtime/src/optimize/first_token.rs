//! What is only asked of the first token is computed for it alone: `dram.FirstToken` moves before the layer norms,
//! linear layers and GELUs whose other rows nobody reads, up to the attention that mixes tokens. Of the last layer of
//! an encoder with a `[CLS]` head, that is all but the queries, keys and values.
//!
//! Refused: a value that something reads as a whole, or that is an output of the graph; a layer norm over other axes
//! than the last.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{Graph, Node};

pub(super) fn run(graph: &mut Graph) -> usize {
    let alone = read_for_the_first_token(graph);
    // One row already, such a value takes the name of the `FirstToken` that read it.
    let renamed: BTreeMap<String, String> = graph
        .nodes
        .iter()
        .filter(|node| node.is_fused("FirstToken") && alone.contains(&node.inputs[0]))
        .map(|node| (node.inputs[0].clone(), node.output().to_owned()))
        .collect();
    let mut firsts = BTreeSet::new();
    for mut node in std::mem::take(&mut graph.nodes) {
        if node.is_fused("FirstToken") && alone.contains(&node.inputs[0]) {
            continue;
        }
        if alone.contains(node.output()) {
            for &place in rows_read(&node) {
                let whole = node.inputs.get_mut(place).filter(|value| !value.is_empty());
                let Some(value) = whole.filter(|value| !alone.contains(*value)) else { continue };
                let first = format!("{value}/first");
                if firsts.insert(first.clone()) {
                    graph.nodes.push(Node::fused("FirstToken", &[value], &[&first]));
                }
                *value = first;
            }
            let name = renamed.get(node.output()).cloned();
            node.outputs[0] = name.unwrap_or_else(|| node.output().to_owned());
        }
        node.rename_reads(&renamed);
        graph.nodes.push(node);
    }
    alone.len()
}

/// The inputs of `node` of which each row makes the same row of its output; none where rows mix.
fn rows_read(node: &Node) -> &'static [usize] {
    match node.op.as_str() {
        "LayerNormalization" if node.is_onnx() && node.int("axis", -1) == -1 => &[0],
        "Linear" if node.is_fused("Linear") => &[0, 3],
        "Gelu" if node.is_fused("Gelu") => &[0],
        _ => &[],
    }
}

/// What nodes that work row by row write, where only the first row is read in the end.
fn read_for_the_first_token(graph: &Graph) -> BTreeSet<String> {
    let mut alone = BTreeSet::new();
    if !graph.nodes.iter().any(|node| node.is_fused("FirstToken")) {
        return alone;
    }
    let mut whole: BTreeSet<&str> = graph.outputs.iter().map(|it| it.name.as_str()).collect();
    let (mut by_row, mut by_first_token) = (BTreeSet::new(), BTreeSet::new());
    // Backwards, every reader of a value comes before its writer.
    for node in graph.nodes.iter().rev() {
        let (rows, value) = (rows_read(node), node.output());
        let asked = by_row.contains(value) || by_first_token.contains(value);
        let is_alone =
            asked && !rows.is_empty() && node.outputs.len() == 1 && !whole.contains(value);
        for (place, input) in node.inputs.iter().enumerate() {
            // It can take the name of one reader only.
            let is_first = node.is_fused("FirstToken") && by_first_token.insert(input.as_str());
            if is_alone && rows.contains(&place) {
                by_row.insert(input.as_str());
            } else if !is_first {
                whole.insert(input);
            }
        }
        let around = node.subgraphs().flat_map(|subgraph| &subgraph.nodes);
        whole.extend(around.flat_map(|node| &node.inputs).map(String::as_str));
        if is_alone {
            alone.insert(value.to_owned());
        }
    }
    alone
}

#[cfg(test)]
mod tests {
    use super::super::pattern::by_hand::{after, graph};
    use super::*;
    use crate::graph::Attribute;
    use crate::tensor::Tensor;

    fn constants() -> Vec<(&'static str, Tensor)> {
        vec![
            ("w", Tensor::from_f32(&[2, 2], &[1.0, 2.0, 3.0, 4.0])),
            ("b", Tensor::from_f32(&[2], &[0.5, -0.5])),
        ]
    }

    /// A feed-forward layer over `x`, its residual with it, and the head that reads its first token.
    fn nodes() -> Vec<Node> {
        vec![
            Node::new("LayerNormalization", &["x", "b", "b"], &["n"])
                .with("axis", Attribute::Int(-1)),
            Node::fused("Linear", &["n", "w", "b"], &["up"]),
            Node::fused("Linear", &["up", "w", "b", "n"], &["down"]),
            Node::fused("FirstToken", &["down"], &["first"]),
            Node::fused("Linear", &["first", "w", "b"], &["y"]),
        ]
    }

    #[test]
    fn what_follows_rows_of_which_one_is_read_reads_one() {
        let (operators, graph) = after(run, graph(nodes(), constants()));
        let expected = ["FirstToken", "LayerNormalization", "Linear", "Linear", "Linear"];
        assert_eq!(operators, expected);
        assert_eq!(graph.nodes[1].inputs, ["x/first", "b", "b"]);
        assert_eq!(graph.nodes[3].inputs, ["up", "w", "b", "n"]);
        assert_eq!(graph.nodes[4].inputs[0], "first");
    }

    #[test]
    fn a_value_that_is_read_as_a_whole_stays_whole() {
        let mut nodes = nodes();
        nodes.insert(3, Node::new("Neg", &["up"], &["other"]));
        nodes.push(Node::new("Add", &["y", "other"], &["z"]));
        let (operators, graph) = after(run, graph(nodes, constants()));
        // The last layer of three reads one row of what came before.
        assert_eq!(operators.iter().filter(|name| *name == "FirstToken").count(), 2);
        let down = graph.nodes.iter().find(|node| node.output() == "first").expect("it is there");
        assert_eq!(down.inputs, ["up/first", "w", "b", "n/first"]);
    }

    #[test]
    fn a_norm_over_more_than_a_row_stays() {
        let mut nodes = nodes();
        nodes[0] = nodes[0].clone().with("axis", Attribute::Int(1));
        let (operators, _) = after(run, graph(nodes, constants()));
        assert_eq!(operators[..2], ["LayerNormalization", "FirstToken"]);
    }
}
