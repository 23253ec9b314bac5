//! An `If` whose condition is known becomes the branch that runs, also where branches lie in branches.
//!
//! A condition is known where it hangs on constants, on shapes, and on inputs whose values the caller
//! gives. Refused: any other condition; tract then runs the `If` itself, where both branches give
//! the same types and ranks.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{Attribute, Graph, Node, ValueSpec};
use crate::rewrite::Constant;
use crate::shapes::Fact;
use crate::tensor::DType;

/// Positions of the graph's inputs whose *values* decide which branches run.
pub(crate) fn controls(graph: &Graph) -> Vec<usize> {
    let mut writers = BTreeMap::new();
    let mut wanted = Vec::new();
    conditions(graph, &mut writers, &mut wanted);
    let mut seen = BTreeSet::new();
    while let Some(value) = wanted.pop() {
        if !seen.insert(value) {
            continue;
        }
        if let Some(node) = writers.get(value).filter(|node| !node.is("Shape") && !node.is("Size"))
        {
            wanted.extend(node.inputs.iter().map(String::as_str));
            // What a branch gives hangs on what its outputs hang on.
            wanted.extend(node.subgraphs().flat_map(|it| &it.outputs).map(|it| it.name.as_str()));
        }
    }
    let decides = |input: &ValueSpec| seen.contains(input.name.as_str());
    (0..graph.inputs.len()).filter(|&index| decides(&graph.inputs[index])).collect()
}

/// Gathers the writer of every value and the condition of every `If`, subgraphs included.
fn conditions<'a>(
    graph: &'a Graph,
    writers: &mut BTreeMap<&'a str, &'a Node>,
    found: &mut Vec<&'a str>,
) {
    for node in &graph.nodes {
        writers.extend(node.outputs.iter().map(|output| (output.as_str(), node)));
        found.extend(node.input(0).filter(|_| node.is("If")));
        node.subgraphs().for_each(|branch| conditions(branch, writers, found));
    }
}

/// Puts known branches in the place of their `If`, until no condition is known any more.
pub(super) fn run(graph: &mut Graph, facts: &[Fact], constant: Constant) -> usize {
    let mut count = 0;
    loop {
        let conditions: Vec<String> = graph
            .nodes
            .iter()
            .filter(|node| node.is("If"))
            .map(|node| node.inputs[0].clone())
            .collect();
        let values: BTreeMap<String, bool> = conditions
            .into_iter()
            .filter_map(|name| Some((name.clone(), condition(graph, facts, &name, constant)?)))
            .collect();
        if values.is_empty() {
            return count;
        }
        for node in std::mem::take(&mut graph.nodes) {
            match values.get(node.input(0).unwrap_or_default()).filter(|_| node.is("If")) {
                Some(&holds) => {
                    count += 1;
                    inline(graph, node, holds);
                }
                None => graph.nodes.push(node),
            }
        }
        graph.remove_dead();
    }
}

/// What the condition `name` is, where it is the same for all inputs of these shapes.
fn condition(graph: &Graph, facts: &[Fact], name: &str, constant: Constant) -> Option<bool> {
    let value = match graph.initializers.get(name) {
        Some(value) => value.clone(),
        None => {
            let part = graph.ancestors(name);
            let of_part = graph.inputs.iter().zip(facts);
            let facts: Vec<Fact> = of_part
                .filter(|(input, _)| part.inputs.iter().any(|it| it.name == input.name))
                .map(|(_, fact)| fact.clone())
                .collect();
            constant(&part, &facts)?
        }
    };
    (value.dtype() == DType::Bool).then(|| value.bytes().iter().any(|&byte| byte != 0))
}

