//! What a model file holds, without running it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::bundle::Bundle;
use crate::engine;
use crate::error::{Error, Result};
use crate::graph::{Graph, Node};
use crate::manifest::Manifest;
use crate::prepare;
use crate::session::{self, Operators, Options, Session};

/// The contents of an ONNX file or a bundle.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Inspection {
    /// `onnx` or `bundle`.
    pub kind: &'static str,
    /// The graph's name.
    pub name: String,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Name, type and shape of each input.
    pub inputs: Vec<String>,
    /// Name, type and shape of each output.
    pub outputs: Vec<String>,
    /// Operator set versions by domain; `""` is ONNX's own.
    pub opset: BTreeMap<String, i64>,
    /// How often each operator occurs.
    pub operators: BTreeMap<String, usize>,
    /// Elements of all weights.
    pub parameters: usize,
    /// Multiply-accumulates of one run with a batch of one, by sequence length; the length is 1 where
    /// shapes are fixed. Empty where the model does not run here.
    pub macs: BTreeMap<usize, u64>,
    /// What runs it, as [`Session::executor`] says it; `None` where it does not run here.
    pub executor: Option<&'static str>,
    /// How many operators our kernels and tract compute, once it is optimized.
    pub operators_by_executor: Option<Operators>,
    /// A bundle's digest, in hexadecimal digits.
    pub digest: Option<String>,
    /// The public key whose valid signature a bundle carries; `None` where nobody signed it.
    pub signed_by: Option<String>,
    /// A bundle's manifest, with the lineage of its model.
    pub manifest: Option<Manifest>,
    /// An ONNX file's free properties.
    pub metadata: BTreeMap<String, String>,
}

/// Reads the file at `path`.
///
/// # Errors
/// Those of [`Bundle::open`] and [`Graph::read_onnx`]. Operators that do not run here are no error.
pub fn inspect(path: &Path) -> Result<Inspection> {
    let bytes = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
    if !Bundle::is_bundle(path)? {
        let graph = Graph::read_onnx(path)?;
        return Ok(inspection("onnx", bytes, &graph, graph.parameters(), path, None));
    }
    let bundle = Bundle::open(path)?;
    let graph = bundle.graph()?;
    let manifest = bundle.manifest().clone();
    let weights = |name: &str| name.ends_with("words") || name.ends_with("panels");
    let elements = |shape: &[usize]| shape.iter().product::<usize>();
    let wide = manifest.tensors.iter().filter(|t| t.shape.len() > 1 || weights(&t.name));
    let parameters = wide.map(|tensor| elements(&tensor.shape)).sum();
    Ok(Inspection {
        digest: Some(bundle.digest().to_string()),
        signed_by: bundle.signed_by().map(ToString::to_string),
        ..inspection("bundle", bytes, &graph, parameters, path, Some(manifest))
    })
}

fn inspection(
    kind: &'static str,
    bytes: u64,
    graph: &Graph,
    parameters: usize,
    path: &Path,
    manifest: Option<Manifest>,
) -> Inspection {
    let survey = session::survey(path).ok();
    let work = survey.iter().flat_map(|survey| &survey.work);
    Inspection {
        kind,
        name: graph.name.clone(),
        bytes,
        inputs: graph.inputs.iter().map(ToString::to_string).collect(),
        outputs: graph.outputs.iter().map(ToString::to_string).collect(),
        opset: graph.opsets.clone(),
        operators: operators(graph),
        parameters,
        macs: work.map(|(&length, work)| (length, work.macs)).collect(),
        executor: survey.as_ref().map(|survey| survey.executor),
        operators_by_executor: survey.as_ref().map(|survey| survey.operators),
        digest: None,
        signed_by: None,
        manifest,
        metadata: graph.metadata.clone(),
    }
}

/// How often each operator occurs, subgraphs included.
fn operators(graph: &Graph) -> BTreeMap<String, usize> {
    let name = |node: &Node| match node.is_onnx() {
        true => node.op.clone(),
        false => format!("{}.{}", node.domain, node.op),
    };
    let mut counts = BTreeMap::new();
    for node in &graph.nodes {
        *counts.entry(name(node)).or_insert(0) += 1;
        for (operator, count) in node.subgraphs().flat_map(operators) {
            *counts.entry(operator).or_insert(0) += count;
        }
    }
    counts
}

/// One line for everything that keeps the model at `path` from running; none where it runs.
///
/// # Errors
/// [`Error::Io`] where the file cannot be read at all.
pub fn check(path: &Path) -> Result<Vec<String>> {
    let opened = if Bundle::is_bundle(path)? {
        Session::open(path, &Options::default()).map(|_| ())
    } else {
        prepare::read(path).and_then(|_| Session::open(path, &Options::default()).map(|_| ()))
    };
    match opened {
        Ok(()) => Ok(Vec::new()),
        Err(Error::Unsupported { findings, .. }) => Ok(findings),
        Err(error @ Error::Io { .. }) => Err(error),
        Err(error) => Ok(vec![error.to_string()]),
    }
}

/// Operators that neither tract nor our kernels have, of an ONNX graph in memory.
pub fn unsupported(graph: &Graph) -> Vec<String> {
    engine::unsupported(graph)
}
