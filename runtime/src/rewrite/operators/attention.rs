//! `Attention` with a soft cap, a Boolean mask, or the products of queries and keys among its outputs.
//!
//! Refused: key lengths as a seventh input. Everything else is left to tract.

use super::body::Body;
use crate::graph::Attribute;
use crate::tensor::DType;

pub(super) fn write(body: &mut Body) -> Option<()> {
    let node = body.node;
    let cap = node.float("softcap", 0.0);
    let mask = node.input(3);
    let masked = mask.is_some_and(|mask| body.known_dtype(mask) == Some(DType::Bool));
    let gives_products = node.outputs.get(3).is_some_and(|name| !name.is_empty());
    if node.input(6).is_some() || !(cap != 0.0 || masked || gives_products) {
        return None;
    }
    let [q, k, v] = [("q_num_heads", 0), ("kv_num_heads", 1), ("kv_num_heads", 2)];
    let [q, k, v] = [q, k, v].map(|(attribute, place)| {
        Some(split_heads(body, node.input(place)?, node.int(attribute, 0)))
    });
    let (q, k, v) = (q?, k?, v?);
    let k = after_past(body, node.input(4), k);
    let v = after_past(body, node.input(5), v);
    body.give(1, &k);
    body.give(2, &v);

    let products = products(body, &q, &k);
    let capped = soft_cap(body, &products, cap);
    let biased = add_mask(body, &capped, mask, masked);
    let biased = match node.int("is_causal", 0) {
        1 => add_causal_mask(body, &biased, node.input(4)),
        _ => biased,
    };
    let weights = softmax(body, &biased);
    let mode = node.int("qk_matmul_output_mode", 0);
    body.give(3, [&products, &capped, &biased, &weights].get(usize::try_from(mode).ok()?)?);
    let mixed = mix(body, &weights, &v);
    let mixed = match node.int("q_num_heads", 0) {
        0 => mixed,
        _ => {
            let tokens = transposed(body, &mixed, [0, 2, 1, 3]);
            let flat = body.ints(&[0, 0, -1]);
            body.op("Reshape", &[&tokens, &flat])
        }
    };
    body.give(0, &mixed);
    Some(())
}

/// `[batch, tokens, heads x width]` as `[batch, heads, tokens, width]`, which four axes are already.
fn split_heads(body: &mut Body, value: &str, heads: i64) -> String {
    if heads == 0 {
        return value.to_owned();
    }
    let shape = body.ints(&[0, 0, heads, -1]);
    let split = body.op("Reshape", &[value, &shape]);
    transposed(body, &split, [0, 2, 1, 3])
}

fn after_past(body: &mut Body, past: Option<&str>, new: String) -> String {
    match past {
        Some(past) => body.with("Concat", &[past, &new], &[("axis", Attribute::Int(2))]),
        None => new,
    }
}

/// `[batch, query heads, queries, keys]`. Several query heads may share a key head.
fn products(body: &mut Body, q: &str, k: &str) -> String {
    // Both sides take the root of the scale, as the operator's page does: f16 would overflow else.
    let root = match body.node.attributes.get("scale") {
        Some(Attribute::Float(scale)) => body.float(scale.sqrt()),
        _ => {
            let width = body.extents_of(q, 3..4);
            let (width, exponent) = (body.as_f32(&width), body.float(-0.25));
            body.op("Pow", &[&width, &exponent])
        }
    };
    let root = body.op("CastLike", &[&root, q]);
    let scaled = body.op("Mul", &[q, &root]);
    let keys = transposed(body, k, [0, 1, 3, 2]);
    let keys = body.op("Mul", &[&keys, &root]);
    let grouped = group_heads(body, &scaled, k);
    shared(body, &grouped, &keys, q)
}

