//! A function of one number that an exporter spelled out becomes one `dram.Pointwise`: hard swish, SiLU,
//! GELU by tanh and their like, with what scales and shifts the result.
//!
//! What the nodes compute decides, not how they are written: they are evaluated in f64 at numbers
//! on both sides of every bend and compared with each function that we have a kernel for. Refused: nodes that read a second value
//! or a constant that is no scalar, values that are not surely f32, and results that agree with no such function to 2e-6.

use std::collections::BTreeMap;

use crate::graph::{Attribute, Graph, Node};
use crate::optimize::pattern::{Rewrite, View, rewrite_all};

/// Nodes that one function is looked for in, at most.
const MOST_NODES: usize = 14;

/// Largest difference, relative to the size of the values compared, between what is written and what is
/// meant: constants are written with six to nine digits.
const TOLERANCE: f64 = 2e-6;

pub(super) fn run(graph: &mut Graph) -> usize {
    rewrite_all(graph, find)
}

fn find(view: &View, index: usize) -> Option<Rewrite> {
    let root = view.node(index);
    // What nothing reads was rewritten with what read it.
    if operands(view, root).is_none() || view.graph.uses(root.output()) == 0 {
        return None;
    }
    let (values, curves) = around(view, root);
    let (x, found) = values.into_iter().rev().find_map(|x| {
        let written = Written::of(view, root, x).filter(|_| view.is_f32(x))?;
        let found = candidates(&curves).into_iter().find_map(|candidate| written.fit(candidate))?;
        Some((x, found))
    })?;
    let fused = Node::fused("Pointwise", &[x], &[root.output()]);
    Some(Rewrite::new(index, found.written_to(Node { name: root.name.clone(), ..fused })))
}

/// Values that `root` may be a function of, the farthest last, and the functions on the way to them.
fn around<'a>(view: &View<'a>, root: &'a Node) -> (Vec<&'a str>, Vec<Curve>) {
    let (mut nodes, mut values, mut at) = (vec![root], Vec::new(), 0);
    while at < nodes.len() && nodes.len() <= MOST_NODES {
        let inputs = operands(view, nodes[at]).unwrap_or_default();
        // The root alone is as good as it stands.
        let alone = at == 0 && inputs.len() == 1;
        for input in inputs {
            if values.contains(&input) {
                continue;
            }
            if !alone {
                values.push(input);
            }
            let inner =
                |node: &&Node| operands(view, node).is_some() && reads_within(view, input, &nodes);
            nodes.extend(view.writer(input).filter(inner));
        }
        at += 1;
    }
    let curves = nodes.iter().filter_map(|node| Curve::of(view, node)).collect();
    (values, curves)
}

/// A function of ours, with what scales and shifts it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Curve {
    name: &'static str,
    alpha: f64,
    beta: f64,
    scale: f64,
    shift: f64,
}

impl Curve {
    const fn new(name: &'static str, alpha: f64, beta: f64) -> Curve {
        Curve { name, alpha, beta, scale: 1.0, shift: 0.0 }
    }

    /// The function that a single node of ONNX is.
    pub(super) fn of(view: &View, node: &Node) -> Option<Curve> {
        let number = |name: &str, default: f32| f64::from(node.float(name, default));
        if !node.is_onnx() {
            return None;
        }
        Some(match node.op.as_str() {
            "Relu" => Curve::new("clip", 0.0, f64::INFINITY),
            "Clip" => {
                let bound = |index: usize, name: &str, none: f32| match node.input(index) {
                    Some(value) => view.scalar(value).map(f64::from),
                    None => Some(number(name, none)),
                };
                let least = bound(1, "min", f32::NEG_INFINITY)?;
                Curve::new("clip", least, bound(2, "max", f32::INFINITY)?)
            }
            "LeakyRelu" => Curve::new("leaky_relu", number("alpha", 0.01), 0.0),
            "HardSigmoid" => Curve::new("hard_sigmoid", number("alpha", 0.2), number("beta", 0.5)),
            "HardSwish" => Curve::new("hard_swish", 1.0 / 6.0, 0.5),
            "Sigmoid" => Curve::new("sigmoid", 0.0, 0.0),
            "Tanh" => Curve::new("tanh", 0.0, 0.0),
            _ => return None,
        })
    }

