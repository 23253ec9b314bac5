//! What follows a `dram.Conv` moves into it: a residual, a function of one number, a residual after that.
//! `dram.Conv(x, weight, bias, residual, slopes)` with `residual` = `before` | `after`:
//! `y = function(conv + bias + residual) · scale + shift`, or the residual added last.
//! A product of an image with one factor a channel becomes `dram.Scale`.
//!
//! Refused: a convolution whose plain result something else reads too; a residual that is a constant.

use super::function::Curve;
use crate::graph::{Attribute, Graph, Node};
use crate::optimize::pattern::{Rewrite, View, rewrite_all};

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut total = 0;
    // A convolution takes one more with each round; a chain has three at most.
    for find in [function, residual, function] {
        total += rewrite_all(graph, find);
        graph.remove_dead();
    }
    total + rewrite_all(graph, scale)
}

fn function(view: &View, index: usize) -> Option<Rewrite> {
    let node = view.node(index);
    let x = node.input(0)?;
    if !node.is_fused("Pointwise") && Curve::of(view, node).is_none() {
        return None;
    }
    let conv = lone_conv(view, x)?;
    let bent = conv.attributes.contains_key("activation");
    // After a residual that was added to a bent sum there is no place for a function.
    if bent || conv.string("residual", "before") != "before" {
        return None;
    }
    let mut fused = Node { name: node.name.clone(), outputs: node.outputs.clone(), ..conv.clone() };
    if let Some(curve) = Curve::of(view, node) {
        fused = curve.written_to(fused);
    } else {
        fused.attributes.extend(node.attributes.clone());
        if let Some(slopes) = node.input(1) {
            fused.inputs.resize(4, String::new());
            fused.inputs.push(slopes.to_owned());
        }
    }
    if conv.input(3).is_some() {
        fused = fused.with("residual", Attribute::String("before".to_owned()));
    }
    Some(Rewrite::new(index, fused))
}

fn residual(view: &View, index: usize) -> Option<Rewrite> {
    let node = view.node(index);
    if !node.is("Add") {
        return None;
    }
    view.both_orders(node)?.into_iter().find_map(|(sum, residual)| {
        let conv = lone_conv(view, sum)?;
        if conv.input(3).is_some() || view.constant(residual).is_some() || sum == residual {
            return None;
        }
        let mut fused =
            Node { name: node.name.clone(), outputs: node.outputs.clone(), ..conv.clone() };
        fused.inputs.resize(fused.inputs.len().max(4), String::new());
        residual.clone_into(&mut fused.inputs[3]);
        let place = if conv.attributes.contains_key("activation") { "after" } else { "before" };
        Some(Rewrite::new(index, fused.with("residual", Attribute::String(place.to_owned()))))
    })
}

fn lone_conv<'a>(view: &View<'a>, value: &str) -> Option<&'a Node> {
    let conv = view.writer(value).filter(|node| node.is_fused("Conv"))?;
    (view.graph.uses(value) == 1).then_some(conv)
}

fn scale(view: &View, index: usize) -> Option<Rewrite> {
    let node = view.node(index);
    if !node.is("Mul") {
        return None;
    }
    view.both_orders(node)?.into_iter().find_map(|(x, factors)| {
        let image = view.writer(x)?;
        let an_image = ["Conv", "Pool", "Scale"].iter().any(|op| image.is_fused(op))
            || (image.is_fused("Pointwise") && of_a_conv(view, image));
        (an_image && !pooled(view, x) && pooled(view, factors)).then(|| {
            let fused = Node::fused("Scale", &[x, factors], &[node.output()]);
            Rewrite::new(index, Node { name: node.name.clone(), ..fused })
        })
    })
}

fn of_a_conv(view: &View, node: &Node) -> bool {
    node.input(0).and_then(|x| view.writer(x)).is_some_and(|writer| writer.is_fused("Conv"))
}

/// Whether `value` surely has one cell a channel: it comes of a whole image's pooling by convolutions over one
/// cell and functions of one number.
fn pooled(view: &View, value: &str) -> bool {
    let mut value = value;
    while let Some(node) = view.writer(value) {
        let of_a_cell = node.is_fused("Conv")
            && node.ints("kernel") == Some(&[1, 1])
            && node.ints("pads").is_some_and(|pads| pads.iter().all(|&pad| pad == 0));
        let passes = of_a_cell || node.is_fused("Pointwise") || Curve::of(view, node).is_some();
        match node.input(0).filter(|_| passes) {
            Some(x) => value = x,
            None => return node.is_fused("GlobalPool"),
        }
    }
    false
}
