//! `CumProd` along a known axis, counted from the front: a `Scan` whose state is the product so far.

use super::body::Body;
use crate::graph::{Attribute, Graph, Node, ValueSpec};
use crate::tensor::DType;

pub(super) fn write(body: &mut Body) -> Option<()> {
    let node = body.node;
    let input = node.input(0)?;
    let axis = *body.known_ints(node.input(1)?)?.first()?;
    let axis = match axis {
        0.. => axis,
        _ => axis + body.known_shape(input)?.len() as i64,
    };
    let zero = body.int(0);
    let slice = body.with("Gather", &[input, &zero], &[("axis", Attribute::Int(axis))]);
    let shape = body.op("Shape", &[&slice]);
    let one = body.float(1.0);
    let one = body.op("CastLike", &[&one, input]);
    let ones = body.op("Expand", &[&one, &shape]);

    let backwards = Attribute::Ints(vec![node.int("reverse", 0)]);
    let (last, products) = (body.fresh("last"), body.fresh("products"));
    let step = step(&last, body.known_dtype(input)?, node.int("exclusive", 0) == 1);
    body.push(
        Node::new("Scan", &[&ones, input], &[&last, &products])
            .with("body", Attribute::Graph(Box::new(step)))
            .with("num_scan_inputs", Attribute::Int(1))
            .with("scan_input_axes", Attribute::Ints(vec![axis]))
            .with("scan_output_axes", Attribute::Ints(vec![axis]))
            .with("scan_input_directions", backwards.clone())
            .with("scan_output_directions", backwards),
    );
    body.give(0, &products);
    Some(())
}

/// From the product so far and the next factor to the new product and what is given out.
fn step(prefix: &str, dtype: DType, exclusive: bool) -> Graph {
    let [before, factor, after, given] =
        ["before", "factor", "after", "given"].map(|name| format!("{prefix}/{name}"));
    let value = |name: &String| ValueSpec::new(name, dtype, &[]);
    Graph {
        name: "product".to_owned(),
        inputs: [&before, &factor].map(value).to_vec(),
        outputs: [&after, &given].map(value).to_vec(),
        nodes: vec![
            Node::new("Mul", &[&before, &factor], &[&after]),
            Node::new("Identity", &[if exclusive { &before } else { &after }], &[&given]),
        ],
        ..Graph::default()
    }
}