    /// What a `dram.Pointwise` without slopes says.
    pub(super) fn read(node: &Node) -> Option<Curve> {
        const NAMES: [&str; 8] = [
            "clip",
            "leaky_relu",
            "hard_sigmoid",
            "hard_swish",
            "sigmoid",
            "silu",
            "gelu_tanh",
            "tanh",
        ];
        let activation = node.string("activation", "");
        let name =
            NAMES.into_iter().find(|name| node.is_fused("Pointwise") && *name == activation)?;
        let number = |name: &str, default: f32| f64::from(node.float(name, default));
        Some(Curve {
            name,
            alpha: number("alpha", 0.0),
            beta: number("beta", 0.0),
            scale: number("scale", 1.0),
            shift: number("shift", 0.0),
        })
    }

    /// With what scales and shifts it.
    pub(super) fn scaled(&self, x: f64) -> f64 {
        self.at(x) * self.scale + self.shift
    }

    fn at(&self, x: f64) -> f64 {
        let Curve { alpha, beta, .. } = *self;
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        match self.name {
            "clip" => x.max(alpha).min(beta),
            "leaky_relu" if x < 0.0 => alpha * x,
            "hard_sigmoid" => (alpha * x + beta).clamp(0.0, 1.0),
            "hard_swish" => x * (alpha * x + beta).clamp(0.0, 1.0),
            "sigmoid" => sigmoid(x),
            "silu" => x * sigmoid(x),
            "gelu_tanh" => {
                0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044_715 * x.powi(3))).tanh())
            }
            "tanh" => x.tanh(),
            _ => x,
        }
    }

    /// `node` with the attributes that say so.
    pub(super) fn written_to(&self, node: Node) -> Node {
        let mut node = node.with("activation", Attribute::String(self.name.to_owned()));
        if matches!(self.name, "clip" | "leaky_relu" | "hard_sigmoid" | "hard_swish") {
            node = node.with("alpha", Attribute::Float(self.alpha as f32));
        }
        if matches!(self.name, "clip" | "hard_sigmoid" | "hard_swish") {
            node = node.with("beta", Attribute::Float(self.beta as f32));
        }
        if (self.scale, self.shift) != (1.0, 0.0) {
            node = node.with("scale", Attribute::Float(self.scale as f32));
            node = node.with("shift", Attribute::Float(self.shift as f32));
        }
        node
    }
}

/// What some nodes compute of one value, at each of [`samples`].
struct Written {
    values: Vec<f64>,
}

/// Numbers on both sides of every bend, and [`FAR`] far out.
fn samples() -> impl Iterator<Item = f64> {
    let near = (-24..=24).map(|step| f64::from(step) / 2.0 + 0.013);
    near.chain([-1e4, -300.0, -40.0, 40.0, 300.0, 1e4])
}

const FAR: usize = 6;

impl Written {
    /// `root` as a function of `x`; `None` where it is none.
    fn of<'a>(view: &View<'a>, root: &'a Node, x: &str) -> Option<Written> {
        let values = samples().map(|at| value(view, root, x, at, &mut BTreeMap::new(), MOST_NODES));
        Some(Written { values: values.collect::<Option<_>>()? })
    }

    /// `curve` with the scale and shift that make it this one.
    fn fit(&self, curve: Curve) -> Option<Curve> {
        let pairs: Vec<(f64, f64)> =
            samples().map(|x| curve.at(x)).zip(self.values.iter().copied()).collect();
        let near = &pairs[..pairs.len() - FAR];
        let order = |a: &&(f64, f64), b: &&(f64, f64)| a.0.total_cmp(&b.0);
        let (low, high) = (near.iter().min_by(order)?, near.iter().max_by(order)?);
        let scale = (high.1 - low.1) / (high.0 - low.0);
        let shift = low.1 - scale * low.0;
        // What is one or zero but for rounding is meant so.
        let round =
            |value: f64, whole: f64| if (value - whole).abs() < 1e-6 { whole } else { value };
        let found = Curve { scale: round(scale, 1.0), shift: round(shift, 0.0), ..curve };
        let close = |&(meant, written): &(f64, f64)| {
            let value = meant * found.scale + found.shift;
            (value - written).abs() <= TOLERANCE * (1.0 + written.abs())
        };
        (scale.is_normal() && pairs.iter().all(close)).then_some(found)
    }
}

