//! A model as plain data: the ONNX graph with its attributes and initializers in our own types.
//!
//! Everything upstream of a running session speaks this one form: the exporter builds it, the
//! loader reads it, every pass rewrites it, and the bundle stores it. Operators of our own have
//! the domain [`DRAM_DOMAIN`]; all others mean what the ONNX operator page says for the opset.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// Domain of the fused operators that `optimize` and `quantize` put in.
pub const DRAM_DOMAIN: &str = "dram";

/// A directed acyclic graph of operators over named values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// The graph's name.
    pub name: String,
    /// Operator set versions by domain; `""` is ONNX's own.
    pub opsets: BTreeMap<String, i64>,
    /// What the caller gives, in order.
    pub inputs: Vec<ValueSpec>,
    /// What the caller gets, in order.
    pub outputs: Vec<ValueSpec>,
    /// Operators, every one after those whose values it reads.
    pub nodes: Vec<Node>,
    /// Constants by value name.
    pub initializers: BTreeMap<String, Tensor>,
    /// The model's free key-value properties.
    pub metadata: BTreeMap<String, String>,
}

/// Name, type and shape of an input or output.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueSpec {
    /// The value's name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Extents, outermost first.
    pub shape: Vec<Dim>,
}

impl ValueSpec {
    /// A value of that name, type and shape.
    pub fn new(name: &str, dtype: DType, shape: &[Dim]) -> ValueSpec {
        ValueSpec { name: name.to_owned(), dtype, shape: shape.to_vec() }
    }
}

impl std::fmt::Display for ValueSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shape: Vec<String> = self.shape.iter().map(Dim::to_string).collect();
        write!(f, "{} {} [{}]", self.name, self.dtype, shape.join(", "))
    }
}

/// One extent of a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Known.
    Fixed(usize),
    /// Chosen by the caller; equal names are equal extents.
    Symbol(String),
}

impl std::fmt::Display for Dim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Dim::Fixed(extent) => write!(f, "{extent}"),
            Dim::Symbol(name) => f.write_str(name),
        }
    }
}

/// One operator and the values it reads and writes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// The node's name; may be empty.
    pub name: String,
    /// Operator domain; `""` is ONNX's own.
    pub domain: String,
    /// Operator, as ONNX spells it: `MatMul`.
    pub op: String,
    /// Values read; an empty name is an optional input left out.
    pub inputs: Vec<String>,
    /// Values written; an empty name is an optional output left out.
    pub outputs: Vec<String>,
    /// Attributes by name.
    pub attributes: BTreeMap<String, Attribute>,
}

/// The value of a node's attribute.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Attribute {
    Int(i64),
    Float(f32),
    String(String),
    Tensor(Tensor),
    Graph(Box<Graph>),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Strings(Vec<String>),
}

impl Node {
    /// A node of ONNX's own domain, named after its first output.
    pub fn new(op: &str, inputs: &[&str], outputs: &[&str]) -> Node {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Node {
            name: outputs.first().copied().unwrap_or_default().to_owned(),
            op: op.to_owned(),
            inputs: owned(inputs),
            outputs: owned(outputs),
            ..Node::default()
        }
    }

    /// A node of the domain [`DRAM_DOMAIN`].
    pub fn fused(op: &str, inputs: &[&str], outputs: &[&str]) -> Node {
        Node { domain: DRAM_DOMAIN.to_owned(), ..Node::new(op, inputs, outputs) }
    }

    /// The same node with one attribute more.
    pub fn with(mut self, name: &str, value: Attribute) -> Node {
        self.attributes.insert(name.to_owned(), value);
        self
    }

    /// Whether it is ONNX's operator `op`.
    pub fn is(&self, op: &str) -> bool {
        self.op == op && self.is_onnx()
    }

    /// Whether it is our operator `op`.
    pub fn is_fused(&self, op: &str) -> bool {
        self.op == op && self.domain == DRAM_DOMAIN
    }

    /// Whether its domain is ONNX's own.
    pub fn is_onnx(&self) -> bool {
        self.domain.is_empty() || self.domain == "ai.onnx"
    }

