//! A product of one-hot rows with a table becomes a lookup in the table: `dram.Linear` of
//! `Cast(Equal(ids, 0 .. n))`, where the last axis of `ids` is 1, becomes `Gather(table, ids)`. An id beyond the
//! table made a row of zeros, and finds one now: the table gets a row of zeros before and after.
//!
//! What is then added to each row, and a function of each number, moves into the table.
//!
//! Refused: classes that are not 0, 1, 2 .. in order, ids whose last axis is not surely 1; a sum or a function
//! of rows that something else reads too, or from a table that another lookup reads.

use super::function::Curve;
use crate::graph::{Attribute, Graph, Node};
use crate::optimize::pattern::{Rewrite, View, rewrite_all};
use crate::tensor::Tensor;

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut total = rewrite_all(graph, product);
    for find in [sum, function] {
        graph.remove_dead();
        total += rewrite_all(graph, find);
    }
    total
}

fn product(view: &View, index: usize) -> Option<Rewrite> {
    let node = view.node(index);
    let plain = node.is_fused("Linear") && node.input(3).is_none();
    if !plain || node.attributes.contains_key("activation") {
        return None;
    }
    let table = view.constant(node.input(1)?)?;
    let &[classes, width] = table.shape() else { return None };
    let (ids, rank) = one_hot(view, node.input(0)?, classes)?;
    let bias = match node.input(2) {
        Some(bias) => view.constant(bias)?.to_f32()?,
        None => vec![0.0; width],
    };
    let none = vec![0.0; width];
    let rows = [none.clone(), table.to_f32()?, none].concat();
    let biased = rows.chunks_exact(width).flat_map(|row| row.iter().zip(&bias).map(|(x, b)| x + b));
    let biased: Vec<f32> = biased.collect();
    let name = |part: &str| format!("{}.{part}", node.output());
    let parts = ["squeezed", "integers", "raised", "above", "within"].map(name);
    let [squeezed, integers, raised, above, within] = parts.each_ref().map(String::as_str);
    let [axes, one, least, most, rows] = ["axes", "one", "least", "most", "rows"].map(name);
    let nodes = vec![
        squeeze(view, ids, &axes, rank - 1, squeezed),
        Node::new("Cast", &[squeezed], &[integers]).with("to", Attribute::Int(7)),
        Node::new("Add", &[integers, &one], &[raised]),
        Node::new("Max", &[raised, &least], &[above]),
        Node::new("Min", &[above, &most], &[within]),
        Node::new("Gather", &[&rows, within], &[node.output()]).with("axis", Attribute::Int(0)),
    ];
    let scalar = |value: i64| Tensor::from_i64(&[], &[value]);
    let initializers = vec![
        (axes, Tensor::from_i64(&[1], &[rank as i64 - 1])),
        (one, scalar(1)),
        (least, scalar(0)),
        (most, scalar(classes as i64 + 1)),
        (rows, Tensor::from_f32(&[classes + 2, width], &biased)),
    ];
    Some(Rewrite { index, nodes, initializers })
}

/// Axes are an attribute before opset 13, an input since.
fn squeeze(view: &View, x: &str, axes: &str, axis: usize, y: &str) -> Node {
    let opset = view.graph.opsets.get("").copied().unwrap_or(13);
    match opset < 13 {
        true => Node::new("Squeeze", &[x], &[y]).with("axes", Attribute::Ints(vec![axis as i64])),
        false => Node::new("Squeeze", &[x, axes], &[y]),
    }
}

/// Of one-hot rows of so many classes: the ids, whose last axis is 1, and their rank.
fn one_hot<'a>(view: &View<'a>, value: &str, classes: usize) -> Option<(&'a str, usize)> {
    let cast = view.written_by(value, "Cast").filter(|cast| cast.int("to", 0) == 1)?;
    let equal = view.written_by(cast.input(0)?, "Equal")?;
    view.both_orders(equal)?.into_iter().find_map(|(ids, numbers)| {
        let numbers = view.constant(numbers)?;
        let values = numbers
            .to_i64()
            .or_else(|| Some(numbers.to_i32()?.into_iter().map(i64::from).collect::<Vec<i64>>()))?;
        let in_order = values.iter().copied().eq(0..classes as i64);
        let along_the_last = numbers.shape().last() == Some(&classes);
        let rank = rank_of_lone_last_axis(view, ids)?;
        (in_order && along_the_last && numbers.shape().len() <= rank).then_some((ids, rank))
    })
}

/// The rank of `value` where its last axis is surely 1.
fn rank_of_lone_last_axis(view: &View, value: &str) -> Option<usize> {
    let (mut node, mut shapes) = (view.writer(value)?, Vec::new());
    while node.is("Expand") {
        shapes.push(node.input(1)?);
        node = view.writer(node.input(0)?)?;
    }
    let shape = node.is("Reshape").then(|| view.integers(node.input(1)?))??;
    let lone = shape.last() == Some(&1);
    let kept = shapes.into_iter().all(|extents| ends_with_one(view, extents, shape.len()));
    (lone && kept).then_some(shape.len())
}

/// Whether a shape of `rank` extents surely ends with 1: it is put together, and its last part is `[1]`.
fn ends_with_one(view: &View, shape: &str, rank: usize) -> bool {
    let mut shape = shape;
    while let Some(cast) = view.written_by(shape, "Cast") {
        shape = cast.input(0).unwrap_or_default();
    }
    if let Some(extents) = view.integers(shape) {
        return extents.len() == rank && extents.last() == Some(&1);
    }
    let Some(node) = view.written_by(shape, "Concat") else { return false };
    let last = node.inputs.last().and_then(|part| view.constant(part));
    let one =
        last.is_some_and(|part| part.to_i64() == Some(vec![1]) || part.to_i32() == Some(vec![1]));
    node.inputs.len() == rank && one
}

