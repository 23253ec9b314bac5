//! Multi-head self-attention becomes one wide linear layer and one `dram.Attention`.
//!
//! Recognized: three linear layers of the same `x` `[batch, sequence, hidden]`, each reshaped to
//! heads and transposed; scores `q · kᵀ`, scaled before or after the product; a bias made from a
//! mask; softmax over the keys; the product with `v`, transposed and reshaped back (Vaswani et
//! al. 2017, section 3.2.2). Result: `qkv = dram.Linear(x, [wq·scale | wk | wv])` and
//! `context = dram.Attention(qkv, mask)`, attribute `heads`; a key whose mask is 0 takes no part.
//!
//! Refused: a bias that is not "0 where the mask is 1, at most -1000 where it is 0" - checked by
//! computing it for an example mask -, heads of unequal widths, and cross-attention.

use crate::graph::{Attribute, Graph, Node};
use crate::optimize::marks;
use crate::optimize::pattern::{Rewrite, View, rewrite_all};
use crate::tensor::Tensor;

pub(super) fn run(graph: &mut Graph) -> usize {
    rewrite_all(graph, find)
}

/// A linear layer seen through the reshape and transpose into heads.
struct Heads<'a> {
    layer: &'a Node,
    x: &'a str,
    weight: Vec<f32>,
    bias: Vec<f32>,
    rows: usize,
    heads: usize,
}

const HEADS_FIRST: [i64; 4] = [0, 2, 1, 3];
const HEADS_FIRST_TRANSPOSED: [i64; 4] = [0, 2, 3, 1];

fn find(view: &View, index: usize) -> Option<Rewrite> {
    let merge = view.node(index);
    let back = view.written_by(merge.is("Reshape").then(|| merge.input(0))??, "Transpose")?;
    if back.ints("perm")? != HEADS_FIRST {
        return None;
    }
    let context = view.written_by(back.input(0)?, "MatMul")?;
    let softmax = view.written_by(context.input(0)?, "Softmax")?;
    if !matches!(softmax.int("axis", -1), -1 | 3) {
        return None;
    }
    let (scores, mask) = unmasked(view, softmax.input(0)?)?;
    let (product, scale) = unscaled(view, scores);
    let product = view.written_by(product, "MatMul")?;
    let (query, query_scale) = unscaled(view, product.input(0)?);
    let (key, key_scale) = unscaled(view, product.input(1)?);
    let query = heads(view, query, &HEADS_FIRST)?;
    let key = heads(view, key, &HEADS_FIRST_TRANSPOSED).or_else(|| transposed_key(view, key))?;
    let value = heads(view, context.input(1)?, &HEADS_FIRST)?;
    let alike = [&key, &value].iter().all(|other| {
        other.x == query.x
            && other.heads == query.heads
            && other.weight.len() == query.weight.len()
            && other.rows == query.rows
            && marks::alike(other.layer, query.layer)
    });
    if !alike {
        return None;
    }
    Some(fused(index, merge.output(), &mask, [query, key, value], scale * query_scale * key_scale))
}

fn fused(index: usize, output: &str, mask: &str, parts: [Heads; 3], scale: f32) -> Rewrite {
    let [query, key, value] = &parts;
    let (rows, width) = (query.rows, query.bias.len());
    let row = |part: &Heads, row: usize| part.weight[row * width..(row + 1) * width].to_vec();
    let scaled = |values: Vec<f32>| values.into_iter().map(move |value| value * scale);
    let weight: Vec<f32> = (0..rows)
        .flat_map(|r| scaled(row(query, r)).chain(row(key, r)).chain(row(value, r)))
        .collect();
    let bias: Vec<f32> = scaled(query.bias.clone())
        .chain(key.bias.iter().copied())
        .chain(value.bias.iter().copied())
        .collect();
    let named = |part: &str| format!("{output}.qkv{part}");
    let linear =
        Node::fused("Linear", &[query.x, &named(".weight"), &named(".bias")], &[&named("")]);
    let linear = marks::carry(query.layer, linear);
    let attention = Node::fused("Attention", &[&named(""), mask], &[output])
        .with("heads", Attribute::Int(query.heads as i64));
    Rewrite {
        index,
        nodes: vec![linear, attention],
        initializers: vec![
            (named(".weight"), Tensor::from_f32(&[rows, 3 * width], &weight)),
            (named(".bias"), Tensor::from_f32(&[3 * width], &bias)),
        ],
    }
}

