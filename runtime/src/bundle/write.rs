//! A graph and what belongs to it as one file, whole or not at all.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use super::{ALIGNMENT, DIGEST, HEADER_BYTES, KEY, MAGIC, SIGNATURE, VERSION, digest, read};
use crate::error::{Error, Result};
use crate::exits::Exits;
use crate::golden::Example;
use crate::graph::Graph;
use crate::manifest::{Extent, GoldenEntry, Heap, Manifest, Task, TensorEntry};
use crate::precision::Precision;
use crate::shapes::Shapes;
use crate::tensor::Tensor;
use crate::text;
use crate::trust::{Digest, PrivateKey};

/// What goes into a bundle.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    /// The optimized graph in its stored form, with its constants.
    pub graph: &'a Graph,
    /// What its outputs mean.
    pub task: Task,
    /// The numbers it is stored in.
    pub precision: Precision,
    /// Planned sequence lengths, ascending; empty where the shapes are fixed.
    pub sequences: &'a [usize],
    /// Shapes to plan for where the model takes other things than sequences.
    pub shapes: &'a [Shapes],
    /// What tract was measured to take from the heap for them.
    pub heap: Option<Heap>,
    /// Answers after some of the layers.
    pub exits: Option<&'a Exits>,
    /// One a column of the output, for [`Task::Classify`].
    pub labels: &'a [String],
    /// The text of `tokenizer.json`.
    pub tokenizer: Option<&'a [u8]>,
    /// What was measured while packing.
    pub metrics: BTreeMap<String, f64>,
    /// Inputs and the outputs that belong to them.
    pub golden: &'a [Example],
}