    /// The name of input `index`; `None` where it is left out.
    pub fn input(&self, index: usize) -> Option<&str> {
        self.inputs.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The name of its first output; `""` where there is none.
    pub fn output(&self) -> &str {
        self.outputs.first().map_or("", String::as_str)
    }

    /// An integer attribute; `default` where it is absent or of another type.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        match self.attributes.get(name) {
            Some(Attribute::Int(value)) => *value,
            _ => default,
        }
    }

    /// A float attribute; `default` where it is absent or of another type.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        match self.attributes.get(name) {
            Some(Attribute::Float(value)) => *value,
            _ => default,
        }
    }

    /// A string attribute; `default` where it is absent or of another type.
    pub fn string<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        match self.attributes.get(name) {
            Some(Attribute::String(value)) => value,
            _ => default,
        }
    }

    /// A list of integers; `None` where it is absent or of another type.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attributes.get(name) {
            Some(Attribute::Ints(values)) => Some(values),
            _ => None,
        }
    }

    /// Its operator, with the domain where that is not ONNX's.
    pub fn kind(&self) -> String {
        if self.is_onnx() { self.op.clone() } else { format!("{}.{}", self.domain, self.op) }
    }

    /// How messages name it: operator, opset-free, and its name.
    pub fn place(&self) -> String {
        let name = if self.name.is_empty() { self.output() } else { &self.name };
        format!("{} `{name}`", self.kind())
    }

    /// Reads other values instead of those that `renamed` names, in its subgraphs too.
    pub(crate) fn rename_reads(&mut self, renamed: &BTreeMap<String, String>) {
        for input in &mut self.inputs {
            if let Some(name) = renamed.get(input) {
                input.clone_from(name);
            }
        }
        for attribute in self.attributes.values_mut() {
            if let Attribute::Graph(graph) = attribute {
                let mut around = renamed.clone();
                around.retain(|name, _| !graph.binds(name));
                graph.nodes.iter_mut().for_each(|node| node.rename_reads(&around));
                for output in &mut graph.outputs {
                    if let Some(name) = around.get(&output.name) {
                        output.name.clone_from(name);
                    }
                }
            }
        }
    }

    /// The subgraphs it carries (`If`, `Loop`, `Scan`).
    pub fn subgraphs(&self) -> impl Iterator<Item = &Graph> {
        self.attributes.values().filter_map(|attribute| match attribute {
            Attribute::Graph(graph) => Some(&**graph),
            _ => None,
        })
    }
}

impl Node {
    /// As [`Node::subgraphs`], to rewrite them.
    pub(crate) fn subgraphs_mut(&mut self) -> impl Iterator<Item = &mut Graph> {
        self.attributes.values_mut().filter_map(|attribute| match attribute {
            Attribute::Graph(graph) => Some(&mut **graph),
            _ => None,
        })
    }
}