/// Appends the branch of `node` that runs, its values under names of their own.
fn inline(graph: &mut Graph, node: Node, holds: bool) {
    let prefix = node.output().to_owned();
    let branch = if holds { "then_branch" } else { "else_branch" };
    let Node { outputs, mut attributes, .. } = node;
    let Some(Attribute::Graph(branch)) = attributes.remove(branch) else { return };
    let bound =
        branch.initializers.keys().chain(branch.nodes.iter().flat_map(|node| &node.outputs));
    let renamed: BTreeMap<String, String> = bound
        .filter(|name| !name.is_empty())
        .map(|name| (name.clone(), format!("{prefix}/{name}")))
        .collect();
    let own = |name: &String| renamed.get(name).unwrap_or(name).clone();
    for mut node in branch.nodes {
        node.rename_reads(&renamed);
        node.outputs = node.outputs.iter().map(own).collect();
        graph.nodes.push(node);
    }
    for (name, value) in branch.initializers {
        graph.initializers.insert(own(&name), value);
    }
    for (given, output) in branch.outputs.iter().zip(outputs) {
        graph.nodes.push(Node::new("Identity", &[&own(&given.name)], &[&output]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine;
    use crate::graph::Dim;
    use crate::rewrite::known_inputs;
    use crate::shapes;
    use crate::tensor::Tensor;

    fn branch(nodes: Vec<Node>, output: &str) -> Attribute {
        let outputs = vec![ValueSpec::new(output, DType::F32, &[])];
        Attribute::Graph(Box::new(Graph { nodes, outputs, ..Graph::default() }))
    }

    fn by_hand(nodes: Vec<Node>, initializers: Vec<(&str, Tensor)>) -> Graph {
        let extents = [Dim::Symbol("batch".to_owned()), Dim::Fixed(2)];
        let graph = Graph {
            name: "by hand".to_owned(),
            opsets: BTreeMap::from([(String::new(), 17)]),
            inputs: vec![
                ValueSpec::new("x", DType::F32, &extents),
                ValueSpec::new("rate", DType::I64, &[]),
            ],
            outputs: vec![ValueSpec::new("y", DType::F32, &[])],
            nodes,
            initializers: initializers.into_iter().map(|(n, t)| (n.to_owned(), t)).collect(),
            ..Graph::default()
        };
        graph.validate().expect("a graph by hand is sound");
        graph
    }

    fn choice(condition: &str, output: &str, then: Attribute, otherwise: Attribute) -> Node {
        Node::new("If", &[condition], &[output])
            .with("then_branch", then)
            .with("else_branch", otherwise)
    }

    /// Runs it on one row for `rate`, as a session would.
    fn answer(graph: &Graph, rate: i64) -> Vec<f32> {
        let inputs = [Tensor::from_f32(&[1, 2], &[1.0, 2.0]), Tensor::from_i64(&[], &[rate])];
        let facts = shapes::known(&inputs, &controls(graph));
        let mut graph = known_inputs::fix(graph, &facts).into_owned();
        assert!(run(&mut graph, &facts, &engine::shape_constant) > 0);
        graph.validate().expect("a pass leaves a sound graph");
        assert!(graph.nodes.iter().all(|node| !node.is("If")), "{:?}", graph.nodes);
        engine::evaluate(&graph, &inputs).expect("it runs")[0].to_f32().expect("f32")
    }

    #[test]
    fn an_input_chooses_the_branch_and_a_shape_the_one_inside() {
        // if rate == 8: if batch == 1: squeeze x, else x, doubled; else -x. The ranks differ.
        let two = |name: &str| {
            Node::new("Constant", &[], &[name]).with("value_float", Attribute::Float(2.0))
        };
        let inside = choice(
            "single",
            "row",
            branch(vec![Node::new("Squeeze", &["x", "zero"], &["v"])], "v"),
            branch(vec![Node::new("Identity", &["x"], &["v"])], "v"),
        );
        let doubled = vec![inside, two("two"), Node::new("Mul", &["row", "two"], &["v"])];
        let nodes = vec![
            Node::new("Equal", &["rate", "eight"], &["slow"]),
            Node::new("Shape", &["x"], &["shape"]),
            Node::new("Gather", &["shape", "zero"], &["rows"]),
            Node::new("Equal", &["rows", "one"], &["single"]),
            choice(
                "slow",
                "y",
                branch(doubled, "v"),
                branch(vec![Node::new("Neg", &["x"], &["v"])], "v"),
            ),
        ];
        let graph = by_hand(
            nodes,
            vec![
                ("eight", Tensor::from_i64(&[], &[8])),
                ("zero", Tensor::from_i64(&[1], &[0])),
                ("one", Tensor::from_i64(&[1], &[1])),
            ],
        );
        assert_eq!(controls(&graph), [1], "the shape of `x` decides, its values do not");
        assert_eq!(answer(&graph, 8), [2.0, 4.0]);
        assert_eq!(answer(&graph, 16), [-1.0, -2.0]);
    }

    #[test]
    fn a_condition_on_values_stays() {
        let nodes = vec![
            Node::new("ReduceSum", &["x"], &["sum"]).with("keepdims", Attribute::Int(0)),
            Node::new("Greater", &["sum", "zero"], &["positive"]),
            choice(
                "positive",
                "y",
                branch(vec![Node::new("Neg", &["x"], &["v"])], "v"),
                branch(vec![Node::new("Abs", &["x"], &["v"])], "v"),
            ),
        ];
        let mut graph = by_hand(nodes, vec![("zero", Tensor::from_f32(&[], &[0.0]))]);
        let facts = [Fact::new(DType::F32, &[1, 2]), Fact::new(DType::I64, &[])];
        assert_eq!(run(&mut graph, &facts, &engine::shape_constant), 0);
    }
}
