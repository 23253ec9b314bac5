//! What a bundle says of itself: the JSON between its header and its sections.

use std::collections::BTreeMap;

use crate::exits::Exits;
use crate::precision::Precision;
use crate::shapes::Shapes;
use crate::tensor::{DType, Tensor};

/// What the outputs of a model mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Text, or tensors, to labels with probabilities: the first output holds logits.
    Classify,
    /// Text to a vector: the first output.
    Embed,
    /// Tensors to tensors.
    Raw,
}

impl Task {
    /// The name that flags and manifests use.
    pub fn name(self) -> &'static str {
        match self {
            Task::Classify => "classify",
            Task::Embed => "embed",
            Task::Raw => "raw",
        }
    }
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Task {
    type Err = String;

    fn from_str(text: &str) -> Result<Task, String> {
        [Task::Classify, Task::Embed, Task::Raw]
            .into_iter()
            .find(|task| task.name() == text)
            .ok_or_else(|| format!("`{text}` is no task; choose `classify`, `embed` or `raw`"))
    }
}

/// Everything about a model but its numbers. Maps are ordered, so the same model gives the same
/// bytes.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The model's name.
    pub name: String,
    /// What its outputs mean.
    pub task: Task,
    /// The numbers it is stored and computed in.
    pub precision: Precision,
    /// Lengths that a sequence is planned and, where tract runs the graph, padded to; ascending.
    /// Empty where the shapes are fixed.
    pub sequences: Vec<usize>,
    /// Shapes that are planned for where the model takes other things than sequences. Absent where there
    /// are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shapes: Vec<Shapes>,
    /// What it takes from the heap for all that is planned. Absent where nobody measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heap: Option<Heap>,
    /// Answers after some of the layers. Absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exits: Option<Exits>,
    /// One a column of the output, for [`Task::Classify`].
    pub labels: Vec<String>,
    /// Where the model comes from: teacher, data, recipe, licences, as its ONNX file says.
    pub lineage: BTreeMap<String, String>,
    /// What was measured when it was packed.
    pub metrics: BTreeMap<String, f64>,
    /// The optimized graph without its constants.
    pub graph: Extent,
    /// `tokenizer.json`, where the task takes text.
    pub tokenizer: Option<Extent>,
    /// The graph's constants, in the order in which they lie in the file.
    pub tensors: Vec<TensorEntry>,
    /// Inputs, and what the packed model made of them: what a device compares itself with.
    pub golden: Vec<GoldenEntry>,
}

impl Manifest {
    /// Where the last section ends.
    pub(crate) fn end(&self) -> u64 {
        let golden = self.golden.iter().flat_map(GoldenEntry::tensors).map(TensorEntry::extent);
        let tensors = self.tensors.iter().map(TensorEntry::extent);
        let sections = [Some(self.graph), self.tokenizer].into_iter().flatten();
        sections.chain(tensors).chain(golden).map(|it| it.offset + it.bytes).max().unwrap_or(0)
    }
}

/// Bytes of the heap, as they were measured when the model was packed, with a margin for other processors.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heap {
    /// Held while the session is open for all that is planned. 0 where our kernels run the graph, whose need
    /// is computed.
    pub held_bytes: u64,
    /// At the highest, while it opens and runs. 0 where that is computed.
    pub peak_bytes: u64,
    /// What each thread takes where many of them set the peak. Absent where that is nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub thread_bytes: u64,
    /// The peak there, less what the threads take. Absent where that is nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub threaded_bytes: u64,
    /// Of it, what the tokenizer takes while it is read. Absent where that is nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tokenizer_bytes: u64,
    /// The same without the longest lengths, ascending. Absent where there is one length or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shorter: Vec<ShorterHeap>,
}

/// [`Heap`] of a session for sequences up to a length that is not the longest.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ShorterHeap {
    pub sequence: usize,
    pub held_bytes: u64,
    pub peak_bytes: u64,
}

impl Heap {
    /// How far so many threads raise the peak of one. It stays where it was while the session opens takes more
    /// than they do, and grows with each of them beyond.
    pub(crate) fn raised_by(&self, threads: usize) -> u64 {
        let taken = self.thread_bytes.saturating_mul(threads as u64);
        taken.saturating_add(self.threaded_bytes).saturating_sub(self.peak_bytes)
    }
}

fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

/// One example: inputs of the graph and the outputs that belong to them, by the graph's names.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenEntry {
    /// The text whose ids the inputs hold; none where they hold a pattern.
    pub text: Option<String>,
    /// What goes in.
    pub inputs: Vec<TensorEntry>,
    /// What comes out.
    pub outputs: Vec<TensorEntry>,
}

impl GoldenEntry {
    /// Inputs, then outputs: the order in which they lie in the file.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &TensorEntry> {
        self.inputs.iter().chain(&self.outputs)
    }
}

/// Where something lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extent {
    /// Bytes from the start of the file, a multiple of 64.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// A tensor in the file: a constant of the graph, or a part of a golden example.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorEntry {
    /// The value's name in the graph.
    pub name: String,
    /// Element type, by [`DType::name`].
    #[serde(with = "dtype_name")]
    pub dtype: DType,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Bytes from the start of the file, a multiple of 64.
    pub offset: u64,
    /// Length in bytes: the product of the shape times the element's size.
    pub bytes: u64,
}

impl TensorEntry {
    /// An entry for `tensor`, not placed yet.
    pub(crate) fn of(name: &str, tensor: &Tensor) -> TensorEntry {
        TensorEntry {
            name: name.to_owned(),
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            offset: 0,
            bytes: tensor.bytes().len() as u64,
        }
    }

    /// Where its values lie.
    pub fn extent(&self) -> Extent {
        Extent { offset: self.offset, bytes: self.bytes }
    }
}

mod dtype_name {
    use super::DType;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(dtype: &DType, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(dtype.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DType, D::Error> {
        let name = String::deserialize(from)?;
        DType::from_name(&name).ok_or_else(|| D::Error::custom(format!("no element type `{name}`")))
    }
}