/// Of `scores + bias(mask)`: the scores, and the mask.
fn unmasked<'a>(view: &View<'a>, value: &str) -> Option<(&'a str, String)> {
    let add = view.written_by(value, "Add")?;
    view.both_orders(add)?.into_iter().find_map(|(scores, bias)| {
        view.written_by(scores, "MatMul")
            .or_else(|| view.written_by(scores, "Mul"))
            .or_else(|| view.written_by(scores, "Div"))?;
        Some((scores, view.mask_of(bias, excludes_masked_keys)?))
    })
}

/// Whether a bias, made from the mask `[[1, 0, 1]]`, is `[1, 1, 1 or 3, 3]` and right.
fn excludes_masked_keys(bias: &Tensor) -> bool {
    let Some(values) = bias.to_f32() else { return false };
    bias.shape().last() == Some(&3)
        && values.chunks(3).all(|row| row[0] == 0.0 && row[1] <= -1e3 && row[2] == 0.0)
}

/// A value without the scalar it was multiplied with or divided by.
fn unscaled<'a>(view: &View<'a>, value: &'a str) -> (&'a str, f32) {
    let found = view.writer(value).and_then(|node| match node.op.as_str() {
        "Mul" if node.is_onnx() => view.scalar_and_other(node).map(|(scale, other)| (other, scale)),
        "Div" if node.is_onnx() => Some((node.input(0)?, 1.0 / view.scalar(node.input(1)?)?)),
        _ => None,
    });
    found.unwrap_or((value, 1.0))
}

/// A key that was transposed to heads first and only then for the product.
fn transposed_key<'a>(view: &View<'a>, value: &str) -> Option<Heads<'a>> {
    let last = view.written_by(value, "Transpose")?;
    (last.ints("perm")? == [0, 1, 3, 2]).then(|| heads(view, last.input(0)?, &HEADS_FIRST))?
}

fn heads<'a>(view: &View<'a>, value: &str, permutation: &[i64; 4]) -> Option<Heads<'a>> {
    let transpose = view.written_by(value, "Transpose")?;
    if transpose.ints("perm")? != permutation {
        return None;
    }
    let reshape = view.written_by(transpose.input(0)?, "Reshape")?;
    let linear = view.writer(reshape.input(0)?).filter(|node| node.is_fused("Linear"))?;
    if linear.attributes.contains_key("activation") || linear.input(3).is_some() {
        return None;
    }
    let weight = view.constant(linear.input(1)?)?;
    let &[rows, width] = weight.shape() else { return None };
    let bias = match linear.input(2) {
        Some(bias) => view.constant(bias)?.to_f32()?,
        None => vec![0.0; width],
    };
    let (heads, head_width) = head_extents(view, reshape.input(1)?, width)?;
    (heads * head_width == width && bias.len() == width).then(|| {
        let weight = weight.to_f32()?;
        Some(Heads { layer: linear, x: linear.input(0)?, weight, bias, rows, heads })
    })?
}

/// The last two extents of a reshape's target `[batch, sequence, heads, head width]`: a constant,
/// or a `Concat` that ends in constants; one of them may be left to inference as -1.
fn head_extents(view: &View, target: &str, width: usize) -> Option<(usize, usize)> {
    let last_two: Vec<i64> = match view.integers(target) {
        Some(extents) if extents.len() == 4 => extents[2..].to_vec(),
        Some(_) => return None,
        None => {
            let concat = view.written_by(target, "Concat")?;
            let [.., heads, head_width] = &concat.inputs[..] else { return None };
            if concat.inputs.len() != 4 {
                return None;
            }
            [heads, head_width]
                .iter()
                .map(|e| view.integers(e)?.first().copied())
                .collect::<Option<_>>()?
        }
    };
    let extent = |value: i64, other: i64| match value {
        -1 if other > 0 => Some(width / other as usize),
        _ => usize::try_from(value).ok().filter(|&extent| extent > 0),
    };
    Some((extent(last_two[0], last_two[1])?, extent(last_two[1], last_two[0])?))
}

