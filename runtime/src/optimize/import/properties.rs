//! Property: whatever another tool's quantizer wrote, the imported graph computes what the original does on tract,
//! for random forms, shapes, types and integers; and nothing of the integers is left. Where weights lie in blocks,
//! which tract does not read, it computes what the floats do that the integers stand for.
//!
//! Steps are powers of two and inputs lie on them, so that no sum rounds: equal means equal. Where the original
//! rounds its result and ours does not, half a step lies between.

use super::run;
use crate::engine;
use crate::graph::{Attribute, Dim, Graph, Node, ValueSpec};
use crate::optimize::marks;
use crate::random::Random;
use crate::tensor::{DType, Tensor};

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

/// How the weights of a product lie in blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Blocks {
    /// `DequantizeLinear` with a `block_size`.
    Dequantize,
    /// `com.microsoft.MatMulNBits`.
    NBits,
}

/// A product with weights in blocks along its inputs, and the graph of floats that it stands for.
struct Blocked {
    what: String,
    graph: Graph,
    floats: Graph,
    x: Tensor,
}

impl Blocked {
    fn of(form: Blocks, random: &mut Random) -> Blocked {
        let bits = [4, 8][random.below(2)];
        let (k, n, block) = (1 + random.below(40), 1 + random.below(5), [16, 32][random.below(2)]);
        let (blocks, zeros, bias) = (k.div_ceil(block), random.below(2) == 0, random.below(2) == 0);
        let most = 1 << bits;
        let steps: Vec<u8> = (0..n * blocks * block).map(|_| random.below(most) as u8).collect();
        let zero_points: Vec<u8> = match zeros {
            true => (0..n * blocks).map(|_| random.below(most) as u8).collect(),
            false => vec![(most / 2) as u8; n * blocks],
        };
        let scales: Vec<f32> = (0..n * blocks).map(|_| random.step()).collect();
        let weight = |row: usize, column: usize| {
            let of_block = column * blocks + row / block;
            let step = i32::from(steps[(column * blocks) * block + row]);
            (step - i32::from(zero_points[of_block])) as f32 * scales[of_block]
        };
        let places = || (0..k).flat_map(|row| (0..n).map(move |column| (row, column)));
        let values: Vec<f32> = places().map(|(row, column)| weight(row, column)).collect();
        let rows = 1 + random.below(3);
        let x: Vec<f32> = (0..rows * k).map(|_| random.below(16) as f32 - 7.0).collect();
        let terms: Vec<f32> = (0..n).map(|_| random.below(9) as f32).collect();

        let mut constants = vec![("b", Tensor::from_f32(&[n], &terms))];
        let mut nodes = Vec::new();
        let product = if bias { "product" } else { "y" };
        match form {
            Blocks::NBits => {
                let bytes = |numbers: &[u8]| match bits {
                    4 => numbers.chunks(2).map(|it| it[0] | it.get(1).unwrap_or(&0) << 4).collect(),
                    _ => numbers.to_vec(),
                };
                let u8s = |shape: &[usize], of_column: usize, numbers: &[u8]| {
                    let packed = numbers.chunks(of_column).flat_map(bytes).collect();
                    Tensor::from_bytes(DType::U8, shape, packed).expect("packed bytes")
                };
                let length = block * bits / 8;
                constants.push(("w", u8s(&[n, blocks, length], blocks * block, &steps)));
                constants.push(("ws", Tensor::from_f32(&[n * blocks], &scales)));
                let points = u8s(&[n * (blocks * bits).div_ceil(8)], blocks, &zero_points);
                constants.push(("wz", points));
                let inputs = ["x", "w", "ws", if zeros { "wz" } else { "" }, "", "b"];
                let inputs = &inputs[..if bias { 6 } else { 4 }];
                let mut node = Node::new("MatMulNBits", inputs, &["y"]);
                node.domain = "com.microsoft".to_owned();
                for (name, value) in [("K", k), ("N", n), ("bits", bits), ("block_size", block)] {
                    node = node.with(name, Attribute::Int(value as i64));
                }
                nodes.push(node);
            }
            Blocks::Dequantize => {
                // Rows are inputs here, blocks lie along the first axis.
                let by_row: Vec<u8> =
                    places().map(|(row, column)| steps[column * blocks * block + row]).collect();
                let turned = |it: &dyn Fn(usize) -> u8| -> Vec<u8> {
                    (0..blocks)
                        .flat_map(|b| (0..n).map(move |column| column * blocks + b))
                        .map(it)
                        .collect()
                };
                let scales: Vec<f32> = (0..blocks)
                    .flat_map(|b| (0..n).map(move |column| column * blocks + b))
                    .map(|place| scales[place])
                    .collect();
                let bytes = |shape: &[usize], bytes| Tensor::from_bytes(DType::U8, shape, bytes);
                constants.push(("w", bytes(&[k, n], by_row).expect("a weight")));
                constants.push(("ws", Tensor::from_f32(&[blocks, n], &scales)));
                let points = turned(&|place| zero_points[place]);
                constants.push(("wz", bytes(&[blocks, n], points).expect("zero points")));
                let unpacked = Node::new("DequantizeLinear", &["w", "ws", "wz"], &["float"])
                    .with("axis", Attribute::Int(0))
                    .with("block_size", Attribute::Int(block as i64));
                nodes.extend([unpacked, Node::new("MatMul", &["x", "float"], &[product])]);
                if bias {
                    nodes.push(Node::new("Add", &["product", "b"], &["y"]));
                }
            }
        }
        let mut float_nodes = vec![Node::new("MatMul", &["x", "w"], &[product])];
        if bias {
            float_nodes.push(Node::new("Add", &["product", "b"], &["y"]));
        }
        let weight = Tensor::from_f32(&[k, n], &values);
        let floats = vec![("w", weight), ("b", Tensor::from_f32(&[n], &terms))];
        Blocked {
            what: format!(
                "{form:?} of {bits} bits, {k}x{n} by {block}, zeros {zeros}, bias {bias}"
            ),
            graph: sound(&[rows, k], nodes, constants),
            floats: sound(&[rows, k], float_nodes, floats),
            x: Tensor::from_f32(&[rows, k], &x),
        }
    }
}

