//! A `Transpose` moves past the operators that do not mind the order of axes, until it meets its opposite:
//! between convolutions, channels then stay last.
//!
//! What it moves past: functions of one number, sums and products of two values that are transposed alike or
//! of one and a constant, `PRelu`, `Concat`, `Squeeze`, `Slice`, pooling, which becomes `dram.Pool`, and pooling of
//! whole images, which becomes `dram.GlobalPool`.
//!
//! Refused: values of which another order of axes is read too, where that would transpose more than before;
//! pooling with indices, rounded up, in columns or of what is not surely f32; constants of another rank.

use std::collections::BTreeMap;

use super::conv::window;
use super::function::Curve;
use crate::graph::{Attribute, Graph, Node};
use crate::optimize::pattern::{Rewrite, View, rewrite_all};
use crate::tensor::Tensor;

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut total = 0;
    // A transposition passes one operator a round, and every round moves one at least.
    loop {
        let count = rewrite_all(graph, find);
        graph.remove_dead();
        drop_identities(graph);
        total += count;
        if count == 0 {
            return total;
        }
    }
}

/// A value and the order in which a `Transpose` put its axes.
struct Turned<'a> {
    x: &'a str,
    order: Vec<usize>,
}

impl<'a> Turned<'a> {
    fn of(view: &View<'a>, value: &str) -> Option<Turned<'a>> {
        let node = view.written_by(value, "Transpose")?;
        Some(Turned { x: node.input(0)?, order: order_of(node)? })
    }

    /// Whether it moves channels from the end to the second place.
    fn is_channels_first(&self) -> bool {
        let rank = self.order.len();
        rank > 2 && self.order[1] == rank - 1 && self.order[2..].iter().copied().eq(1..rank - 1)
    }
}

fn order_of(node: &Node) -> Option<Vec<usize>> {
    let order = node.ints("perm")?.iter().map(|&axis| usize::try_from(axis).ok());
    let order: Vec<usize> = order.collect::<Option<_>>()?;
    let mut sorted = order.clone();
    sorted.sort_unstable();
    sorted.into_iter().eq(0..order.len()).then_some(order)
}

fn find(view: &View, index: usize) -> Option<Rewrite> {
    let node = view.node(index);
    if node.is("Transpose") {
        return merged(view, index);
    }
    let moved = moved_past(view, node)?;
    let Moved { node: inner, order, initializers } = moved;
    let value = format!("{}.last", node.output());
    let inner = Node { name: value.clone(), outputs: vec![value.clone()], ..inner };
    let nodes = vec![inner, transpose(&value, node.output(), &order)];
    Some(Rewrite { index, nodes, initializers })
}

/// Two transpositions become one, or none.
fn merged(view: &View, index: usize) -> Option<Rewrite> {
    let node = view.node(index);
    let (second, first) = (order_of(node)?, Turned::of(view, node.input(0)?)?);
    if first.order.len() != second.len() {
        return None;
    }
    let order: Vec<usize> = second.iter().map(|&axis| first.order[axis]).collect();
    let node = match order.iter().copied().eq(0..order.len()) {
        true => Node::new("Identity", &[first.x], &[node.output()]),
        false => transpose(first.x, node.output(), &order),
    };
    Some(Rewrite::new(index, node))
}

fn transpose(x: &str, y: &str, order: &[usize]) -> Node {
    let order = order.iter().map(|&axis| axis as i64).collect();
    Node::new("Transpose", &[x], &[y]).with("perm", Attribute::Ints(order))
}

/// An operator on values in their own order, and the order that its result is put in.
struct Moved {
    node: Node,
    order: Vec<usize>,
    initializers: Vec<(String, Tensor)>,
}

fn moved_past(view: &View, node: &Node) -> Option<Moved> {
    if Curve::of(view, node).is_some() || node.is_fused("Pointwise") {
        let x = Turned::of(view, node.input(0)?)?;
        // Slopes of channels belong to an order of their own.
        let mut inner = node.clone();
        x.x.clone_into(&mut inner.inputs[0]);
        return Some(Moved { node: inner, order: x.order, initializers: Vec::new() });
    }
    if !node.is_onnx() {
        return None;
    }
    match node.op.as_str() {
        "Add" | "Sub" | "Mul" | "Div" => arithmetic(view, node),
        "PRelu" => prelu(view, node),
        "Concat" => concat(view, node),
        "Squeeze" => squeeze(view, node),
        "Slice" => slice(view, node),
        "MaxPool" | "AveragePool" | "GlobalAveragePool" | "GlobalMaxPool" => pool(view, node),
        _ => None,
    }
}

fn arithmetic(view: &View, node: &Node) -> Option<Moved> {
    let (left, right) = (node.input(0)?, node.input(1)?);
    let turned = [Turned::of(view, left), Turned::of(view, right)];
    let inner = |left: &str, right: &str| {
        let mut inner = node.clone();
        inner.inputs = vec![left.to_owned(), right.to_owned()];
        inner
    };
    let moved = |node, order, initializers| Some(Moved { node, order, initializers });
    match turned {
        [Some(left), Some(right)] if left.order == right.order => {
            moved(inner(left.x, right.x), left.order, Vec::new())
        }
        [Some(x), None] => {
            let (name, constants) = turned_back(view, right, &x.order)?;
            moved(inner(x.x, &name), x.order, constants)
        }
        [None, Some(x)] => {
            let (name, constants) = turned_back(view, left, &x.order)?;
            moved(inner(&name, x.x), x.order, constants)
        }
        _ => None,
    }
}

/// The constant `name` as it broadcasts over a value whose axes were put into `order` after: its name, and
/// itself where it is new.
fn turned_back(
    view: &View,
    name: &str,
    order: &[usize],
) -> Option<(String, Vec<(String, Tensor)>)> {
    let tensor = view.constant(name)?;
    let rank = order.len();
    if tensor.len() == 1 && tensor.shape().len() <= 1 {
        return Some((name.to_owned(), Vec::new()));
    }
    let missing = rank.checked_sub(tensor.shape().len())?;
    let shape = [vec![1; missing], tensor.shape().to_vec()].concat();
    // Only one axis has an extent, so the elements stay in their order.
    let lone = shape.iter().filter(|&&extent| extent != 1).count() <= 1;
    let mut turned = vec![1; rank];
    order.iter().zip(&shape).for_each(|(&axis, &extent)| turned[axis] = extent);
    let tensor = lone.then(|| tensor.clone().reshaped(&turned).ok())??;
    let order: Vec<String> = order.iter().map(usize::to_string).collect();
    let name = format!("{name}.turned{}", order.concat());
    Some((name.clone(), vec![(name, tensor)]))
}

fn prelu(view: &View, node: &Node) -> Option<Moved> {
    let x = Turned::of(view, node.input(0)?)?;
    let (slopes, rank) = (view.constant(node.input(1)?)?, x.order.len());
    let values = slopes.to_f32().filter(|values| values.iter().all(|it| it.is_finite()))?;
    let axis = (slopes.shape().len() + 1).checked_sub(rank)?;
    let alone = slopes.shape().iter().enumerate().all(|(at, &extent)| extent == 1 || at == axis);
    if !x.is_channels_first() || !alone || values.len() < 2 {
        return None;
    }
    let name = format!("{}.slopes", node.output());
    let inner = Node::fused("Pointwise", &[x.x, &name], &[node.output()])
        .with("activation", Attribute::String("prelu".to_owned()));
    let initializers = vec![(name, Tensor::from_f32(&[values.len()], &values))];
    Some(Moved { node: inner, order: x.order, initializers })
}

fn concat(view: &View, node: &Node) -> Option<Moved> {
    let parts = node.inputs.iter().map(|input| Turned::of(view, input));
    let parts: Vec<Turned> = parts.collect::<Option<_>>()?;
    let order = parts.first()?.order.clone();
    let axis = axis_of(node.int("axis", 0), order.len())?;
    if parts.iter().any(|part| part.order != order) {
        return None;
    }
    let mut inner = node.clone().with("axis", Attribute::Int(order[axis] as i64));
    inner.inputs = parts.iter().map(|part| part.x.to_owned()).collect();
    Some(Moved { node: inner, order, initializers: Vec::new() })
}

fn squeeze(view: &View, node: &Node) -> Option<Moved> {
    let x = Turned::of(view, node.input(0)?)?;
    let axes = view.axes(node)?;
    let axes: Vec<usize> =
        axes.iter().map(|&it| axis_of(it, x.order.len())).collect::<Option<_>>()?;
    let gone: Vec<usize> = axes.iter().map(|&axis| x.order[axis]).collect();
    let left = x.order.iter().filter(|axis| !gone.contains(axis));
    // Axes behind one that went move up.
    let order = left.map(|axis| axis - gone.iter().filter(|it| *it < axis).count()).collect();
    let gone: Vec<i64> = gone.into_iter().map(|axis| axis as i64).collect();
    let mut inner = Node { inputs: vec![x.x.to_owned()], ..node.clone() };
    let mut initializers = Vec::new();
    if node.input(1).is_some() {
        let name = format!("{}.axes", node.output());
        inner.inputs.push(name.clone());
        initializers.push((name, Tensor::from_i64(&[gone.len()], &gone)));
    } else {
        inner = inner.with("axes", Attribute::Ints(gone));
    }
    Some(Moved { node: inner, order, initializers })
}

fn slice(view: &View, node: &Node) -> Option<Moved> {
    let x = Turned::of(view, node.input(0)?)?;
    let axes = view.integers(node.input(3)?)?;
    let axis = |&axis: &i64| Some(x.order[axis_of(axis, x.order.len())?] as i64);
    let axes: Vec<i64> = axes.iter().map(axis).collect::<Option<_>>()?;
    let mut inner = node.clone();
    let name = format!("{}.axes", node.output());
    inner.inputs[0] = x.x.to_owned();
    inner.inputs[3].clone_from(&name);
    let initializers = vec![(name, Tensor::from_i64(&[axes.len()], &axes))];
    Some(Moved { node: inner, order: x.order, initializers })
}

fn axis_of(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

fn pool(view: &View, node: &Node) -> Option<Moved> {
    let x = Turned::of(view, node.input(0)?)?;
    let usual = node.outputs.len() == 1
        && node.int("ceil_mode", 0) == 0
        && node.int("storage_order", 0) == 0
        && node.int("p", 2) == 2;
    if !usual || !view.is_f32(x.x) || !x.is_channels_first() || !(3..=4).contains(&x.order.len()) {
        return None;
    }
    let pooling = match (node.op.as_str(), node.int("count_include_pad", 0)) {
        ("MaxPool" | "GlobalMaxPool", _) => "max",
        (_, 0) => "mean",
        _ => "mean_of_all",
    };
    let global = node.op.starts_with("Global");
    let inner = Node::fused(if global { "GlobalPool" } else { "Pool" }, &[x.x], &[node.output()])
        .with("pooling", Attribute::String(pooling.to_owned()));
    let inner = if global { inner } else { window(inner, node, node.ints("kernel_shape")?)? };
    Some(Moved { node: inner, order: x.order, initializers: Vec::new() })
}

/// Reads what an `Identity` reads instead of it, but where it writes an output of the graph.
fn drop_identities(graph: &mut Graph) {
    let mut renamed: BTreeMap<String, String> = BTreeMap::new();
    let outputs: Vec<String> = graph.outputs.iter().map(|output| output.name.clone()).collect();
    graph.nodes.retain_mut(|node| {
        node.rename_reads(&renamed);
        let gone = node.is("Identity") && !outputs.iter().any(|output| output == node.output());
        if gone {
            renamed.insert(node.output().to_owned(), node.inputs[0].clone());
        }
        !gone
    });
}
