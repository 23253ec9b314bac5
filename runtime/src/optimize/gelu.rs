//! `x · ½ · (1 + erf(x / √2))`, in the orders that exporters write it, becomes `dram.Gelu`
//! (ONNX: Gelu, approximate = "none").
//!
//! Refused: the tanh approximation, and constants that are not ½, 1 and √2 to f32 precision.

use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

use crate::graph::{Graph, Node};
use crate::optimize::pattern::{Rewrite, View, rewrite_all};

pub(super) fn run(graph: &mut Graph) -> usize {
    rewrite_all(graph, |view, index| {
        let node = view.node(index);
        let x = spelled_out(view, node).or_else(|| one_operator(node));
        x.map(|x| Rewrite::new(index, Node::fused("Gelu", &[x], &[node.output()])))
    })
}

fn one_operator(node: &Node) -> Option<&str> {
    let exact = node.is("Gelu") && node.string("approximate", "none") == "none";
    exact.then(|| node.input(0))?
}

/// The outermost product may multiply by ½ first, last or on the way.
fn spelled_out<'a>(view: &View<'a>, node: &'a Node) -> Option<&'a str> {
    if !node.is("Mul") {
        return None;
    }
    let half_outside = view.scalar_and_other(node).filter(|(scalar, _)| *scalar == 0.5);
    if let Some((_, product)) = half_outside {
        let inner = view.written_by(product, "Mul")?;
        return view
            .both_orders(inner)?
            .into_iter()
            .find_map(|(x, bracket)| (one_plus_erf(view, bracket)? == x).then_some(x));
    }
    view.both_orders(node)?.into_iter().find_map(|(left, right)| {
        halved(view, left).filter(|x| one_plus_erf(view, right) == Some(x)).or_else(|| {
            halved(view, right).and_then(|bracket| {
                let x = one_plus_erf(view, bracket)?;
                (x == left).then_some(x)
            })
        })
    })
}

fn halved<'a>(view: &View<'a>, value: &str) -> Option<&'a str> {
    let node = view.written_by(value, "Mul")?;
    view.scalar_and_other(node).filter(|(scalar, _)| *scalar == 0.5).map(|(_, other)| other)
}

/// Of `1 + erf(x / √2)`: `x`.
fn one_plus_erf<'a>(view: &View<'a>, value: &str) -> Option<&'a str> {
    let add = view.written_by(value, "Add")?;
    let (_, erf) = view.scalar_and_other(add).filter(|(scalar, _)| *scalar == 1.0)?;
    let erf = view.written_by(erf, "Erf")?;
    let scaled = view.writer(erf.input(0)?)?;
    // Exporters write √2 and 1/√2 with between six and nine digits.
    let close = |scalar: f32, exact: f32| (scalar - exact).abs() <= 1e-6;
    if scaled.is("Div") {
        let (x, divisor) = (scaled.input(0)?, view.scalar(scaled.input(1)?)?);
        return close(divisor, SQRT_2).then_some(x);
    }
    let (factor, x) = scaled.is("Mul").then(|| view.scalar_and_other(scaled))??;
    close(factor, FRAC_1_SQRT_2).then_some(x)
}

#[cfg(test)]
mod tests {
    use super::super::pattern::by_hand::{after, graph, scalar};
    use super::*;

    #[test]
    fn every_order_of_the_factors_is_recognized() {
        let bracket = |division: bool| {
            let scaled = match division {
                true => Node::new("Div", &["x", "root"], &["scaled"]),
                false => Node::new("Mul", &["x", "inverse"], &["scaled"]),
            };
            vec![
                scaled,
                Node::new("Erf", &["scaled"], &["erf"]),
                Node::new("Add", &["erf", "one"], &["bracket"]),
            ]
        };
        let endings = [
            [Node::new("Mul", &["x", "bracket"], &["p"]), Node::new("Mul", &["p", "half"], &["y"])],
            [Node::new("Mul", &["x", "half"], &["p"]), Node::new("Mul", &["p", "bracket"], &["y"])],
            [Node::new("Mul", &["half", "bracket"], &["p"]), Node::new("Mul", &["x", "p"], &["y"])],
        ];
        for (number, ending) in endings.into_iter().enumerate() {
            for division in [true, false] {
                let nodes = [bracket(division), ending.to_vec()].concat();
                let constants = vec![
                    ("root", scalar(SQRT_2)),
                    ("inverse", scalar(FRAC_1_SQRT_2)),
                    ("one", scalar(1.0)),
                    ("half", scalar(0.5)),
                ];
                let (operators, _) = after(run, graph(nodes, constants));
                assert_eq!(operators, ["Gelu"], "ending {number}, division {division}");
            }
        }
    }

    #[test]
    fn another_factor_is_no_gelu() {
        let nodes = vec![
            Node::new("Mul", &["x", "inverse"], &["scaled"]),
            Node::new("Erf", &["scaled"], &["erf"]),
            Node::new("Add", &["erf", "one"], &["bracket"]),
            Node::new("Mul", &["x", "bracket"], &["p"]),
            Node::new("Mul", &["p", "half"], &["y"]),
        ];
        let constants = vec![("inverse", scalar(0.7)), ("one", scalar(1.0)), ("half", scalar(0.5))];
        assert_eq!(after(run, graph(nodes, constants)).0.len(), 5);
    }
}