impl<'a> Parts<'a> {
    /// `graph` in `precision`, tensors to tensors, with nothing beside it.
    pub fn of(graph: &'a Graph, precision: Precision) -> Parts<'a> {
        Parts {
            graph,
            task: Task::Raw,
            precision,
            sequences: &[],
            shapes: &[],
            heap: None,
            exits: None,
            labels: &[],
            tokenizer: None,
            metrics: BTreeMap::new(),
            golden: &[],
        }
    }
}

/// Writes the bundle to `path`, whole or not at all.
///
/// # Errors
/// [`Error::Io`]; `path` is then as it was before.
pub fn write(path: &Path, parts: &Parts) -> Result<()> {
    replace(path, &image(parts))
}

/// Puts `key`'s signature into the bundle at `path`, in the place of any other; nothing else in it
/// changes. The file is replaced whole or not at all.
///
/// # Errors
/// Those of `Bundle::open` but for a signature that does not match; [`Error::Io`].
pub(crate) fn sign(path: &Path, key: &PrivateKey) -> Result<Digest> {
    let mut bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    if bytes.len() >= HEADER_BYTES && bytes.starts_with(&MAGIC) {
        bytes[KEY.start..SIGNATURE.end].fill(0);
    }
    let manifest_bytes = read::header(&bytes, path)?;
    let digest = digest::digest(&bytes);
    read::signer(&bytes, &digest, path)?;
    read::manifest(&bytes, manifest_bytes, path)?;
    bytes[KEY].copy_from_slice(&key.public().0);
    bytes[SIGNATURE].copy_from_slice(&key.sign(&digest));
    replace(path, &bytes)?;
    Ok(digest)
}

/// Gives the file at `path` the content `bytes`: written to a temporary file beside it, flushed to the
/// disk, then renamed.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.partial", std::process::id()));
    let temporary = Path::new(&temporary);
    let written = std::fs::File::create(temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(Error::io("write", path))
        .and_then(|()| std::fs::rename(temporary, path).map_err(Error::io("write", path)));
    if written.is_err() {
        // The first error is the one to report; a leftover is named `.partial`.
        let _ = std::fs::remove_file(temporary);
    }
    written
}

/// The bytes of the bundle, the same for the same parts.
pub fn image(parts: &Parts) -> Vec<u8> {
    let graph_bytes =
        Graph { metadata: BTreeMap::new(), ..parts.graph.clone_without_initializers() }.to_onnx();
    let compiled = parts.tokenizer.and_then(text::compile);
    let tokenizer = compiled.as_deref().or(parts.tokenizer);
    let mut manifest = Manifest {
        name: parts.graph.name.clone(),
        task: parts.task,
        precision: parts.precision,
        sequences: parts.sequences.to_vec(),
        shapes: parts.shapes.to_vec(),
        heap: parts.heap.clone(),
        exits: parts.exits.cloned(),
        labels: parts.labels.to_vec(),
        lineage: parts.graph.metadata.clone(),
        metrics: parts.metrics.clone(),
        graph: Extent { offset: 0, bytes: graph_bytes.len() as u64 },
        tokenizer: tokenizer.map(|section| Extent { offset: 0, bytes: section.len() as u64 }),
        tensors: in_order_of_use(parts.graph),
        golden: parts.golden.iter().map(golden_entry).collect(),
    };
    let text = settle(&mut manifest);
    let mut bytes = Vec::with_capacity(manifest.end() as usize + ALIGNMENT);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.resize(HEADER_BYTES, 0);
    bytes.extend_from_slice(&text);
    let mut section = |content: &[u8]| {
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes.extend_from_slice(content);
    };
    section(&graph_bytes);
    tokenizer.into_iter().for_each(&mut section);
    for entry in &manifest.tensors {
        section(parts.graph.initializers[&entry.name].bytes());
    }
    for (_, tensor) in
        parts.golden.iter().flat_map(|example| example.inputs.iter().chain(&example.outputs))
    {
        section(tensor.bytes());
    }
    let file_bytes = bytes.len() as u64;
    bytes[16..24].copy_from_slice(&file_bytes.to_le_bytes());
    let digest = digest::digest(&bytes);
    bytes[DIGEST].copy_from_slice(&digest.0);
    bytes
}

/// The graph's constants in the order in which nodes read them, so that a cold start reads the file
/// forwards.
fn in_order_of_use(graph: &Graph) -> Vec<TensorEntry> {
    let mut entries: Vec<TensorEntry> = Vec::new();
    let read = graph.nodes.iter().flat_map(|node| &node.inputs);
    // Constants that only a subgraph reads, or an output names, come last.
    for name in read.chain(graph.initializers.keys()) {
        let known = entries.iter().any(|entry| entry.name == *name);
        if let (Some(tensor), false) = (graph.initializers.get(name), known) {
            entries.push(TensorEntry::of(name, tensor));
        }
    }
    entries
}

fn golden_entry(example: &Example) -> GoldenEntry {
    let entries = |tensors: &[(String, Tensor)]| {
        tensors.iter().map(|(name, tensor)| TensorEntry::of(name, tensor)).collect()
    };
    GoldenEntry {
        text: example.text.clone(),
        inputs: entries(&example.inputs),
        outputs: entries(&example.outputs),
    }
}

/// Gives every section its offset and returns the manifest's text. Offsets are part of the text and
/// depend on its length, so this repeats until the length stands still.
pub(super) fn settle(manifest: &mut Manifest) -> Vec<u8> {
    let mut text = Vec::new();
    loop {
        let mut end = (HEADER_BYTES + text.len()) as u64;
        let mut place = |bytes: u64| {
            let offset = end.next_multiple_of(ALIGNMENT as u64);
            end = offset + bytes;
            offset
        };
        manifest.graph.offset = place(manifest.graph.bytes);
        if let Some(tokenizer) = &mut manifest.tokenizer {
            tokenizer.offset = place(tokenizer.bytes);
        }
        for tensor in &mut manifest.tensors {
            tensor.offset = place(tensor.bytes);
        }
        for entry in &mut manifest.golden {
            for tensor in entry.inputs.iter_mut().chain(&mut entry.outputs) {
                tensor.offset = place(tensor.bytes);
            }
        }
        let next =
            serde_json::to_vec(&manifest).expect("a manifest holds only strings and numbers");
        if next.len() == text.len() {
            return next;
        }
        text = next;
    }
}