/// A graph over `x`, f32 of that shape, to `y`.
fn sound(shape: &[usize], nodes: Vec<Node>, constants: Vec<(&str, Tensor)>) -> Graph {
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
    graph
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
        let graph = sound(&shape, nodes, constants);
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

#[test]
fn weights_in_blocks_compute_what_their_floats_do() {
    let mut random = Random(5);
    let mut complaints = Vec::new();
    for form in [Blocks::Dequantize, Blocks::NBits] {
        for _ in 0..16 {
            let Blocked { what, graph, floats, x } = Blocked::of(form, &mut random);
            let mut imported = graph;
            run(&mut imported);
            imported.validate().expect("an imported graph is sound");
            let operators = |graph: &Graph| -> Vec<String> {
                graph.nodes.iter().map(|node| node.op.clone()).collect()
            };
            let marked = imported.nodes.iter().filter(|node| marks::is_quantized(node)).count();
            if operators(&imported) != operators(&floats) || marked != 1 {
                complaints.push(format!("{what}: {:?}, {marked} marked", operators(&imported)));
            } else if outputs(&imported, &x) != outputs(&floats, &x) {
                complaints.push(format!("{what}: another result"));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// Blocks whose shapes contradict each other, and rows in another order, are none that is understood.
#[test]
fn blocks_that_are_not_understood_stay_as_they_are() {
    let mut random = Random(31);
    for form in [Blocks::Dequantize, Blocks::NBits] {
        for damage in ["ws", "wz", "w", "order"] {
            let Blocked { what, mut graph, .. } = Blocked::of(form, &mut random);
            let reader =
                graph.nodes.iter_mut().find(|node| node.inputs.iter().any(|it| it == "ws"));
            let reader = reader.expect("a node with scales");
            match (damage, form) {
                ("order", Blocks::NBits) => {
                    reader.inputs.resize(5, String::new());
                    reader.inputs[4] = "x".to_owned();
                }
                ("order", Blocks::Dequantize) => reader.inputs[0] = "x".to_owned(),
                _ => {
                    if damage == "wz" {
                        reader.inputs[if form == Blocks::NBits { 3 } else { 2 }] =
                            damage.to_owned();
                    }
                    let other = Tensor::from_bytes(DType::U8, &[3, 7, 11], vec![1; 231]);
                    let other = match damage {
                        "ws" => Tensor::from_f32(&[3, 7, 11], &[1.0; 231]),
                        _ => other.expect("bytes"),
                    };
                    graph.initializers.insert(damage.to_owned(), other);
                }
            }
            let before = graph.nodes.clone();
            run(&mut graph);
            let left = |node: &&Node| {
                before.iter().any(|it| it.op == node.op && it.outputs == node.outputs)
            };
            let same = graph.nodes.iter().filter(left).count() == before.len();
            assert!(same, "{what}, {damage}: {:?}", graph.nodes);
            assert!(!graph.nodes.iter().any(marks::is_quantized), "{what}, {damage}");
            let named = engine::unsupported(&graph).join(
                "
",
            );
            assert_eq!(named.contains("MatMulNBits"), form == Blocks::NBits, "{what}: {named}");
        }
    }
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