/// Those that the nodes may be.
fn candidates(on_the_way: &[Curve]) -> Vec<Curve> {
    let sixth = 1.0 / 6.0;
    let mut curves = vec![
        Curve::new("hard_swish", sixth, 0.5),
        Curve::new("silu", 0.0, 0.0),
        Curve::new("gelu_tanh", 0.0, 0.0),
        Curve::new("hard_sigmoid", sixth, 0.5),
    ];
    curves.extend(on_the_way);
    let swish = |curve: &Curve| Curve { name: "hard_swish", ..*curve };
    curves.extend(on_the_way.iter().filter(|it| it.name == "hard_sigmoid").map(swish));
    curves
}

/// Whether all that read `value` are among `nodes`.
fn reads_within(view: &View, value: &str, nodes: &[&Node]) -> bool {
    let reads = |node: &&&Node| node.inputs.iter().filter(|input| *input == value).count();
    let within: usize = nodes.iter().map(|node| reads(&node)).sum();
    within == view.graph.uses(value)
}

/// The inputs of a node that are no constants; `None` where it is no function of numbers one by one.
fn operands<'a>(view: &View<'a>, node: &'a Node) -> Option<Vec<&'a str>> {
    let known = matches!(
        node.op.as_str(),
        "Add"
            | "Sub"
            | "Mul"
            | "Div"
            | "Max"
            | "Min"
            | "Tanh"
            | "Sigmoid"
            | "Clip"
            | "Relu"
            | "LeakyRelu"
            | "HardSigmoid"
            | "HardSwish"
            | "Pow"
    );
    if !node.is_onnx() || !known {
        return None;
    }
    let inputs = node.inputs.iter().map(String::as_str).filter(|input| !input.is_empty());
    let (constants, values): (Vec<_>, Vec<_>) =
        inputs.partition(|input| view.constant(input).is_some());
    // One element of a higher rank could give the result a higher rank.
    let plain = |name: &&str| {
        view.scalar(name).is_some()
            && view.constant(name).is_some_and(|tensor| tensor.shape().len() <= 1)
    };
    constants.iter().all(plain).then_some(values)
}

/// What `node` gives where `x` is `at`, and no more than `left` nodes are nested.
fn value<'a>(
    view: &View<'a>,
    node: &'a Node,
    x: &str,
    at: f64,
    known: &mut BTreeMap<&'a str, f64>,
    left: usize,
) -> Option<f64> {
    let left = left.checked_sub(1)?;
    let mut inputs = Vec::with_capacity(2);
    for input in node.inputs.iter().filter(|input| !input.is_empty()) {
        inputs.push(match (view.scalar(input), known.get(input.as_str())) {
            _ if input == x => at,
            (Some(scalar), _) => f64::from(scalar),
            (None, Some(&value)) => value,
            (None, None) => value(view, view.writer(input)?, x, at, known, left)?,
        });
    }
    let first = *inputs.first()?;
    let second = inputs.get(1).copied();
    let result = match node.op.as_str() {
        "Add" => first + second?,
        "Sub" => first - second?,
        "Mul" => first * second?,
        "Div" => first / second?,
        "Max" => first.max(second?),
        "Min" => first.min(second?),
        "Pow" => first.powf(second?),
        _ => Curve::of(view, node)?.at(first),
    };
    known.insert(node.output(), result);
    Some(result)
}

#[cfg(test)]
mod tests {
    use super::super::pattern::by_hand::{after, graph, scalar};
    use super::*;
    use crate::tensor::Tensor;

    fn constants() -> Vec<(&'static str, Tensor)> {
        let numbers = [
            ("zero", 0.0),
            ("half", 0.5),
            ("one", 1.0),
            ("three", 3.0),
            ("five", 5.0),
            ("six", 6.0),
            ("root", 0.797_884_6),
            ("cube", 0.044_715),
        ];
        numbers.map(|(name, value)| (name, scalar(value))).into()
    }

