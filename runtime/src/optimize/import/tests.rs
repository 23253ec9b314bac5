use super::*;
use crate::graph::{Attribute, Graph, Node};
use crate::kernels::RowScale;
use crate::optimize::marks;
use crate::optimize::pattern::by_hand::{after, graph, scalar};
use crate::tensor::{DType, Tensor};

fn u8s(shape: &[usize], values: &[u8]) -> Tensor {
    Tensor::from_bytes(DType::U8, shape, values.to_vec()).unwrap()
}

/// `(w - 0) · 0.5` with a column scale each, behind `x` rounded in steps of 0.1 around 128.
fn pair(zero_point: u8) -> (Vec<Node>, Vec<(&'static str, Tensor)>) {
    let nodes = vec![
        Node::new("QuantizeLinear", &["x", "s", "z"], &["q"]),
        Node::new("DequantizeLinear", &["q", "s", "z"], &["rounded"]),
    ];
    (nodes, vec![("s", scalar(0.1)), ("z", u8s(&[], &[zero_point]))])
}

fn weight() -> Vec<(&'static str, Tensor)> {
    let integers = Tensor::from_i8(&[2, 2], &[2, -4, 6, 127]);
    vec![("w", integers), ("ws", Tensor::from_f32(&[2], &[0.5, 0.25]))]
}

#[test]
fn a_product_takes_the_range_of_its_pair_and_the_floats_of_its_integers() {
    let (mut nodes, mut constants) = pair(128);
    nodes.push(Node::new("DequantizeLinear", &["w", "ws"], &["weight"]));
    nodes.push(Node::new("MatMul", &["rounded", "weight"], &["y"]));
    constants.extend(weight());
    let (operators, graph) = after(run, graph(nodes, constants));
    assert_eq!(operators, ["MatMul"]);
    let node = &graph.nodes[0];
    assert_eq!(node.inputs, ["x", "weight"]);
    let range = RowScale { scale: 0.1, zero_point: 128 };
    assert_eq!(*node, marks::with_range(marks::quantized(node.clone()), range));
    assert_eq!(graph.initializers["weight"].to_f32(), Some(vec![1.0, -1.0, 3.0, 31.75]));
}

#[test]
fn weights_alone_mark_the_product_without_a_range() {
    let spelled = vec![
        Node::new("Cast", &["w"], &["cast"]).with("to", Attribute::Int(1)),
        Node::new("Mul", &["cast", "ws"], &["weight"]),
        Node::new("MatMul", &["x", "weight"], &["y"]),
    ];
    let (operators, graph) = after(run, graph(spelled, weight()));
    assert_eq!(operators, ["MatMul"]);
    assert!(marks::is_quantized(&graph.nodes[0]) && !marks::has_range(&graph.nodes[0]));
    assert_eq!(graph.initializers["weight"].to_f32(), Some(vec![1.0, -1.0, 3.0, 31.75]));
}

#[test]
fn what_no_product_reads_is_not_rounded_but_cut_where_the_range_may_stand_for_a_relu() {
    for (zero_point, expected) in [(128, vec!["Mul"]), (0, vec!["Clip", "Mul"])] {
        let (mut nodes, mut constants) = pair(zero_point);
        nodes.push(Node::new("Mul", &["rounded", "two"], &["y"]));
        constants.push(("two", scalar(2.0)));
        let (operators, graph) = after(run, graph(nodes, constants));
        assert_eq!(operators, expected, "{zero_point}");
        if zero_point == 0 {
            let bounds = &graph.nodes[0].inputs[1..];
            let values = bounds.iter().map(|name| graph.initializers[name].to_f32().unwrap()[0]);
            assert_eq!(values.collect::<Vec<_>>(), [0.0, 25.5]);
        }
    }
    // A softmax leaves no such range, and a ReLU is there already.
    for before in ["Softmax", "Relu"] {
        let (mut nodes, mut constants) = pair(0);
        nodes[0].inputs[0] = "h".to_owned();
        nodes.insert(0, Node::new(before, &["x"], &["h"]));
        nodes.push(Node::new("Mul", &["rounded", "two"], &["y"]));
        constants.push(("two", scalar(2.0)));
        assert_eq!(after(run, graph(nodes, constants)).0, [before, "Mul"]);
    }
}

#[test]
fn a_product_keeps_what_stands_for_a_relu_before_it() {
    let (mut nodes, mut constants) = pair(0);
    nodes.push(Node::new("DequantizeLinear", &["w", "ws"], &["weight"]));
    nodes.push(Node::new("MatMul", &["rounded", "weight"], &["y"]));
    constants.extend(weight());
    let (operators, graph) = after(run, graph(nodes, constants));
    assert_eq!(operators, ["Clip", "MatMul"]);
    let range = RowScale { scale: 0.1, zero_point: 0 };
    assert_eq!(marks::range(&graph.nodes[1]), Some(range));
}

#[test]
fn a_pair_whose_halves_differ_or_whose_scale_is_given_stays() {
    let (mut nodes, mut constants) = pair(128);
    constants.push(("other", scalar(0.2)));
    nodes[1].inputs[1] = "other".to_owned();
    nodes.push(Node::new("Mul", &["rounded", "s"], &["y"]));
    let stays = ["QuantizeLinear", "DequantizeLinear", "Mul"];
    assert_eq!(after(run, graph(nodes.clone(), constants.clone())).0, stays);
    nodes[1].inputs[1] = "s".to_owned();
    nodes.insert(0, Node::new("ReduceMax", &["x"], &["s"]).with("keepdims", Attribute::Int(0)));
    constants.remove(0);
    let stays = ["ReduceMax", "QuantizeLinear", "DequantizeLinear", "Mul"];
    assert_eq!(after(run, graph(nodes, constants)).0, stays);
}

#[test]
fn integers_that_are_moved_are_moved_as_floats() {
    let (mut nodes, mut constants) = pair(128);
    nodes.insert(1, Node::new("Transpose", &["q"], &["turned"]));
    nodes.insert(2, Node::new("Reshape", &["turned", "shape"], &["flat"]));
    nodes[3].inputs[0] = "flat".to_owned();
    nodes.push(Node::new("Relu", &["rounded"], &["y"]));
    constants.push(("shape", Tensor::from_i64(&[1], &[-1])));
    let (operators, _) = after(run, graph(nodes, constants));
    assert_eq!(operators, ["Transpose", "Reshape", "Relu"]);
}

#[test]
fn products_of_integers_become_products_of_what_they_stand_for() {
    let rounding = Node::new("DynamicQuantizeLinear", &["x"], &["q", "s", "z"]);
    let sums = Node::new("MatMulInteger", &["q", "w", "z", "wz"], &["sums"]);
    let cast = Node::new("Cast", &["sums"], &["cast"]).with("to", Attribute::Int(1));
    let together = vec![
        Node::new("Mul", &["s", "ws"], &["scales"]),
        Node::new("Mul", &["cast", "scales"], &["y"]),
    ];
    let apart = vec![
        Node::new("Mul", &["cast", "s"], &["half"]),
        Node::new("Mul", &["half", "ws"], &["y"]),
    ];
    let constants = || {
        let integers = u8s(&[2, 2], &[130, 128, 126, 255]);
        let scale = Tensor::from_f32(&[2], &[0.5, 0.25]);
        vec![("w", integers), ("ws", scale), ("wz", u8s(&[], &[128]))]
    };
    for scaling in [together, apart] {
        let nodes = [vec![rounding.clone(), sums.clone(), cast.clone()], scaling].concat();
        let (operators, graph) = after(run, graph(nodes, constants()));
        assert_eq!(operators, ["MatMul"]);
        let marked = marks::together(marks::quantized(graph.nodes[0].clone()));
        assert_eq!(graph.nodes[0], marked, "all rows have one range");
        assert_eq!(graph.nodes[0].inputs, ["x", "y.weight"]);
        assert_eq!(graph.initializers["y.weight"].to_f32(), Some(vec![1.0, 0.0, -1.0, 31.75]));
    }
    // The scale of something else is not that of the product.
    let nodes = vec![
        rounding,
        sums,
        cast,
        Node::new("ReduceMax", &["x"], &["other"]).with("keepdims", Attribute::Int(0)),
        Node::new("Mul", &["other", "ws"], &["scales"]),
        Node::new("Mul", &["cast", "scales"], &["y"]),
    ];
    assert!(after(run, graph(nodes, constants())).0.contains(&"MatMulInteger".to_owned()));
}

#[test]
fn an_operator_of_integers_is_the_operator_of_floats() {
    let nodes = vec![
        Node::new("QuantizeLinear", &["x", "s", "z"], &["q"]),
        Node::new("QLinearMatMul", &["q", "s", "z", "w", "ws", "", "ys", "z"], &["product"]),
        Node::new("DequantizeLinear", &["product", "ys", "z"], &["y"]),
    ];
    let mut constants = weight();
    constants.extend([("s", scalar(0.1)), ("ys", scalar(0.3)), ("z", u8s(&[], &[7]))]);
    let (operators, graph) = after(run, graph(nodes, constants));
    // What is output keeps its name.
    assert_eq!(operators, ["MatMul", "Identity"]);
    assert!(marks::has_range(&graph.nodes[0]));
}

#[test]
fn blocks_of_four_bits_are_unpacked_the_lower_half_first() {
    let node = |inputs: &[&str]| Node {
        domain: "com.microsoft".to_owned(),
        ..Node::new("MatMulNBits", inputs, &["y"])
    };
    let sized = |node: Node| {
        let extents = [("K", 2), ("N", 2), ("bits", 4), ("block_size", 2)];
        extents.into_iter().fold(node, |node, (name, it)| node.with(name, Attribute::Int(it)))
    };
    let constants = vec![
        ("w", u8s(&[2, 1, 1], &[0x9a, 0xf0])),
        ("s", Tensor::from_f32(&[2], &[0.5, 2.0])),
        ("z", u8s(&[2], &[0x0a, 0x00])),
    ];
    // Columns 10, 9 and 0, 15; without zero points 8 stands for zero.
    let cases: [(&[&str], [f32; 4]); 2] = [
        (&["x", "w", "s"], [1.0, -16.0, 0.5, 14.0]),
        (&["x", "w", "s", "z"], [0.0, 0.0, -0.5, 30.0]),
    ];
    for (inputs, expected) in cases {
        let (operators, graph) = after(run, graph(vec![sized(node(inputs))], constants.clone()));
        assert_eq!(operators, ["MatMul"], "{inputs:?}");
        assert_eq!(graph.initializers["y.weight"].to_f32().unwrap(), expected, "{inputs:?}");
    }
    let reordered = sized(node(&["x", "w", "s", "", "order"]));
    let (operators, _) = after(
        run,
        graph(vec![reordered], {
            let mut constants = constants;
            constants.push(("order", Tensor::from_i32(&[2], &[1, 0])));
            constants
        }),
    );
    assert_eq!(operators, ["MatMulNBits"], "rows in another order are refused");
}

#[test]
fn a_graph_of_floats_is_left_alone() {
    let nodes = vec![Node::new("MatMul", &["x", "w"], &["y"])];
    let mut graph = graph(nodes, vec![("w", Tensor::from_f32(&[2, 1], &[1.0, 2.0]))]);
    let before = graph.clone();
    assert_eq!(run(&mut graph), 0);
    assert_eq!(graph, before);
}

/// `Cast(ConvInteger(DynamicQuantizeLinear(x), w, z, wz)) · (s · ws)`, the scale of that shape.
fn conv_integer(scale: &[usize]) -> (Vec<String>, Graph) {
    let nodes = vec![
        Node::new("DynamicQuantizeLinear", &["image"], &["q", "s", "z"]),
        Node::new("ConvInteger", &["q", "w", "z", "wz"], &["sums"])
            .with("pads", Attribute::Ints(vec![1, 1])),
        Node::new("Cast", &["sums"], &["cast"]).with("to", Attribute::Int(1)),
        Node::new("Mul", &["s", "ws"], &["scales"]),
        Node::new("Mul", &["cast", "scales"], &["y"]),
    ];
    let count: usize = scale.iter().product();
    let scales: Vec<f32> = (0..count).map(|place| 0.5 * (place + 1) as f32).collect();
    let mut graph = graph(
        vec![Node::new("Identity", &["x"], &["y"])],
        vec![
            ("w", u8s(&[2, 1, 3], &[1, 2, 3, 4, 5, 255])),
            ("wz", u8s(&[], &[2])),
            ("ws", Tensor::from_f32(scale, &scales)),
        ],
    );
    graph.nodes = nodes;
    graph.nodes.insert(0, Node::new("Transpose", &["x"], &["image"]));
    after(run, graph)
}

#[test]
fn an_integer_convolution_of_what_was_rounded_when_it_was_known_is_a_marked_one() {
    for (scale, second) in [(&[][..], 0.5), (&[1], 0.5), (&[2, 1], 1.0), (&[1, 2, 1], 1.0)] {
        let (operators, graph) = conv_integer(scale);
        assert_eq!(operators, ["Transpose", "Conv"], "{scale:?}");
        let node = &graph.nodes[1];
        assert!(marks::is_quantized(node) && !marks::has_range(node));
        assert_eq!(node.ints("pads"), Some(&[1, 1][..]));
        let expected = [-0.5, 0.0, 0.5, 2.0 * second, 3.0 * second, 253.0 * second];
        let weight = graph.initializers[&node.inputs[1]].to_f32();
        assert_eq!(weight, Some(expected.to_vec()), "{scale:?}");
    }
    // Along the places, not the outputs.
    assert!(conv_integer(&[2]).0.contains(&"ConvInteger".to_owned()));
    assert!(conv_integer(&[1, 1, 2]).0.contains(&"ConvInteger".to_owned()));
}