#[cfg(test)]
mod tests {
    use super::super::pattern::by_hand::{after, graph, scalar};
    use super::*;

    /// One head of width two over `x`, with the bias `(1 - mask) * penalty`.
    fn one_head(penalty: f32, key_permutation: [i64; 4]) -> Graph {
        let linear =
            |part: &str| Node::fused("Linear", &["x", part, "b"], &[&format!("{part}.rows")]);
        let split = |part: &str, permutation: [i64; 4]| {
            let (rows, split) = (format!("{part}.rows"), format!("{part}.split"));
            [
                Node::new("Reshape", &[&rows, "split"], &[&split]),
                Node::new("Transpose", &[&split], &[&format!("{part}.heads")])
                    .with("perm", Attribute::Ints(permutation.to_vec())),
            ]
        };
        let mut nodes = vec![
            Node::new("Cast", &["attention_mask"], &["mask"]).with("to", Attribute::Int(1)),
            Node::new("Unsqueeze", &["mask", "axes"], &["wide"]),
            Node::new("Sub", &["one", "wide"], &["excluded"]),
            Node::new("Mul", &["excluded", "penalty"], &["bias"]),
        ];
        nodes.extend(["q", "k", "v"].map(linear));
        nodes.extend(split("q", HEADS_FIRST));
        nodes.extend(split("k", key_permutation));
        nodes.extend(split("v", HEADS_FIRST));
        nodes.extend([
            Node::new("MatMul", &["q.heads", "k.heads"], &["products"]),
            Node::new("Div", &["products", "root"], &["scores"]),
            Node::new("Add", &["scores", "bias"], &["masked"]),
            Node::new("Softmax", &["masked"], &["shares"]).with("axis", Attribute::Int(-1)),
            Node::new("MatMul", &["shares", "v.heads"], &["context"]),
            Node::new("Transpose", &["context"], &["back"])
                .with("perm", Attribute::Ints(HEADS_FIRST.to_vec())),
            Node::new("Reshape", &["back", "merge"], &["y"]),
        ]);
        let matrix =
            |scale: f32| Tensor::from_f32(&[2, 2], &[scale, 2.0 * scale, 3.0 * scale, 4.0 * scale]);
        let constants = vec![
            ("axes", Tensor::from_i64(&[2], &[1, 2])),
            ("one", scalar(1.0)),
            ("penalty", scalar(penalty)),
            ("q", matrix(1.0)),
            ("k", matrix(10.0)),
            ("v", matrix(100.0)),
            ("b", Tensor::from_f32(&[2], &[2.0, 4.0])),
            ("root", scalar(2.0)),
            ("split", Tensor::from_i64(&[4], &[0, 0, 1, 2])),
            ("merge", Tensor::from_i64(&[3], &[0, 0, 2])),
        ];
        graph(nodes, constants)
    }

    #[test]
    fn three_layers_merge_and_the_queries_are_scaled_beforehand() {
        let (operators, graph) = after(run, one_head(-1e4, HEADS_FIRST_TRANSPOSED));
        assert_eq!(operators, ["Linear", "Attention"]);
        assert_eq!(graph.nodes[1].inputs, ["y.qkv", "attention_mask"]);
        assert_eq!(graph.nodes[1].int("heads", 0), 1);
        // Rows of [q / 2 | k | v].
        let expected = [0.5, 1.0, 10.0, 20.0, 100.0, 200.0, 1.5, 2.0, 30.0, 40.0, 300.0, 400.0];
        assert_eq!(graph.initializers["y.qkv.weight"], Tensor::from_f32(&[2, 6], &expected));
        let bias = [1.0, 2.0, 2.0, 4.0, 2.0, 4.0];
        assert_eq!(graph.initializers["y.qkv.bias"], Tensor::from_f32(&[6], &bias));
    }

    #[test]
    fn a_bias_that_lets_masked_keys_through_is_no_mask() {
        let (operators, _) = after(run, one_head(-1.0, HEADS_FIRST_TRANSPOSED));
        assert!(!operators.contains(&"Attention".to_owned()));
    }

    #[test]
    fn untransposed_keys_are_no_attention() {
        let (operators, _) = after(run, one_head(-1e4, HEADS_FIRST));
        assert!(!operators.contains(&"Attention".to_owned()));
    }
}
