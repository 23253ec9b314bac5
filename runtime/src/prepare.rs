//! An ONNX graph to the form that runs: optimized, and packed for our kernels as far as they cover it;
//! the rest stays as it came, for tract.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use crate::bundle::{Bundle, Parts};
use crate::engine::{self, Mixture};
use crate::error::{Error, Result};
use crate::graph::{Dim, Graph, ValueSpec};
use crate::operators::Machine;
use crate::optimize::{self, PassReport};
use crate::program::Program;
use crate::quantize::{self, Precision, Scheme};
use crate::session::facts;
use crate::tensor::DType;

/// Planned lengths of a model whose shapes leave the sequence open, where nobody asked for others.
pub const DEFAULT_SEQUENCES: [usize; 4] = [16, 32, 64, 128];

/// A graph in its stored form.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The graph, fused and packed.
    pub graph: Graph,
    /// What the passes did.
    pub passes: Vec<PassReport>,
    /// Why our kernels do not run it from end to end; `None` where they do.
    pub left_to_tract: Option<String>,
}

/// Reads an ONNX file, one that another tool quantized as the float graph that it stands for, and refuses, all
/// at once, the operators that nothing here can run.
///
/// # Errors
/// As [`Graph::read_onnx`]; [`Error::Unsupported`].
pub fn read(path: &Path) -> Result<Graph> {
    let mut graph = Graph::read_onnx(path)?;
    import(&mut graph);
    let findings = engine::unsupported(&graph);
    if findings.is_empty() {
        return Ok(graph);
    }
    Err(Error::Unsupported { model: path.display().to_string(), findings })
}

/// Turns a graph that another tool quantized into the float graph that it stands for, whose nodes say what was
/// rounded; leaves any other alone. Gives how many rewrites that took.
pub fn import(graph: &mut Graph) -> usize {
    optimize::import::run(graph)
}

/// Optimizes `graph` and packs it in `precision`.
///
/// # Errors
/// As [`quantize::quantize`].
pub fn prepare(graph: &Graph, precision: Precision) -> Result<Prepared> {
    let mut fused = graph.clone();
    let passes = optimize::optimize(&mut fused);
    pack(&fused, &passes, &precision.into())
}

/// Packs the optimized graph `fused` by `scheme`.
///
/// # Errors
/// As [`quantize::quantize`].
pub(crate) fn pack(fused: &Graph, passes: &[PassReport], scheme: &Scheme) -> Result<Prepared> {
    let mut graph = fused.clone();
    quantize::quantize(&mut graph, scheme)?;
    let bundle = bundle_of(&graph, scheme.precision)?;
    let left_to_tract = Program::lower(&bundle, &graph).err().map(|reason| reason.to_string());
    Ok(Prepared { graph, passes: passes.to_vec(), left_to_tract })
}

/// The lengths to plan for: none where every shape is fixed but the batch, and, unless asked for, none
/// where the inputs are other things than tokens.
pub fn sequences(graph: &Graph, asked: Option<&[usize]>) -> Vec<usize> {
    let open = |dims: &[Dim]| dims.iter().skip(1).any(|dim| matches!(dim, Dim::Symbol(_)));
    let tokens = |input: &ValueSpec| input.dtype == DType::I64 && input.shape.len() == 2;
    if !graph.inputs.iter().any(|input| open(&input.shape)) {
        return Vec::new();
    }
    let usual = match graph.inputs.iter().all(tokens) {
        true => &DEFAULT_SEQUENCES[..],
        false => &[],
    };
    let mut sequences = asked.unwrap_or(usual).to_vec();
    sequences.sort_unstable();
    sequences.dedup();
    sequences
}

/// Drops the lengths, from the longest, that the graph cannot be compiled for, where tract takes part: nobody
/// asked for them, and many a graph has fewer positions.
///
/// # Errors
/// [`Error::Graph`] where a node of ours contradicts its kernel.
pub(crate) fn drop_impossible(sequences: &mut Vec<usize>, prepared: &Prepared) -> Result<()> {
    if prepared.left_to_tract.is_none() || sequences.is_empty() {
        return Ok(());
    }
    let bundle = Bundle::from_parts(&parts(&prepared.graph, Precision::F32, &[]))?;
    let machine = Machine::new(Arc::new(bundle), NonZeroUsize::MIN)?;
    let mixture = Mixture::new(&Arc::new(machine), &prepared.graph)?;
    let possible = |&length: &usize| mixture.compile(&facts(&prepared.graph, length), &[]).is_ok();
    while sequences.last().is_some_and(|length| !possible(length)) {
        sequences.pop();
    }
    Ok(())
}