/// A constant added to each row that is looked up.
fn sum(view: &View, index: usize) -> Option<Rewrite> {
    let node = view.node(index);
    if !node.is("Add") {
        return None;
    }
    view.both_orders(node)?.into_iter().find_map(|(rows, terms)| {
        let (gather, table) = lone_lookup(view, rows)?;
        let width = *table.shape().last()?;
        let terms = view.constant(terms)?;
        // A lookup by ids of at least one axis has rank two, and no more is known of it here.
        let rank = terms.shape().len();
        let known = rank <= 1 || rank_of_ids(view, gather).is_some_and(|ids| rank <= ids + 1);
        let values = terms.to_f32().filter(|values| values.len() == width && known)?;
        let along_the_last = terms.shape().last() == Some(&width);
        let rows = table.to_f32()?;
        let moved = rows.chunks_exact(width);
        let moved = moved.flat_map(|row| row.iter().zip(&values).map(|(x, term)| x + term));
        along_the_last.then(|| looked_up(node, gather, index, table, moved.collect()))
    })
}

/// The rank of the ids of a lookup that [`product`] wrote.
fn rank_of_ids(view: &View, gather: &Node) -> Option<usize> {
    let mut node = view.written_by(gather.input(1)?, "Min")?;
    while !node.is("Squeeze") {
        node = view.writer(node.input(0)?)?;
    }
    rank_of_lone_last_axis(view, node.input(0)?).map(|rank| rank - 1)
}

fn function(view: &View, index: usize) -> Option<Rewrite> {
    let node = view.node(index);
    let curve = Curve::of(view, node).or_else(|| Curve::read(node))?;
    let (gather, table) = lone_lookup(view, node.input(0)?)?;
    let moved = table.to_f32()?.into_iter().map(|x| curve.scaled(f64::from(x)) as f32).collect();
    Some(looked_up(node, gather, index, table, moved))
}

/// A lookup whose plain result, and whose table, nothing else reads.
fn lone_lookup<'a>(view: &View<'a>, value: &str) -> Option<(&'a Node, &'a Tensor)> {
    let gather = view.written_by(value, "Gather").filter(|node| node.int("axis", 0) == 0)?;
    let table = view.constant(gather.input(0)?).filter(|table| table.shape().len() == 2)?;
    table.to_f32()?;
    let alone = view.graph.uses(value) == 1 && view.graph.uses(gather.input(0)?) == 1;
    alone.then_some((gather, table))
}

fn looked_up(
    node: &Node,
    gather: &Node,
    index: usize,
    table: &Tensor,
    values: Vec<f32>,
) -> Rewrite {
    let name = format!("{}.rows", node.output());
    let mut inputs = gather.inputs.clone();
    inputs[0].clone_from(&name);
    let moved =
        Node { name: node.name.clone(), outputs: node.outputs.clone(), inputs, ..gather.clone() };
    let initializers = vec![(name, Tensor::from_f32(table.shape(), &values))];
    Rewrite { initializers, ..Rewrite::new(index, moved) }
}

#[cfg(test)]
mod tests {
    use super::super::pattern::by_hand::{after, graph};
    use super::*;
    use crate::engine;

    fn nodes(shape: &str) -> Vec<Node> {
        vec![
            Node::new("Reshape", &["input_ids", shape], &["column"]),
            Node::new("Equal", &["column", "numbers"], &["equal"]),
            Node::new("Cast", &["equal"], &["one-hot"]).with("to", Attribute::Int(1)),
            Node::fused("Linear", &["one-hot", "table"], &["rows"]),
            Node::new("Add", &["rows", "bias"], &["sum"]),
            Node::new("Relu", &["sum"], &["y"]),
        ]
    }

    fn constants() -> Vec<(&'static str, Tensor)> {
        vec![
            ("column shape", Tensor::from_i64(&[3], &[0, -1, 1])),
            ("row shape", Tensor::from_i64(&[3], &[0, 1, -1])),
            ("numbers", Tensor::from_i64(&[1, 1, 3], &[0, 1, 2])),
            ("table", Tensor::from_f32(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, -6.0])),
            ("bias", Tensor::from_f32(&[1, 1, 2], &[10.0, -3.0])),
        ]
    }

    #[test]
    fn a_product_with_one_hot_rows_is_a_lookup_and_ids_beyond_it_find_zeros() {
        let (operators, graph) = after(run, graph(nodes("column shape"), constants()));
        assert_eq!(operators, ["Reshape", "Squeeze", "Cast", "Add", "Max", "Min", "Gather"]);
        let ids = Tensor::from_i64(&[1, 5], &[2, 0, -1, 3, 1]);
        let y = engine::evaluate(&graph, &[ids]).expect("tract runs it");
        // Rows 2, 0, none, none and 1, each plus the bias, and nothing below zero.
        let expected = [15.0, 0.0, 11.0, 0.0, 10.0, 0.0, 10.0, 0.0, 13.0, 1.0];
        assert_eq!(y[0].to_f32(), Some(expected.to_vec()));
    }

    #[test]
    fn ids_along_another_axis_and_classes_in_another_order_stay_products() {
        let (operators, _) = after(run, graph(nodes("row shape"), constants()));
        assert!(operators.contains(&"Linear".to_owned()));
        let mut constants = constants();
        constants[2].1 = Tensor::from_i64(&[1, 1, 3], &[0, 2, 1]);
        let (operators, _) = after(run, graph(nodes("column shape"), constants));
        assert!(operators.contains(&"Linear".to_owned()));
    }
}