/// `[batch, key heads, heads that share one, queries, width]`.
fn group_heads(body: &mut Body, value: &str, k: &str) -> String {
    let (outer, inner) = (body.extents_of(k, 0..2), body.extents_of(value, 2..4));
    let rest = body.ints(&[-1]);
    let shape = body.chain(&[&outer, &rest, &inner]);
    body.op("Reshape", &[value, &shape])
}

/// The matrix product of `grouped` with one matrix a key head, with the heads of `q` side by side.
fn shared(body: &mut Body, grouped: &str, matrices: &str, q: &str) -> String {
    let axis = body.ints(&[2]);
    let matrices = body.op("Unsqueeze", &[matrices, &axis]);
    let product = body.op("MatMul", &[grouped, &matrices]);
    let (outer, rest) = (body.extents_of(q, 0..3), body.ints(&[-1]));
    let shape = body.chain(&[&outer, &rest]);
    body.op("Reshape", &[&product, &shape])
}

fn mix(body: &mut Body, weights: &str, v: &str) -> String {
    let grouped = group_heads(body, weights, v);
    shared(body, &grouped, v, weights)
}

fn soft_cap(body: &mut Body, products: &str, cap: f32) -> String {
    if cap == 0.0 {
        return products.to_owned();
    }
    let cap = body.float(cap);
    let cap = body.op("CastLike", &[&cap, products]);
    let ratio = body.op("Div", &[products, &cap]);
    let ratio = body.op("Tanh", &[&ratio]);
    body.op("Mul", &[&ratio, &cap])
}

fn add_mask(body: &mut Body, products: &str, mask: Option<&str>, boolean: bool) -> String {
    let bias = match mask {
        None => return products.to_owned(),
        Some(mask) if boolean => minus_infinity_unless(body, mask),
        Some(mask) => mask.to_owned(),
    };
    let bias = body.op("CastLike", &[&bias, products]);
    body.op("Add", &[products, &bias])
}

/// Query `i` sees the keys up to `i`, and those of the past.
fn add_causal_mask(body: &mut Body, products: &str, past: Option<&str>) -> String {
    let (first, second) = (body.ints(&[0]), body.ints(&[1]));
    let queries = count(body, products, 2);
    let queries = body.op("Unsqueeze", &[&queries, &second]);
    let keys = count(body, products, 3);
    let keys = body.op("Unsqueeze", &[&keys, &first]);
    let last = match past {
        Some(past) => {
            let length = body.extents_of(past, 2..3);
            body.op("Add", &[&queries, &length])
        }
        None => queries,
    };
    let seen = body.op("LessOrEqual", &[&keys, &last]);
    let bias = minus_infinity_unless(body, &seen);
    let bias = body.op("CastLike", &[&bias, products]);
    body.op("Add", &[products, &bias])
}

/// 0, 1, 2 ... up to the extent of `axis`.
fn count(body: &mut Body, value: &str, axis: i64) -> String {
    let (extent, scalar) = (body.extents_of(value, axis..axis + 1), body.ints(&[0]));
    let extent = body.op("Squeeze", &[&extent, &scalar]);
    let (zero, one) = (body.int(0), body.int(1));
    body.op("Range", &[&zero, &extent, &one])
}

fn minus_infinity_unless(body: &mut Body, kept: &str) -> String {
    let (zero, infinity) = (body.float(0.0), body.float(f32::NEG_INFINITY));
    body.op("Where", &[kept, &zero, &infinity])
}

fn softmax(body: &mut Body, biased: &str) -> String {
    let precision = DType::of_onnx_number(body.node.int("softmax_precision", 0));
    let precise = match precision {
        Some(dtype) => body.cast(biased, dtype),
        None => biased.to_owned(),
    };
    let weights = body.with("Softmax", &[&precise], &[("axis", Attribute::Int(-1))]);
    body.op("CastLike", &[&weights, biased])
}

fn transposed(body: &mut Body, value: &str, permutation: [i64; 4]) -> String {
    body.with("Transpose", &[value], &[("perm", Attribute::Ints(permutation.to_vec()))])
}
