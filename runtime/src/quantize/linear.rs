//! `dram.Linear(x, weight, bias, residual)` to `dram.LinearF32(x, panels, bias, residual)` or
//! `dram.LinearInt8(x, panels, column_sums, scales, bias, residual)`; to `dram.LinearF16` with the inputs of the
//! first, or `dram.LinearInt4(x, panels, column_sums, scales, bias, multipliers, residual)`; attributes `k`, `n` and
//! `activation`. The layouts are those of [`crate::kernels`].

use super::{Packed, finite};
use crate::error::{Error, Result};
use crate::graph::{Attribute, Graph, Node};
use crate::kernels::{
    PANEL, column_sums, pack_f32 as panels_f32, pack_groups, pack_i8, pad_columns,
    quantize_columns, quantize_groups, to_f16, widened_steps,
};
use crate::tensor::{DType, Tensor};

pub(super) fn pack_f32(graph: &Graph, node: Node) -> Result<Packed> {
    let layer = Layer::of(graph, &node)?;
    let panels = panels_f32(&layer.weight, layer.k, layer.n);
    let constants = [
        ("panels", Tensor::from_f32(&[layer.n.div_ceil(PANEL), layer.k, PANEL], &panels)),
        ("bias", padded(&layer.bias)),
    ];
    Ok(layer.stored("LinearF32", node, constants.into()))
}

pub(super) fn pack_int8(graph: &Graph, node: Node) -> Result<Packed> {
    let layer = Layer::of(graph, &node)?;
    let (weight, scales) = quantize_columns(&layer.weight, layer.k, layer.n);
    let packed = pack_i8(&weight, layer.k, layer.n).expect("rounding keeps within ±127");
    let shape = [layer.n.div_ceil(PANEL), layer.k.div_ceil(4), PANEL, 4];
    let sums = column_sums(&weight, layer.k, layer.n);
    let constants = [
        ("panels", Tensor::from_i8(&shape, &packed)),
        ("column_sums", Tensor::from_i32(&[sums.len()], &sums)),
        ("scales", padded(&scales)),
        ("bias", padded(&layer.bias)),
    ];
    Ok(layer.stored("LinearInt8", node, constants.into()))
}

pub(super) fn pack_f16(graph: &Graph, node: Node) -> Result<Packed> {
    let layer = Layer::of(graph, &node)?;
    let halves = to_f16(&panels_f32(&layer.weight, layer.k, layer.n));
    let shape = [layer.n.div_ceil(PANEL), layer.k, PANEL];
    if halves.contains(&F16_INFINITY) || halves.contains(&(F16_INFINITY | 0x8000)) {
        let place = format!("initializer `{}`", node.input(1).unwrap_or_default());
        return Err(Error::graph(place, "weights within ±65504, which f16 reaches", "larger ones"));
    }
    let bytes = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
    let constants =
        [("panels", Tensor::from_bytes(DType::F16, &shape, bytes)?), ("bias", padded(&layer.bias))];
    Ok(layer.stored("LinearF16", node, constants.into()))
}

/// In groups of so many inputs.
pub(super) fn pack_int4(graph: &Graph, node: Node, group: usize) -> Result<Packed> {
    let layer = Layer::of(graph, &node)?;
    let (k, n) = (layer.k, layer.n);
    let groups = quantize_groups(&layer.weight, k, n, group);
    let (packed, multipliers) = pack_groups(&groups, k, n);
    let sums = column_sums(&widened_steps(&groups, n), k, n);
    let count = n.div_ceil(PANEL);
    let bytes = |shape: &[usize], bytes| Tensor::from_bytes(DType::U8, shape, bytes);
    let constants = [
        ("panels", bytes(&[count, k.div_ceil(4), 2 * PANEL], packed)?),
        ("column_sums", Tensor::from_i32(&[sums.len()], &sums)),
        ("scales", padded(&groups.scales)),
        ("bias", padded(&layer.bias)),
        ("multipliers", bytes(&[count, k.div_ceil(group), PANEL], multipliers)?),
    ];
    let (node, constants) = layer.stored("LinearInt4", node, constants.into());
    Ok((node.with("block_size", Attribute::Int(group as i64)), constants))
}

/// A layer to be rounded, with the polynomial for GELU: what rounding takes off the products is a hundred times what
/// that is off by.
pub(super) fn with_near_gelu(node: Node) -> Node {
    match node.string("activation", "none") {
        "gelu" if node.is_fused("Linear") => {
            node.with("activation", Attribute::String("gelu_polynomial".to_owned()))
        }
        _ => node,
    }
}

/// The bits of what is beyond f16.
const F16_INFINITY: u16 = 0x7c00;

struct Layer {
    weight: Vec<f32>,
    bias: Vec<f32>,
    k: usize,
    n: usize,
}

impl Layer {
    fn of(graph: &Graph, node: &Node) -> Result<Layer> {
        let name = node.input(1).unwrap_or_default();
        let weight = finite(graph, name)?;
        let &[k, n] = graph.initializers[name].shape() else {
            return Err(Error::graph(
                node.place(),
                "a weight matrix",
                format!("`{name}` of another rank"),
            ));
        };
        let bias = match node.input(2) {
            Some(bias) => finite(graph, bias)?,
            None => vec![0.0; n],
        };
        Ok(Layer { weight, bias, k, n })
    }

    fn stored(&self, op: &str, node: Node, constants: Vec<(&str, Tensor)>) -> Packed {
        // Named after the output: two layers may share one weight, yet differ in bias.
        let name = |part: &str| format!("{}.{part}", node.output());
        let named: Vec<(String, Tensor)> =
            constants.into_iter().map(|(part, tensor)| (name(part), tensor)).collect();
        let mut inputs = vec![node.input(0).unwrap_or_default().to_owned()];
        inputs.extend(named.iter().map(|(name, _)| name.clone()));
        inputs.extend(node.input(3).map(str::to_owned));
        let stored = Node { op: op.to_owned(), inputs, ..node }
            .with("k", Attribute::Int(self.k as i64))
            .with("n", Attribute::Int(self.n as i64));
        (stored, named)
    }
}

fn padded(values: &[f32]) -> Tensor {
    let padded = pad_columns(values);
    Tensor::from_f32(&[padded.len()], &padded)
}
