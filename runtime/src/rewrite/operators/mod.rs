//! Operators that tract lacks, or takes only in part, as operators that it has.
//!
//! Each pass is one file and one function: it writes, for one node, the function body that the ONNX
//! operator page gives, or an equal one. `None` leaves the node as it is: tract runs it, or refuses it
//! by name.

use std::borrow::Cow;

use crate::graph::{Dim, Graph, Node};
use crate::shapes::Fact;
use body::Body;

mod affine_grid;
mod attention;
mod body;
mod causal_conv;
mod center_crop_pad;
mod col2im;
mod compress;
mod constant_of_shape;
mod cum_prod;
mod dequantize_linear;
mod lp_pool;
mod mat_mul;
mod optional;
mod qlinear_mat_mul;
mod quantize_linear;
mod reduce;
mod tensor_scatter;
mod upsample;

type Pass = fn(&mut Body) -> Option<()>;

/// What writes the body of ONNX's operator `op`.
fn pass(op: &str) -> Option<Pass> {
    Some(match op {
        "AffineGrid" => affine_grid::write,
        "Attention" => attention::write,
        "CausalConvWithState" => causal_conv::write,
        "CenterCropPad" => center_crop_pad::write,
        "Col2Im" => col2im::write,
        "Compress" => compress::write,
        "ConstantOfShape" => constant_of_shape::write,
        "CumProd" => cum_prod::write,
        "DequantizeLinear" => dequantize_linear::write,
        "LpPool" => lp_pool::write,
        "MatMul" => mat_mul::write,
        "OptionalGetElement" => optional::write_get,
        "OptionalHasElement" => optional::write_has,
        "QLinearMatMul" => qlinear_mat_mul::write,
        "QuantizeLinear" => quantize_linear::write,
        "ReduceMax" | "ReduceMin" => reduce::write,
        "TensorScatter" => tensor_scatter::write,
        "Upsample" => upsample::write,
        _ => return None,
    })
}

/// Whether there is a pass for ONNX's operator `op`.
pub(crate) fn knows(op: &str) -> bool {
    pass(op).is_some()
}

/// `graph`, for inputs of these shapes, with the body of every node that a pass takes, subgraphs
/// included.
pub(crate) fn rewrite<'a>(graph: &'a Graph, inputs: &[Fact]) -> Cow<'a, Graph> {
    fn concerns(graph: &Graph) -> bool {
        let mut nodes = graph.nodes.iter();
        nodes.any(|node| (node.is_onnx() && knows(&node.op)) || node.subgraphs().any(concerns))
    }
    if !concerns(graph) {
        return Cow::Borrowed(graph);
    }
    let mut graph = graph.clone();
    for (input, fact) in graph.inputs.iter_mut().zip(inputs) {
        input.shape = fact.shape.iter().map(|&extent| Dim::Fixed(extent)).collect();
    }
    write_bodies(&mut graph);
    Cow::Owned(graph)
}

fn write_bodies(graph: &mut Graph) {
    for mut node in std::mem::take(&mut graph.nodes) {
        node.subgraphs_mut().for_each(write_bodies);
        match body(graph, &node) {
            None => graph.nodes.push(node),
            Some((nodes, constants)) => {
                graph.nodes.extend(nodes);
                graph.initializers.extend(constants);
            }
        }
    }
}

fn body(graph: &Graph, node: &Node) -> Option<body::Parts> {
    let write = pass(&node.op).filter(|_| node.is_onnx())?;
    let mut body = Body::new(graph, node);
    write(&mut body)?;
    Some(body.finish())
}