/// The lengths to plan an optimized graph for: those asked for, or the usual ones as far as its positions
/// reach.
///
/// # Errors
/// [`Error::Input`] where a length is asked for that they do not reach.
pub(crate) fn reachable_sequences(graph: &Graph, asked: Option<&[usize]>) -> Result<Vec<usize>> {
    let mut sequences = sequences(graph, asked);
    let (Some(&longest), Some(positions)) = (sequences.last(), longest_position(graph)) else {
        return Ok(sequences);
    };
    if longest <= positions {
        return Ok(sequences);
    }
    if asked.is_some() {
        return Err(Error::Input {
            name: "sequence".to_owned(),
            expected: format!("at most {positions} tokens, the rows of the model's position table"),
            got: format!("{longest}; give a shorter `--seq`"),
        });
    }
    sequences.retain(|&length| length < positions);
    sequences.push(positions);
    Ok(sequences)
}

/// Rows of the position table of an optimized graph, where it has one.
fn longest_position(graph: &Graph) -> Option<usize> {
    let embed = graph.nodes.iter().find(|node| node.is_fused("Embed"))?;
    graph.initializers.get(embed.input(2)?)?.shape().first().copied()
}

/// An ONNX file as a bundle in memory: f32, tensors to tensors.
pub(crate) fn bundle_of_onnx(path: &Path, sequence: Option<usize>) -> Result<Bundle> {
    let graph = read(path)?;
    let asked = sequence.map(|sequence| vec![sequence]);
    let prepared = prepare(&graph, Precision::F32)?;
    let mut sequences = reachable_sequences(&prepared.graph, asked.as_deref())?;
    if asked.is_none() {
        drop_impossible(&mut sequences, &prepared)?;
    }
    let held = distinct_bytes(&[&graph, &prepared.graph]);
    // What was read is gone before it is written once more.
    drop(graph);
    let bundle = Bundle::from_parts(&parts(&prepared.graph, Precision::F32, &sequences))?;
    // While `prepare` looked whether our kernels run it, there was a first image beside both graphs. Names and
    // nodes are a small part of what the constants are.
    let making_bytes = held + bundle.len() as u64;
    Ok(bundle.made_of(making_bytes + making_bytes / 16))
}

/// Bytes of the constants of `graphs`, of which clones share theirs.
fn distinct_bytes(graphs: &[&Graph]) -> u64 {
    let tensors = graphs.iter().flat_map(|graph| graph.initializers.values());
    let places: BTreeMap<_, _> =
        tensors.map(|tensor| (tensor.address(), tensor.bytes().len() as u64)).collect();
    places.values().sum()
}

/// A stored graph as a bundle in memory, tensors to tensors.
pub(crate) fn bundle_of(graph: &Graph, precision: Precision) -> Result<Bundle> {
    Bundle::from_parts(&parts(graph, precision, &[]))
}