    fn node(op: &str, inputs: &[&str], output: &str) -> Node {
        Node::new(op, inputs, &[output])
    }

    /// Ways to write functions, and what they are: activation, scale and shift.
    fn spellings() -> Vec<(Vec<Node>, &'static str, f32, f32)> {
        vec![
            (
                vec![
                    node("Add", &["x", "three"], "a"),
                    node("Clip", &["a", "zero", "six"], "c"),
                    node("Mul", &["x", "c"], "m"),
                    node("Div", &["m", "six"], "y"),
                ],
                "hard_swish",
                1.0,
                0.0,
            ),
            (
                vec![
                    node("HardSigmoid", &["x"], "a").with("alpha", Attribute::Float(0.2)),
                    node("Mul", &["x", "a"], "m"),
                    node("Mul", &["three", "m"], "n"),
                    node("Add", &["n", "one"], "y"),
                ],
                "hard_swish",
                3.0,
                1.0,
            ),
            (
                vec![
                    node("Mul", &["x", "one"], "a"),
                    node("Sigmoid", &["a"], "s"),
                    node("Mul", &["x", "s"], "y"),
                ],
                "silu",
                1.0,
                0.0,
            ),
            (
                vec![
                    node("Mul", &["cube", "x"], "a"),
                    node("Mul", &["x", "a"], "b"),
                    node("Mul", &["x", "b"], "c"),
                    node("Add", &["x", "c"], "d"),
                    node("Mul", &["root", "d"], "e"),
                    node("Tanh", &["e"], "t"),
                    node("Add", &["one", "t"], "p"),
                    node("Mul", &["half", "p"], "h"),
                    node("Mul", &["x", "h"], "y"),
                ],
                "gelu_tanh",
                1.0,
                0.0,
            ),
            (vec![node("Relu", &["x"], "r"), node("Min", &["r", "six"], "y")], "", 1.0, 0.0),
            (
                vec![node("Sigmoid", &["x"], "s"), node("Mul", &["s", "six"], "y")],
                "sigmoid",
                6.0,
                0.0,
            ),
        ]
    }

    #[test]
    fn every_spelling_is_recognized_by_what_it_computes() {
        for (nodes, activation, scale, shift) in spellings() {
            let (operators, graph) = after(run, graph(nodes.clone(), constants()));
            if activation.is_empty() {
                assert_eq!(operators.len(), nodes.len());
                continue;
            }
            assert_eq!(operators, ["Pointwise"], "{nodes:?}");
            let fused = &graph.nodes[0];
            assert_eq!(fused.string("activation", ""), activation);
            let near = |name: &str, default: f32, expected: f32| {
                (fused.float(name, default) - expected).abs() < 1e-5
            };
            assert!(near("scale", 1.0, scale) && near("shift", 0.0, shift), "{fused:?}");
        }
    }

    #[test]
    fn another_curve_stays_as_it_is() {
        let nodes = vec![
            node("Add", &["x", "three"], "a"),
            node("Clip", &["a", "zero", "five"], "c"),
            node("Mul", &["x", "c"], "y"),
        ];
        assert_eq!(after(run, graph(nodes, constants())).0, ["Add", "Clip", "Mul"]);
        // A constant is any function times zero.
        let nodes = vec![node("Add", &["x", "three"], "a"), node("Sub", &["a", "a"], "y")];
        assert_eq!(after(run, graph(nodes, constants())).0, ["Add", "Sub"]);
        let product = |x: &str| vec![node("Sigmoid", &[x], "s"), node("Mul", &[x, "s"], "y")];
        assert_eq!(after(run, graph(product("x"), constants())).0, ["Pointwise"]);
        let half = node("Cast", &["x"], "h").with("to", Attribute::Int(10));
        let nodes = [vec![half], product("h")].concat();
        assert_eq!(after(run, graph(nodes, constants())).0, ["Cast", "Sigmoid", "Mul"]);
    }
}