impl Graph {
    /// The node that writes `value`, by position; `None` for inputs and initializers.
    pub fn producer(&self, value: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.outputs.iter().any(|output| output == value))
    }

    /// How often `value` is read: by nodes, by the nodes of subgraphs, and as an output.
    pub fn uses(&self, value: &str) -> usize {
        let outputs = self.outputs.iter().filter(|output| output.name == value).count();
        let reads: usize = self
            .nodes
            .iter()
            .map(|node| {
                node.inputs.iter().filter(|&input| input == value).count()
                    + node.subgraphs().map(|graph| graph.uses(value)).sum::<usize>()
            })
            .sum();
        outputs + reads
    }

    /// Removes nodes and initializers that no output depends on; returns how many nodes went.
    pub fn remove_dead(&mut self) -> usize {
        let mut live: BTreeSet<String> = self.outputs.iter().map(|o| o.name.clone()).collect();
        let before = self.nodes.len();
        let mut kept = Vec::with_capacity(before);
        for node in std::mem::take(&mut self.nodes).into_iter().rev() {
            if node.outputs.iter().any(|output| live.contains(output)) {
                live.extend(node.inputs.iter().cloned());
                node.subgraphs().for_each(|graph| live.extend(graph.free_values()));
                kept.push(node);
            }
        }
        kept.reverse();
        self.nodes = kept;
        self.initializers.retain(|name, _| live.contains(name));
        before - self.nodes.len()
    }

    /// Every value that a node, a subgraph or an output reads.
    pub(crate) fn values_read(&self) -> BTreeSet<String> {
        let mut read: BTreeSet<String> = self.outputs.iter().map(|o| o.name.clone()).collect();
        for node in &self.nodes {
            read.extend(node.inputs.iter().cloned());
            node.subgraphs().for_each(|graph| read.extend(graph.free_values()));
        }
        read
    }

    /// The same graph with no constants; a pass that looks at a part of a large model must not
    /// copy all its weights.
    pub(crate) fn clone_without_initializers(&self) -> Graph {
        Graph {
            name: self.name.clone(),
            opsets: self.opsets.clone(),
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
            nodes: self.nodes.clone(),
            initializers: BTreeMap::new(),
            metadata: BTreeMap::new(),
        }
    }

    /// Whether `value` is one of its own, and not of a graph around it.
    pub(crate) fn binds(&self, value: &str) -> bool {
        self.initializers.contains_key(value)
            || self.inputs.iter().any(|input| input.name == value)
            || self.producer(value).is_some()
    }

    /// The part that `value` depends on, as a graph with that one output.
    pub(crate) fn ancestors(&self, value: &str) -> Graph {
        let mut part = Graph {
            name: value.to_owned(),
            outputs: vec![ValueSpec::new(value, DType::F32, &[])],
            ..self.clone_without_initializers()
        };
        part.remove_dead();
        let reads = |name: &str| part.uses(name) > 0;
        let initializers = self.initializers.iter().filter(|(name, _)| reads(name));
        let initializers =
            initializers.map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
        part.inputs = self.inputs.iter().filter(|input| reads(&input.name)).cloned().collect();
        part.initializers = initializers;
        part
    }

    /// The values that this graph, as a subgraph, reads from the graphs around it.
    fn free_values(&self) -> BTreeSet<String> {
        let mut bound: BTreeSet<&str> = self.inputs.iter().map(|i| i.name.as_str()).collect();
        bound.extend(self.initializers.keys().map(String::as_str));
        bound.extend(self.nodes.iter().flat_map(|n| &n.outputs).map(String::as_str));
        let mut read = self.values_read();
        read.retain(|value| !value.is_empty() && !bound.contains(value.as_str()));
        read
    }

    /// Checks what every later stage relies on: each value is written once and before it is read,
    /// and each output exists.
    ///
    /// # Errors
    /// [`Error::Graph`] with the first node or output that breaks this.
    pub fn validate(&self) -> Result<()> {
        self.validate_within(&BTreeSet::new())
    }

    /// As [`Graph::validate`], where the values `around` are known too.
    pub(crate) fn validate_within(&self, around: &BTreeSet<String>) -> Result<()> {
        let mut known = around.clone();
        known.extend(self.initializers.keys().cloned());
        known.extend(self.inputs.iter().map(|input| input.name.clone()));
        for node in &self.nodes {
            if let Some(missing) =
                node.inputs.iter().find(|name| !name.is_empty() && !known.contains(*name))
            {
                return Err(Error::graph(
                    node.place(),
                    "inputs that an earlier node, an input or an initializer provides",
                    format!("`{missing}`, which nothing before it writes"),
                ));
            }
            for graph in node.subgraphs() {
                graph.validate_within(&known)?;
            }
            for output in node.outputs.iter().filter(|name| !name.is_empty()) {
                if !known.insert(output.clone()) {
                    return Err(Error::graph(
                        node.place(),
                        "outputs that nothing else writes",
                        format!("`{output}` a second time"),
                    ));
                }
            }
        }
        match self.outputs.iter().find(|output| !known.contains(&output.name)) {
            None => Ok(()),
            Some(output) => Err(Error::graph(
                format!("output `{}`", output.name),
                "a node, input or initializer of that name",
                "none",
            )),
        }
    }

    /// Number of parameters: the elements of all floating-point or 8-bit initializers.
    pub fn parameters(&self) -> usize {
        let counts = |dtype| {
            use DType::*;
            matches!(dtype, F32 | F64 | F16 | Bf16 | I8 | U8)
        };
        self.initializers.values().filter(|t| counts(t.dtype())).map(Tensor::len).sum()
    }
}
