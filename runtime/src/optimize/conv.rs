//! `Conv` with constant weights becomes `dram.Conv(x, weight, bias)` over images whose channels come last,
//! between two `Transpose` that [`super::channels_last`] moves away. One axis is taken for two, of which the
//! first is 1.
//!
//! Refused: weights that are no finite f32 constant of rank 3 or 4, a bias that is no constant, padding that
//! is neither given nor `SAME` nor `VALID`, negative padding.

use crate::graph::{Attribute, Graph, Node};
use crate::optimize::marks;
use crate::optimize::pattern::{Rewrite, View, rewrite_all};

pub(super) fn run(graph: &mut Graph) -> usize {
    rewrite_all(graph, find)
}

fn find(view: &View, index: usize) -> Option<Rewrite> {
    let node = view.node(index);
    if !node.is("Conv") || node.outputs.len() != 1 {
        return None;
    }
    let weight = view.constant(node.input(1)?)?;
    let values = weight.to_f32()?;
    let shape = weight.shape();
    let axes = shape.len().checked_sub(2).filter(|axes| (1..=2).contains(axes))?;
    let group = usize::try_from(node.int("group", 1)).ok().filter(|&group| group > 0)?;
    let usual = !values.is_empty()
        && values.iter().all(|value| value.is_finite())
        && shape[0].is_multiple_of(group);
    if !usual || node.input(2).is_some_and(|bias| view.constant(bias).is_none()) {
        return None;
    }
    let mut initializers = Vec::new();
    let mut name = node.input(1)?.to_owned();
    if axes == 1 {
        name = format!("{name}.image");
        let image = weight.clone().reshaped(&[shape[0], shape[1], 1, shape[2]]).ok()?;
        initializers.push((name.clone(), image));
    }
    let kernel: Vec<i64> = shape[2..].iter().map(|&extent| extent as i64).collect();
    let (before, after) = (format!("{}.last", node.output()), format!("{}.conv", node.output()));
    let mut inputs = vec![before.as_str(), &name];
    inputs.extend(node.input(2));
    let fused = window(Node::fused("Conv", &inputs, &[&after]), node, &kernel)?
        .with("group", Attribute::Int(group as i64));
    let fused = marks::carry(node, fused);
    let nodes = vec![
        transpose(node.input(0)?, &before, &to_last(axes + 2)),
        fused,
        transpose(&after, node.output(), &to_first(axes + 2)),
    ];
    Some(Rewrite { index, nodes, initializers })
}

/// `fused` with kernel, strides, dilations and padding as those of `node`, whose kernel that is.
pub(super) fn window(fused: Node, node: &Node, kernel: &[i64]) -> Option<Node> {
    let axes = kernel.len();
    let spread = |values: Option<&[i64]>, usual: i64| {
        let values = values.map_or_else(|| vec![usual; axes], <[i64]>::to_vec);
        let fits = values.len() == axes && values.iter().all(|&value| value > 0);
        fits.then(|| Attribute::Ints([vec![1; 2 - axes], values].concat()))
    };
    let fused = fused
        .with("kernel", spread(Some(kernel), 1)?)
        .with("strides", spread(node.ints("strides"), 1)?)
        .with("dilations", spread(node.ints("dilations"), 1)?);
    let same = match node.string("auto_pad", "NOTSET") {
        "NOTSET" => None,
        "VALID" => return Some(fused.with("pads", Attribute::Ints(vec![0; 4]))),
        "SAME_UPPER" => Some("same_upper"),
        "SAME_LOWER" => Some("same_lower"),
        _ => return None,
    };
    if let Some(same) = same {
        return Some(fused.with("padding", Attribute::String(same.to_owned())));
    }
    let pads = node.ints("pads").map_or_else(|| vec![0; 2 * axes], <[i64]>::to_vec);
    if pads.len() != 2 * axes || pads.iter().any(|&pad| pad < 0) {
        return None;
    }
    let half = |pads: &[i64]| [vec![0; 2 - axes], pads.to_vec()].concat();
    let pads = [half(&pads[..axes]), half(&pads[axes..])].concat();
    Some(fused.with("pads", Attribute::Ints(pads)))
}

/// Where each axis comes from when the channels move to the end.
fn to_last(rank: usize) -> Vec<i64> {
    let rank = rank as i64;
    [0].into_iter().chain(2..rank).chain([1]).collect()
}

/// Where each axis comes from when the channels move back.
fn to_first(rank: usize) -> Vec<i64> {
    let rank = rank as i64;
    [0, rank - 1].into_iter().chain(1..rank - 1).collect()
}

fn transpose(x: &str, y: &str, order: &[i64]) -> Node {
    Node::new("Transpose", &[x], &[y]).with("perm", Attribute::Ints(order.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::super::pattern::by_hand::{after, graph};
    use super::*;
    use crate::tensor::Tensor;

    fn weight(shape: &[usize]) -> Tensor {
        Tensor::from_f32(shape, &vec![1.0; shape.iter().product()])
    }

    #[test]
    fn a_convolution_over_a_line_is_one_over_an_image_of_one_row() {
        let conv = Node::new("Conv", &["x", "w"], &["y"])
            .with("strides", Attribute::Ints(vec![2]))
            .with("pads", Attribute::Ints(vec![1, 0]));
        let (operators, graph) = after(run, graph(vec![conv], vec![("w", weight(&[4, 3, 5]))]));
        assert_eq!(operators, ["Transpose", "Conv", "Transpose"]);
        let fused = &graph.nodes[1];
        assert_eq!(fused.ints("kernel"), Some(&[1, 5][..]));
        assert_eq!(fused.ints("strides"), Some(&[1, 2][..]));
        assert_eq!(fused.ints("pads"), Some(&[0, 1, 0, 0][..]));
        assert_eq!(graph.initializers["w.image"].shape(), [4, 3, 1, 5]);
        assert_eq!(graph.nodes[2].ints("perm"), Some(&[0, 2, 1][..]));
    }

    #[test]
    fn what_it_does_not_understand_it_leaves_alone() {
        let conv = || Node::new("Conv", &["x", "w"], &["y"]);
        let cases = [
            (conv().with("pads", Attribute::Ints(vec![-1, 0, 0, 0])), weight(&[2, 2, 3, 3])),
            (conv().with("auto_pad", Attribute::String("OTHER".into())), weight(&[2, 2, 3, 3])),
            (conv().with("group", Attribute::Int(2)), weight(&[3, 2, 3, 3])),
            (conv(), weight(&[2, 2, 3, 3, 3])),
            (conv(), Tensor::from_f32(&[1, 1, 1, 1], &[f32::NAN])),
        ];
        for (node, weight) in cases {
            assert_eq!(after(run, graph(vec![node.clone()], vec![("w", weight)])).0, ["Conv"]);
        }
    }
}
