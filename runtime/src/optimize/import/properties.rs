//! Property: whatever another tool's quantizer wrote, the imported graph computes what the original does on tract,
//! for random forms, shapes, types and integers; and nothing of the integers is left.
//!
//! Steps are powers of two and inputs lie on them, so that no sum rounds: equal means equal. Where the original
//! rounds its result and ours does not, half a step lies between.

use super::run;
use crate::engine;
use crate::graph::{Attribute, Dim, Graph, Node, ValueSpec};
use crate::optimize::marks;
use crate::tensor::{DType, Tensor};

/// A linear congruential generator (Knuth's constants), the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }

    fn step(&mut self) -> f32 {
        2.0_f32.powi(-(self.below(6) as i32))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Dynamic,
    Pairs,
    Operators,
    Weights,
    Spelled,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Product {
    MatMul,
    Gemm,
    Conv,
}

/// A product in a quantizer's form, and an input for it.
struct Case {
    what: String,
    graph: Graph,
    x: Tensor,
    /// Most that the original's own rounding of its result moves.
    most: f32,
}

impl Case {
    fn of(form: Form, product: Product, random: &mut Random) -> Case {
        // Two inputs at least, of which one is the least and one the largest.
        let (k, n) = (2 + random.below(6), 1 + random.below(5));
        let conv = product == Product::Conv;
        let (shape, weight_shape) = match product {
            Product::Conv => (vec![1 + random.below(2), k, 5, 4], vec![n, k, 3, 2]),
            _ => (vec![1 + random.below(4), k], vec![k, n]),
        };
        let count = |shape: &[usize]| shape.iter().product::<usize>();
        // Both ends of the range occur, so that a dynamic one is this one.
        let (step, zero) = (random.step(), 1 + random.below(254) as u8);
        let mut integers = random.bytes(count(&shape));
        integers[0] = 0;
        let last = count(&shape) - 1;
        integers[last] = 255;
        let float = |&byte: &u8| (f32::from(byte) - f32::from(zero)) * step;
        let values: Vec<f32> = integers.iter().map(float).collect();
        let x = Tensor::from_f32(&shape, &values);

        let signed = random.below(2) == 0;
        let dtype = if signed { DType::I8 } else { DType::U8 };
        let byte = |value: u8| Tensor::from_bytes(dtype, &[], vec![value]).expect("a byte");
        let weight = random.bytes(count(&weight_shape));
        let weight = Tensor::from_bytes(dtype, &weight_shape, weight).expect("a weight");
        let scales: Vec<f32> = match random.below(2) {
            0 => vec![random.step()],
            _ => (0..n).map(|_| random.step()).collect(),
        };
        let each = scales.len() > 1;
        let scale_shape: Vec<usize> = if each { vec![scales.len()] } else { vec![] };
        let zeros = byte(if signed { 0 } else { 128 });
        let mut constants = vec![
            ("w", weight),
            ("ws", Tensor::from_f32(&scale_shape, &scales)),
            ("wz", if each { repeated(&zeros, scales.len()) } else { zeros }),
            ("s", Tensor::from_f32(&[], &[step])),
            ("z", Tensor::from_bytes(DType::U8, &[], vec![zero]).expect("a byte")),
        ];
        let axis = Attribute::Int(if conv { 0 } else { 1 });
        let window = |node: Node| match conv {
            true => node.with("pads", Attribute::Ints(vec![1, 0, 1, 1])),
            false => node,
        };
        let op = format!("{product:?}");
        let floats = |x: &str, w: &str| window(Node::new(&op, &[x, w], &["y"]));
        let pair = [
            Node::new("QuantizeLinear", &["x", "s", "z"], &["q"]),
            Node::new("DequantizeLinear", &["q", "s", "z"], &["rounded"]),
        ];
        let unpacked =
            Node::new("DequantizeLinear", &["w", "ws", "wz"], &["float"]).with("axis", axis);
        let mut most = 0.0;
        let nodes = match form {
            Form::Weights => vec![unpacked, floats("x", "float")],
            Form::Pairs => [&pair[..], &[unpacked, floats("rounded", "float")]].concat(),
            Form::Spelled => {
                // Scale and zero point are broadcast over the weights.
                let lead = if conv { vec![scales.len(), 1, 1, 1] } else { vec![1, scales.len()] };
                constants[1].1 = Tensor::from_f32(&lead, &scales);
                constants[2].1 = Tensor::from_f32(&[], &[if signed { 0.0 } else { 128.0 }]);
                vec![
                    Node::new("Cast", &["w"], &["cast"]).with("to", Attribute::Int(1)),
                    Node::new("Sub", &["cast", "wz"], &["steps"]),
                    Node::new("Mul", &["steps", "ws"], &["float"]),
                    floats("x", "float"),
                ]
            }
            Form::Dynamic => {
                if conv && each {
                    constants[1].1 = Tensor::from_f32(&[scales.len(), 1, 1], &scales);
                }
                let op = if conv { "ConvInteger" } else { "MatMulInteger" };
                vec![
                    Node::new("DynamicQuantizeLinear", &["x"], &["q", "qs", "qz"]),
                    window(Node::new(op, &["q", "w", "qz", "wz"], &["sums"])),
                    Node::new("Cast", &["sums"], &["cast"]).with("to", Attribute::Int(1)),
                    Node::new("Mul", &["qs", "ws"], &["scales"]),
                    Node::new("Mul", &["cast", "scales"], &["y"]),
                ]
            }
            Form::Operators => {
                // The result reaches at most so many steps of one.
                let reach = (weight_shape.iter().product::<usize>() / n * 255 * 255) as f32;
                let result = (reach * step / 64.0).log2().ceil().exp2();
                most = result / 2.0;
                constants.push(("ys", Tensor::from_f32(&[], &[result])));
                constants.push(("yz", Tensor::from_bytes(DType::U8, &[], vec![128]).expect("one")));
                let inputs = ["q", "s", "z", "w", "ws", "wz", "ys", "yz"];
                vec![
                    pair[0].clone(),
                    window(Node::new(&format!("QLinear{op}"), &inputs, &["qy"])),
                    Node::new("DequantizeLinear", &["qy", "ys", "yz"], &["y"]),
                ]
            }
        };
        let dims: Vec<Dim> = shape.iter().map(|&extent| Dim::Fixed(extent)).collect();
        let mut graph = Graph {
            name: "quantized".to_owned(),
            opsets: [(String::new(), 17)].into(),
            inputs: vec![ValueSpec::new("x", DType::F32, &dims)],
            outputs: vec![ValueSpec::new("y", DType::F32, &[])],
            nodes,
            initializers: constants.into_iter().map(|(name, it)| (name.to_owned(), it)).collect(),
            ..Graph::default()
        };
        graph.remove_dead();
        graph.validate().expect("a generated graph is sound");
        let what = format!("{form:?} {product:?} {shape:?} {weight_shape:?} {dtype} {scales:?}");
        Case { what, graph, x, most }
    }
}

/// A list of `count` times the one element of `tensor`.
fn repeated(tensor: &Tensor, count: usize) -> Tensor {
    let bytes = vec![tensor.bytes()[0]; count];
    Tensor::from_bytes(tensor.dtype(), &[count], bytes).expect("bytes")
}

fn outputs(graph: &Graph, x: &Tensor) -> Vec<f32> {
    let outputs = engine::evaluate(graph, std::slice::from_ref(x)).expect("tract runs it");
    outputs[0].to_f32().expect("floats")
}

#[test]
fn an_imported_graph_computes_what_the_original_does() {
    let mut random = Random(11);
    let forms = [Form::Dynamic, Form::Pairs, Form::Operators, Form::Weights, Form::Spelled];
    let mut complaints = Vec::new();
    for form in forms {
        for product in [Product::MatMul, Product::Gemm, Product::Conv] {
            // No quantizer writes a Gemm of integers without scales of its own.
            if product == Product::Gemm && matches!(form, Form::Dynamic | Form::Operators) {
                continue;
            }
            for _ in 0..6 {
                let Case { what, graph, x, most } = Case::of(form, product, &mut random);
                let mut imported = graph.clone();
                run(&mut imported);
                imported.validate().expect("an imported graph is sound");
                // A pair that writes the output of the graph leaves its name behind.
                let expected = [format!("{product:?}"), "Identity".to_owned()];
                let left = imported.nodes.iter().filter(|it| !expected.contains(&it.op));
                let left: Vec<&str> = left.map(|node| node.op.as_str()).collect();
                let marked = imported.nodes.iter().filter(|node| marks::is_quantized(node)).count();
                if !left.is_empty() || marked != 1 {
                    complaints.push(format!("{what}: {left:?} left, {marked} marked"));
                    continue;
                }
                let pairs = outputs(&graph, &x).into_iter().zip(outputs(&imported, &x));
                let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                if worst.is_nan() || worst > most {
                    complaints.push(format!("{what}: {worst} apart, {most} allowed"));
                }
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// What is not understood stays word for word: the pass takes no half of it.
#[test]
fn a_graph_that_is_not_understood_stays_as_it_is() {
    let mut random = Random(23);
    for product in [Product::MatMul, Product::Conv] {
        for form in [Form::Dynamic, Form::Pairs, Form::Operators, Form::Weights] {
            let Case { what, mut graph, .. } = Case::of(form, product, &mut random);
            // Weights that come with the input are no constants.
            let weight = graph.initializers.remove("w").expect("a weight");
            let dims: Vec<Dim> = weight.shape().iter().map(|&it| Dim::Fixed(it)).collect();
            graph.inputs.push(ValueSpec::new("w", weight.dtype(), &dims));
            graph.validate().expect("sound");
            let mut imported = graph.clone();
            run(&mut imported);
            let integers = |graph: &Graph| {
                let kinds = ["MatMulInteger", "ConvInteger", "DequantizeLinear"];
                graph.nodes.iter().filter(|it| kinds.contains(&it.op.as_str())).count()
            };
            let reads_weight = imported.nodes.iter().any(|it| it.inputs.iter().any(|i| i == "w"));
            assert!(reads_weight && integers(&imported) > 0, "{what}");
            assert!(!imported.nodes.iter().any(marks::is_quantized), "{what}");
        }
    }
}
