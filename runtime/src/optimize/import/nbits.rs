//! onnxruntime's `MatMulNBits` becomes a product with the floats that its blocks of 4- or 8-bit weights
//! stand for, marked: `MatMul(x, w)`, and the bias after it.
//!
//! Refused: other widths, scales of f16, zero points that are no integers, reordered rows (`g_idx`), and
//! shapes that contradict each other.
//!
//! Source: `com.microsoft.MatMulNBits` among onnxruntime's contributed operators.

use crate::graph::{Graph, Node};
use crate::optimize::marks;
use crate::optimize::pattern::{Rewrite, View, rewrite_all};
use crate::tensor::{DType, Tensor};

pub(super) fn run(graph: &mut Graph) -> usize {
    rewrite_all(graph, find)
}

fn find(view: &View, index: usize) -> Option<Rewrite> {
    let node = view.node(index);
    if node.op != "MatMulNBits" || node.domain != "com.microsoft" || node.input(4).is_some() {
        return None;
    }
    let output = node.output();
    let name = format!("{output}.weight");
    let initializers = vec![(name.clone(), Blocks::of(view, node)?.weight()?)];
    let x = node.input(0)?;
    let nodes = match node.input(5) {
        None => vec![marks::quantized(Node::new("MatMul", &[x, &name], &[output]))],
        Some(bias) => {
            let product = format!("{output}.product");
            let matmul = Node::new("MatMul", &[x, &name], &[&product]);
            vec![marks::quantized(matmul), Node::new("Add", &[&product, bias], &[output])]
        }
    };
    Some(Rewrite { index, nodes, initializers })
}

/// Weights `[n, blocks, block · bits / 8]`, the columns of the product one after the other.
struct Blocks<'a> {
    k: usize,
    n: usize,
    bits: usize,
    block: usize,
    packed: &'a [u8],
    scales: Vec<f32>,
    /// Of each column rounded up to whole bytes.
    zero_points: Option<&'a [u8]>,
}

impl<'a> Blocks<'a> {
    fn of(view: &View<'a>, node: &Node) -> Option<Blocks<'a>> {
        let extent = |name: &str| usize::try_from(node.int(name, 0)).ok().filter(|&it| it > 0);
        let (k, n, block) = (extent("K")?, extent("N")?, extent("block_size")?);
        let bits =
            usize::try_from(node.int("bits", 4)).ok().filter(|bits| matches!(bits, 4 | 8))?;
        let bytes = |name: &str| {
            let tensor = view.constant(name)?;
            (tensor.dtype() == DType::U8).then(|| tensor.bytes())
        };
        let zero_points = match node.input(3) {
            None => None,
            Some(name) => Some(bytes(name)?),
        };
        let packed = bytes(node.input(1)?)?;
        let scales = view.constant(node.input(2)?)?.to_f32()?;
        let blocks = k.div_ceil(block);
        let of_column = blocks.checked_mul(block)?.checked_mul(bits)? / 8;
        let fits = packed.len() == of_column.checked_mul(n)?
            && scales.len() == blocks.checked_mul(n)?
            && zero_points.is_none_or(|it| it.len() == (blocks * bits).div_ceil(8) * n);
        fits.then_some(Blocks { k, n, bits, block, packed, scales, zero_points })
    }

    /// The floats, `[k, n]`.
    fn weight(&self) -> Option<Tensor> {
        let Blocks { k, n, block, .. } = *self;
        let blocks = k.div_ceil(block);
        let mut values = vec![0.0; k.checked_mul(n)?];
        for column in 0..n {
            let quantized = &self.packed[column * (self.packed.len() / n)..];
            for row in 0..k {
                let scale = self.scales[column * blocks + row / block];
                let zero_point = match self.zero_points {
                    None => 1 << (self.bits - 1),
                    Some(zeros) => self.number(&zeros[column * (zeros.len() / n)..], row / block),
                };
                let steps = i32::from(self.number(quantized, row)) - i32::from(zero_point);
                values[row * n + column] = steps as f32 * scale;
            }
        }
        Some(Tensor::from_f32(&[k, n], &values))
    }

    /// The number at `place` among those that lie packed in `bytes`, the lower bits first.
    fn number(&self, bytes: &[u8], place: usize) -> u8 {
        match self.bits {
            4 => bytes[place / 2] >> (place % 2 * 4) & 15,
            _ => bytes[place],
        }
    }
}
