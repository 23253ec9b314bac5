//! `(x - mean(x)) / sqrt(mean((x - mean(x))²) + ε) · γ + β` over the last axis, spelled out by
//! exporters before opset 17, becomes one `LayerNormalization`.
//!
//! Refused: another axis than the last, a γ or β that is no constant, a square that is neither
//! `Pow 2` nor a product with itself.

use crate::graph::{Attribute, Graph, Node};
use crate::optimize::pattern::{Rewrite, View, rewrite_all};

pub(super) fn run(graph: &mut Graph) -> usize {
    rewrite_all(graph, find)
}

fn find(view: &View, index: usize) -> Option<Rewrite> {
    let add = view.node(index);
    if !add.is("Add") {
        return None;
    }
    let orders = view.both_orders(add)?;
    orders.into_iter().find_map(|(product, beta)| {
        view.constant(beta)?;
        let mul = view.written_by(product, "Mul")?;
        view.both_orders(mul)?.into_iter().find_map(|(normal, gamma)| {
            view.constant(gamma)?;
            let (x, epsilon) = normalized(view, normal)?;
            let node = Node::new("LayerNormalization", &[x, gamma, beta], &[add.output()])
                .with("axis", Attribute::Int(-1))
                .with("epsilon", Attribute::Float(epsilon));
            Some(Rewrite::new(index, node))
        })
    })
}

/// Of `(x - mean) / sqrt(variance + ε)`: `x` and ε.
fn normalized<'a>(view: &View<'a>, value: &str) -> Option<(&'a str, f32)> {
    let div = view.written_by(value, "Div")?;
    let (centered, deviation) = (div.input(0)?, div.input(1)?);
    let x = centered_on_mean(view, centered)?;
    let sqrt = view.written_by(deviation, "Sqrt")?;
    let plus = view.written_by(sqrt.input(0)?, "Add")?;
    let (epsilon, variance) = view.scalar_and_other(plus)?;
    let square = mean_over_last_axis(view, variance)?;
    let squared = square_of(view, square)?;
    // Some exporters compute the difference twice; it must be the same difference.
    let same = squared == centered || centered_on_mean(view, squared) == Some(x);
    same.then_some((x, epsilon))
}

fn centered_on_mean<'a>(view: &View<'a>, value: &str) -> Option<&'a str> {
    let sub = view.written_by(value, "Sub")?;
    let x = sub.input(0)?;
    (mean_over_last_axis(view, sub.input(1)?)? == x).then_some(x)
}

fn mean_over_last_axis<'a>(view: &View<'a>, value: &str) -> Option<&'a str> {
    let mean = view.written_by(value, "ReduceMean")?;
    (view.axes(mean)? == [-1] && mean.int("keepdims", 1) == 1).then(|| mean.input(0))?
}

fn square_of<'a>(view: &View<'a>, value: &str) -> Option<&'a str> {
    let node = view.writer(value)?;
    let base = node.input(0)?;
    let squared = (node.is("Pow") && view.scalar(node.input(1)?) == Some(2.0))
        || (node.is("Mul") && node.input(1) == Some(base));
    squared.then_some(base)
}

#[cfg(test)]
mod tests {
    use super::super::pattern::by_hand::{after, graph, scalar};
    use super::*;
    use crate::tensor::Tensor;

    fn spelled_out(axis: i64) -> Graph {
        let mean = |node: Node| node.with("axes", Attribute::Ints(vec![axis]));
        let nodes = vec![
            mean(Node::new("ReduceMean", &["x"], &["mean"])),
            Node::new("Sub", &["x", "mean"], &["centered"]),
            Node::new("Pow", &["centered", "two"], &["square"]),
            mean(Node::new("ReduceMean", &["square"], &["variance"])),
            Node::new("Add", &["variance", "epsilon"], &["guarded"]),
            Node::new("Sqrt", &["guarded"], &["deviation"]),
            Node::new("Div", &["centered", "deviation"], &["normal"]),
            Node::new("Mul", &["normal", "gamma"], &["scaled"]),
            Node::new("Add", &["scaled", "beta"], &["y"]),
        ];
        let pair = || Tensor::from_f32(&[2], &[1.0, 2.0]);
        let constants = vec![
            ("two", scalar(2.0)),
            ("epsilon", scalar(1e-12)),
            ("gamma", pair()),
            ("beta", pair()),
        ];
        graph(nodes, constants)
    }

    #[test]
    fn nine_operators_become_one() {
        let (operators, graph) = after(run, spelled_out(-1));
        assert_eq!(operators, ["LayerNormalization"]);
        assert_eq!(graph.nodes[0].inputs, ["x", "gamma", "beta"]);
        assert_eq!(graph.nodes[0].float("epsilon", 0.0), 1e-12);
    }

    #[test]
    fn another_axis_is_left_alone() {
        assert_eq!(after(run, spelled_out(1)).0.len(), 9);
    }
}