fn parts<'a>(graph: &'a Graph, precision: Precision, sequences: &'a [usize]) -> Parts<'a> {
    Parts { sequences, ..Parts::of(graph, precision) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::{self, Calibration};
    use crate::graph::{Attribute, Node, ValueSpec};
    use crate::samples::Samples;
    use crate::session::{Options, Session};
    use crate::shapes::Fact;
    use crate::tensor::Tensor;

    /// A graph over `x`, f32 of that shape, whose output is the last value.
    fn graph(shape: &[usize], nodes: Vec<Node>, constants: &[(&str, &[usize])]) -> Graph {
        let dims: Vec<Dim> = shape.iter().map(|&extent| Dim::Fixed(extent)).collect();
        let fact = |shape: &[usize]| Fact::new(DType::F32, shape);
        let graph = Graph {
            name: "mixed".to_owned(),
            opsets: BTreeMap::from([(String::new(), 17)]),
            inputs: vec![ValueSpec::new("x", DType::F32, &dims)],
            outputs: vec![ValueSpec::new(nodes[nodes.len() - 1].output(), DType::F32, &[])],
            nodes,
            initializers: constants
                .iter()
                .map(|(name, shape)| ((*name).to_owned(), fact(shape).pattern()))
                .collect(),
            metadata: BTreeMap::new(),
        };
        graph.validate().unwrap();
        graph
    }

    fn linear(x: &str, weight: &str, out: &str) -> Vec<Node> {
        let product = format!("{out}.product");
        vec![
            Node::new("MatMul", &[x, weight], &[&product]),
            Node::new("Add", &[&product, "b"], &[out]),
        ]
    }

    /// Graphs that our kernels cannot run from end to end, and the least cosine that int8 must keep.
    fn mixed() -> Vec<(&'static str, Graph)> {
        let softmax =
            |x: &str| Node::new("LogSoftmax", &[x], &["y"]).with("axis", Attribute::Int(-1));
        let weights: &[(&str, &[usize])] = &[("w", &[24, 40]), ("b", &[40])];
        let with = |shape: &[usize], last: Node| {
            graph(shape, [linear("x", "w", "h"), vec![last]].concat(), weights)
        };
        let residual = |shape: &[usize]| {
            let nodes = vec![
                Node::new("LayerNormalization", &["x", "g", "g"], &["n"]),
                Node::new("MatMul", &["n", "w"], &["h"]),
                Node::new("Relu", &["h"], &["r"]),
                Node::new("Add", &["r", "n"], &["s"]),
                Node::new("HardSwish", &["s"], &["y"]),
            ];
            graph(shape, nodes, &[("g", &[24]), ("w", &[24, 24])])
        };
        let broadcast = {
            let nodes = [
                linear("x", "w", "h"),
                vec![Node::new("ReduceSum", &["x", "zero"], &["row"])],
                linear("row", "w", "other"),
                vec![Node::new("Add", &["h", "other"], &["s"]), softmax("s")],
            ];
            let mut graph =
                graph(&[3, 24], Vec::from([Node::new("Relu", &["x"], &["y"])]), weights);
            graph.nodes = nodes.concat();
            graph.initializers.insert("zero".to_owned(), Tensor::from_i64(&[1], &[0]));
            graph
        };
        let lookup = {
            let nodes = vec![
                Node::new("Cast", &["x"], &["indices"]).with("to", Attribute::Int(7)),
                Node::new("Gather", &["table", "indices"], &["rows"]),
                Node::new("Transpose", &["rows"], &["y"])
                    .with("perm", Attribute::Ints(vec![2, 0, 1])),
            ];
            graph(&[2, 3], nodes, &[("table", &[50, 24])])
        };
        vec![
            ("rank 1", with(&[24], softmax("h"))),
            ("rank 2", with(&[5, 24], softmax("h"))),
            ("rank 4", with(&[2, 3, 5, 24], softmax("h"))),
            ("residual", residual(&[2, 5, 24])),
            ("broadcast residual", broadcast),
            ("lookup", lookup),
        ]
    }

    fn outputs(graph: &Graph, precision: Precision, x: &Tensor) -> (Session, Vec<f32>) {
        let prepared = prepare(graph, precision).unwrap();
        let bundle = bundle_of(&prepared.graph, precision).unwrap();
        let session = Session::from_bundle(bundle, &Options::default()).unwrap();
        let outputs = session.run(&BTreeMap::from([("x".to_owned(), x.clone())])).unwrap();
        let values = outputs[0].1.to_f32().unwrap();
        (session, values)
    }

    #[test]
    fn a_mixture_computes_what_the_graph_says() {
        for (name, graph) in mixed() {
            let x = crate::session::facts(&graph, 1)[0].pattern();
            let expected = engine::evaluate(&graph, std::slice::from_ref(&x)).unwrap();
            let expected = expected[0].to_f32().unwrap();
            let (session, got) = outputs(&graph, Precision::F32, &x);
            assert_eq!(got.len(), expected.len(), "{name}");
            if name != "lookup" {
                assert_eq!(session.executor(), "mixture", "{name}");
            }
            let worst =
                got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
            // Sums of 24 products in another order.
            assert!(worst <= 1e-5, "{name}: differs by {worst}");

            let (session, int8) = outputs(&graph, Precision::Int8, &x);
            assert!(session.operators().kernels > 0, "{name}");
            if name != "lookup" {
                // tract counts additions over an axis too.
                assert!(session.work(1).int8_mac_share() > 0.9, "{name}");
            }
            let cosine = crate::evaluate::cosine(&int8, &expected);
            // Steps of 1/127 and 1/255 of the largest magnitude.
            assert!(cosine >= 0.999, "{name}: cosine {cosine}");
        }
    }

    #[test]
    fn narrow_weights_compute_what_the_graph_says_as_nearly_as_their_steps_allow() {
        // A step of 15 in groups of 24 to 32, of 16 and of 8, and eleven bits.
        let narrow = [
            (Precision::Int4, 0.99),
            (Precision::Int4By16, 0.99),
            (Precision::Int4By8, 0.99),
            (Precision::F16, 0.999_999),
        ];
        for (precision, least) in narrow {
            for (name, graph) in mixed().into_iter().filter(|(name, _)| *name != "lookup") {
                let x = crate::session::facts(&graph, 1)[0].pattern();
                let (_, expected) = outputs(&graph, Precision::F32, &x);
                let (session, got) = outputs(&graph, precision, &x);
                let share = session.work(1).int8_mac_share();
                assert_eq!(share > 0.9, precision != Precision::F16, "{name}: {share}");
                let cosine = crate::evaluate::cosine(&got, &expected);
                assert!(cosine >= least, "{name}, {precision}: cosine {cosine}");
            }
        }
    }

    #[test]
    fn static_int8_rounds_in_the_ranges_that_were_calibrated() {
        let open = |prepared: &Prepared| {
            let bundle = Bundle::from_parts(&parts(&prepared.graph, Precision::F32, &[])).unwrap();
            Session::from_bundle(bundle, &Options::default()).unwrap()
        };
        for (name, graph) in mixed().into_iter().filter(|(name, _)| *name != "lookup") {
            let x = crate::session::facts(&graph, 1)[0].pattern();
            let given = BTreeMap::from([("x".to_owned(), x.clone())]);
            let (_, expected) = outputs(&graph, Precision::F32, &x);
            let mut fused = graph.clone();
            let passes = optimize::optimize(&mut fused);
            let observed = pack(&calibrate::observed(&fused), &passes, &Precision::F32.into());
            let session = open(&observed.unwrap());
            let samples = Samples::Tensors(vec![given.clone()]);
            for calibration in [Calibration::MinMax, Calibration::Mse] {
                let (ranges, _) = calibrate::ranges(&session, &samples, calibration).unwrap();
                let scheme = Scheme { ranges, ..Precision::Int8Static.into() };
                let session = open(&pack(&fused, &passes, &scheme).unwrap());
                assert!(session.work(1).int8_mac_share() > 0.9, "{name}");
                let got = session.run(&given).unwrap()[0].1.to_f32().unwrap();
                let cosine = crate::evaluate::cosine(&got, &expected);
                // Steps of 1/127 of the weights and 1/255 of the activations.
                assert!(cosine >= 0.999, "{name}, {calibration}: cosine {cosine}");
            }
            let error = pack(&fused, &passes, &Precision::Int8Static.into()).unwrap_err();
            assert!(error.to_string().contains("a calibrated range of"), "{name}: {error}");
        }
    }

    #[test]
    fn of_a_head_over_the_first_token_the_last_layer_computes_one_row() {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tiny.onnx");
        let means = read(&model).expect("a sound file");
        let mut firsts = means.clone();
        let head = firsts.nodes.iter().position(|node| node.output() == "head.product");
        let hidden = firsts.nodes.iter().rposition(|node| node.is("LayerNormalization"));
        let (head, hidden) = (head.expect("a head"), hidden.expect("a last layer"));
        let first = [firsts.nodes[hidden].output(), "first.index"];
        let first = Node::new("Gather", &first, &["first"]).with("axis", Attribute::Int(1));
        firsts.nodes[head].inputs[0] = "first".to_owned();
        firsts.nodes.splice(hidden + 1..head, [first]);
        firsts.initializers.insert("first.index".to_owned(), Tensor::from_i64(&[], &[0]));
        let open = |graph: &Graph| {
            let prepared = prepare(graph, Precision::F32).expect("it runs");
            let bundle = Bundle::from_parts(&parts(&prepared.graph, Precision::F32, &[4, 16]));
            Session::from_bundle(bundle.expect("a bundle"), &Options::default()).expect("it opens")
        };
        let (mean, session) = (open(&means), open(&firsts));
        assert_eq!(session.executor(), "kernels");
        // Of two layers one computes queries, keys and values, little else.
        assert!(session.work(16).macs * 4 < mean.work(16).macs * 3);
        for tokens in [1, 5, 16] {
            let example = session.example(tokens);
            let inputs: Vec<Tensor> =
                firsts.inputs.iter().map(|input| example[&input.name].clone()).collect();
            let expected = engine::reference(&firsts, &inputs).expect("tract runs it")[0].to_f32();
            let got = session.run(&example).expect("outputs")[0].1.to_f32();
            for (got, expected) in got.expect("f32").iter().zip(expected.expect("f32")) {
                // Sums in another order.
                assert!((got - expected).abs() <= 1e-5, "{tokens} tokens: {got}, not {expected}");
            }
        }
    }

    #[test]
    fn int8_of_what_has_no_weights_is_refused_by_name() {
        let graph = graph(&[4], vec![Node::new("Relu", &["x"], &["y"])], &[]);
        let error = prepare(&graph, Precision::Int8).unwrap_err().to_string();
        assert!(error.contains("no matrix product, convolution or lookup"), "{error}");
    }
}
