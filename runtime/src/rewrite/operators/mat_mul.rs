//! `MatMul` of two vectors: the sum of their products; tract takes it for a product of matrices.
//!
//! `MatMul` of what an `Expand` or a `Tile` repeats: the product of the larger of that and itself. tract leaves out what
//! repeats before a product, and with it the extent of the result ("Trying to substitute a 5,4,F32 by 1,4,F32"), unless
//! something else lies between.

use super::body::Body;
use crate::graph::Attribute;

pub(super) fn write(body: &mut Body) -> Option<()> {
    let factors = [body.node.input(0)?, body.node.input(1)?];
    let is_vector = |value: &str| body.known_shape(value).is_some_and(|shape| shape.len() == 1);
    if factors.iter().all(|factor| is_vector(factor)) {
        let products = body.op("Mul", &factors);
        let sum = body.with("ReduceSum", &[&products], &[("keepdims", Attribute::Int(0))]);
        body.give(0, &sum);
        return Some(());
    }
    let repeated = factors.map(|factor| is_repeated(body, factor));
    if repeated == [false, false] {
        return None;
    }
    let [left, right] = [0, 1].map(|side| match repeated[side] {
        true => body.op("Max", &[factors[side], factors[side]]),
        false => factors[side].to_owned(),
    });
    let product = body.op("MatMul", &[&left, &right]);
    body.give(0, &product);
    Some(())
}

/// Whether an operator that repeats writes `value`.
fn is_repeated(body: &Body, value: &str) -> bool {
    body.writer(value).is_some_and(|writer| {
        let source = writer.input(0).filter(|_| writer.is("Identity"));
        writer.is("Expand")
            || writer.is("Tile")
            || source.is_some_and(|source| is_repeated(body, source))
    })
}

#[cfg(test)]
mod tests {
    use crate::engine;
    use crate::graph::{Dim, Graph, Node, ValueSpec};
    use crate::tensor::{DType, Tensor};

    /// `y = x · z`, of which `nodes` make what is multiplied.
    fn product(nodes: Vec<Node>, x: &[usize], z: &[usize], shapes: &[(&str, &[i64])]) -> Vec<f32> {
        let count = |shape: &[usize]| shape.iter().product::<usize>();
        let values = |shape: &[usize], from: usize| {
            let values: Vec<f32> = (0..count(shape)).map(|it| (it + from) as f32).collect();
            Tensor::from_f32(shape, &values)
        };
        let spec = |name: &str, shape: &[usize]| {
            let dims: Vec<Dim> = shape.iter().map(|&extent| Dim::Fixed(extent)).collect();
            ValueSpec::new(name, DType::F32, &dims)
        };
        let integers = |&(name, shape): &(&str, &[i64])| {
            (name.to_owned(), Tensor::from_i64(&[shape.len()], shape))
        };
        let graph = Graph {
            opsets: [(String::new(), 17)].into(),
            inputs: vec![spec("x", x), spec("z", z)],
            outputs: vec![ValueSpec::new("y", DType::F32, &[])],
            nodes,
            initializers: shapes.iter().map(integers).collect(),
            ..Graph::default()
        };
        graph.validate().unwrap();
        let outputs = engine::evaluate(&graph, &[values(x, 1), values(z, 2)]);
        outputs.unwrap()[0].to_f32().unwrap()
    }

    #[test]
    fn what_an_expand_repeats_is_multiplied_as_if_it_had_been_given_so() {
        let matmul = |left: &str, right: &str| Node::new("MatMul", &[left, right], &["y"]);
        let expand = |value: &str, to: &str| Node::new("Expand", &[value, to], &["e"]);
        // x and z, what x is repeated to, and how often each part of the result without that then occurs.
        let cases = [
            (&[1, 3][..], &[3, 4][..], &[5, 3][..], 4, 5),
            (&[2, 1, 3], &[2, 3, 4], &[2, 5, 3], 4, 5),
            (&[1, 3], &[3, 4], &[2, 5, 3], 4, 10),
            (&[1, 5, 3], &[1, 3, 4], &[2, 5, 3], 20, 2),
            (&[1, 2, 3], &[6, 3, 4], &[6, 2, 3], 48, 1),
        ];
        for (x, z, to, part, times) in cases {
            let once = product(vec![matmul("x", "z")], x, z, &[]);
            let expected: Vec<f32> = once.chunks(part).flat_map(|it| it.repeat(times)).collect();
            let nodes = vec![expand("x", "to"), matmul("e", "z")];
            assert_eq!(product(nodes, x, z, &[("to", to)]), expected, "{x:?} to {to:?} by {z:?}");
        }
        let tile = Node::new("Tile", &["x", "times"], &["e"]);
        let got = product(vec![tile, matmul("e", "z")], &[1, 2], &[2, 1], &[("times", &[3, 1])]);
        assert_eq!(got, [8.0; 3]);
        // On the right: each column is [1, 2, 3], and rows of z begin at 2.
        let got = product(
            vec![expand("x", "to"), matmul("z", "e")],
            &[3, 1],
            &[2, 3],
            &[("to", &[3, 4])],
        );
        assert_eq!(got, [20.0, 20.0, 20.0, 20.0, 38.0, 38.0, 38.0, 38.0]);
    }
}
