//! An ONNX graph to the form that runs: optimized and packed for our kernels where they cover all of
//! it, else as it came, for tract.

use std::collections::BTreeMap;
use std::path::Path;

use crate::bundle::{self, Bundle, Parts};
use crate::engine::{self, Compiled, Fact};
use crate::error::{Error, Result};
use crate::graph::{Dim, Graph, ValueSpec};
use crate::manifest::Task;
use crate::optimize::{self, PassReport};
use crate::program::Program;
use crate::quantize::{self, Precision};
use crate::rewrite;
use crate::session::facts;
use crate::tensor::{DType, Tensor};

/// Planned lengths of a model whose shapes leave the sequence open, where nobody asked for others.
pub const DEFAULT_SEQUENCES: [usize; 4] = [16, 32, 64, 128];

/// A graph in its stored form.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The graph, fused and packed, or as it came.
    pub graph: Graph,
    /// What the passes did.
    pub passes: Vec<PassReport>,
    /// Why our kernels do not run it from end to end; `None` where they do.
    pub left_to_tract: Option<String>,
}

/// Reads an ONNX file and refuses, all at once, the operators that nothing here can run.
///
/// # Errors
/// As [`Graph::read_onnx`]; [`Error::Unsupported`].
pub fn read(path: &Path) -> Result<Graph> {
    let graph = Graph::read_onnx(path)?;
    let findings = engine::unsupported(&graph);
    if findings.is_empty() {
        return Ok(graph);
    }
    Err(Error::Unsupported { model: path.display().to_string(), findings })
}

/// Optimizes and packs `graph` in `precision`.
///
/// # Errors
/// [`Error::Unsupported`] where int8 is asked for and our kernels do not cover the graph.
pub fn prepare(graph: &Graph, precision: Precision) -> Result<Prepared> {
    let mut fused = graph.clone();
    let passes = optimize::optimize(&mut fused);
    let lowered = quantize::quantize(&mut fused, precision).and_then(|()| {
        let image = bundle::image(&parts(&fused, precision, &[]));
        Program::lower(&Bundle::from_image(&image)?, &fused)
    });
    match (lowered, precision) {
        (Ok(_), _) => Ok(Prepared { graph: fused, passes, left_to_tract: None }),
        (Err(reason), Precision::F32) => {
            let left_to_tract = Some(reason.to_string());
            Ok(Prepared { graph: graph.clone(), passes: Vec::new(), left_to_tract })
        }
        (Err(reason), Precision::Int8) => Err(Error::Unsupported {
            model: graph.name.clone(),
            findings: vec![format!(
                "int8 runs on our kernels only, and they do not cover this graph ({reason}); pack it with \
                 `--precision f32`"
            )],
        }),
    }
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

/// Drops the lengths, from the longest, that tract cannot compile the graph for, where tract runs it: nobody
/// asked for them, and many a graph has fewer positions.
pub(crate) fn drop_impossible(sequences: &mut Vec<usize>, prepared: &Prepared) {
    let graph = &prepared.graph;
    while let Some(&longest) = sequences.last().filter(|_| prepared.left_to_tract.is_some()) {
        let facts = facts(graph, longest);
        if rewrite::specialize(graph, &facts, &[]).and_then(|it| Compiled::new(&it, &facts)).is_ok()
        {
            return;
        }
        sequences.pop();
    }
}

/// An ONNX file as a bundle in memory: f32, tensors to tensors.
pub(crate) fn bundle_of_onnx(path: &Path, sequence: Option<usize>) -> Result<Bundle> {
    let graph = read(path)?;
    let asked = sequence.map(|sequence| vec![sequence]);
    let mut sequences = sequences(&graph, asked.as_deref());
    let prepared = prepare(&graph, Precision::F32)?;
    if asked.is_none() {
        drop_impossible(&mut sequences, &prepared);
    }
    Bundle::from_image(&bundle::image(&parts(&prepared.graph, Precision::F32, &sequences)))
}

fn parts<'a>(graph: &'a Graph, precision: Precision, sequences: &'a [usize]) -> Parts<'a> {
    Parts {
        graph,
        task: Task::Raw,
        precision,
        sequences,
        shapes: &[],
        heap: None,
        labels: &[],
        tokenizer: None,
        metrics: BTreeMap::new(),
        golden: &[],
    }
}

/// Values that are the same on every machine: small integers, or floats within ±1 from a linear
/// congruential sequence (Knuth, MMIX).
pub(crate) fn pattern(fact: &Fact) -> Tensor {
    let count: usize = fact.shape.iter().product();
    let mut state = 1_u64;
    let floats: Vec<f32> = (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    match fact.dtype {
        DType::F32 => Tensor::from_f32(&fact.shape, &floats),
        DType::I64 => Tensor::from_i64(&fact.shape, &vec![1; count]),
        dtype => {
            let bytes = vec![0; count * dtype.size()];
            Tensor::from_bytes(dtype, &fact.shape, bytes).expect("as many bytes as the shape needs")
        }
    }
}
