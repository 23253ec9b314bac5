//! A model opened once, inside a budget, and asked many times.

mod kernels;
#[cfg(feature = "tract")]
mod mixture;
#[cfg(not(feature = "tract"))]
#[path = "without_tract.rs"]
mod mixture;
mod signals;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use crate::budget::Budget;
use crate::bundle::Bundle;
use crate::decode::{self, Prediction};
use crate::error::{Error, Result};
use crate::exits::{self, Depth};
use crate::golden::Example;
use crate::graph::{Dim, Graph, ValueSpec};
use crate::heap::{self, HeapCounter};
use crate::manifest::{Manifest, Task};
use crate::network::Network;
use crate::operators::{Machine, Work};
use crate::plan::Plan;
use crate::profile::{Profile, Span};
use crate::program::Program;
use crate::shapes::{self, Fact, Shapes};
use crate::tensor::{DType, Tensor};
use crate::text::{self, Text};
use crate::trust::{Digest, PublicKey, TrustPolicy};
use kernels::Kernels;
use mixture::Mixture;
use signals::Signals;

/// What is asked of a graph over signals when it is given a text.
const NO_TOKENS: Error = Error::Missing {
    what: "input that takes the ids of a text",
    next: "give it tensors with `--input`",
};

/// What the command takes at the highest before it opens anything: all its flags, of which it keeps those that
/// were given.
const STARTING_BYTES: u64 = 202 * 1024;

/// What a program has taken beside the session.
const PROGRAM_BYTES: u64 = 120 * 1024;

/// Upper bound of what opening `bundle` takes besides: the parsed manifest and graph with their names and
/// steps, of which both are written out in the file, and the program around them.
fn opening_bytes(bundle: &Bundle) -> u64 {
    // As it was measured: a byte of the two becomes at most two.
    const PER_BYTE: u64 = 2;
    PROGRAM_BYTES + PER_BYTE * written_bytes(bundle)
}

/// Upper bound of what is taken while `bundle` is read, before a run takes anything.
fn reading_bytes(bundle: &Bundle) -> u64 {
    // As it was measured: while both are parsed, a byte of them becomes at most six.
    const PER_BYTE: u64 = 6;
    PROGRAM_BYTES + PER_BYTE * written_bytes(bundle)
}

/// The manifest and the graph as they are written in the file.
fn written_bytes(bundle: &Bundle) -> u64 {
    let manifest = bundle.manifest();
    manifest.graph.offset + manifest.graph.bytes
}

/// `plan`, where it takes no more to start, and to make `bundle` in this process; else what that takes.
fn with_beginning(plan: Plan, bundle: &Bundle) -> Plan {
    let beginning_bytes = match bundle.making_bytes() {
        0 => bundle.len() as u64 + STARTING_BYTES,
        bytes => bytes + opening_bytes(bundle),
    };
    let more = beginning_bytes.saturating_sub(plan.peak_bytes());
    Plan { scratch_bytes: plan.scratch_bytes + more, ..plan }
}

/// What the tokenizer of `bundle` takes at most, as it was measured when it was packed, or by its length.
fn tokenizer_bytes(bundle: &Bundle) -> u64 {
    let measured = bundle.manifest().heap.as_ref().map(|heap| heap.tokenizer_bytes);
    let bound = || bundle.tokenizer().map_or(0, |section| text::memory_bytes(&section));
    measured.unwrap_or_else(bound)
}

/// How a session is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// What it may take from memory.
    pub budget: Budget,
    /// Threads that work on one request.
    pub threads: NonZeroUsize,
    /// Longest sequence, in tokens; the model's own limit where it is `None` or lower.
    pub sequence: Option<usize>,
    /// Shapes to plan for instead of the model's own, each by the names of its inputs; where an input is
    /// left out, its batch is 1 and its other symbols have the extents that the named inputs give them. Inputs
    /// whose values decide how the model computes need [`Planned::Values`](crate::Planned::Values).
    pub shapes: Vec<Shapes>,
    /// Whose bundles it opens.
    pub trust: TrustPolicy,
    /// What the program's allocator counts, where it does: then the plan of an ONNX file holds what opening it
    /// was seen to take, and an estimate of it otherwise.
    pub heap: Option<HeapCounter>,
}

impl Default for Options {
    /// No limit, one thread, the model's own sequence length, anybody's bundle, nobody who counts.
    fn default() -> Options {
        Options {
            budget: Budget::UNLIMITED,
            threads: NonZeroUsize::MIN,
            sequence: None,
            shapes: Vec::new(),
            trust: TrustPolicy::AnyBundle,
            heap: None,
        }
    }
}

/// An open model. Predicting takes `&self`; callers on several threads take turns.
#[derive(Debug)]
pub struct Session {
    bundle: Arc<Bundle>,
    graph: Graph,
    executor: Executor,
    text: Option<Text>,
    plan: Plan,
    longest: usize,
    /// The exits that are looked at; none where the last layer always answers.
    early: Option<Early>,
}

/// Early exits as a session takes them.
#[derive(Debug)]
struct Early {
    /// The graph's outputs that are exits, the earliest first.
    outputs: Vec<usize>,
    threshold: f32,
}

#[derive(Debug)]
enum Executor {
    /// Our kernels, from end to end, on sequences of tokens.
    Kernels(Box<Kernels>),
    /// Our kernels, from end to end, on inputs of known shapes.
    Signals(Box<Signals>),
    /// tract, with our kernels where they compute a node.
    Mixture(Mixture),
}

impl Session {
    /// Opens a bundle, or an ONNX file, which is then optimized in memory and run in f32.
    ///
    /// # Errors
    /// [`Error::OverBudget`], before the memory is taken, where the plan exceeds the budget; the errors of
    /// [`Bundle::open_trusted`] and [`Graph::read_onnx`]; [`Error::Tokenizer`].
    pub fn open(path: &Path, options: &Options) -> Result<Session> {
        if !Bundle::is_bundle(path)? {
            // Its constants alone are as long as the file.
            let weights_bytes = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
            options.budget.admit(&[Plan { weights_bytes, ..Plan::default() }])?;
            if let Some(heap) = &options.heap {
                return Session::measured(path, options, heap);
            }
        }
        Session::from_bundle(bundle_at(path, options)?, options)
    }

    /// Opens an ONNX file, and plans with what that was seen to take: how much it takes to read and compile a
    /// file is in the hands of its author and of tract.
    fn measured(path: &Path, options: &Options, heap: &HeapCounter) -> Result<Session> {
        let before = (heap.current_bytes)();
        // What making the bundle takes is measured, not estimated.
        let open = || Session::from_bundle(bundle_at(path, options)?.made_of(0), options);
        let (mut session, opening) = heap.around(open)?;
        let held = (heap.current_bytes)().saturating_sub(before);
        let Plan { activations_bytes: live, scratch_bytes: scratch, .. } = session.plan;
        let peak = heap::with_margin(opening.max(held + live + scratch));
        session.plan.weights_bytes = held;
        session.plan.scratch_bytes = peak.saturating_sub(held + live);
        options.budget.admit(&[session.plan])?;
        Ok(session)
    }

    /// Opens a bundle that is already mapped.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn from_bundle(bundle: Bundle, options: &Options) -> Result<Session> {
        options.trust.admit(bundle.signed_by(), Path::new("memory"))?;
        let graph = bundle.graph()?;
        let planned = planned(&bundle, options.sequence)?;
        let bundle = Arc::new(bundle);
        let machine = || Machine::new(bundle.clone(), options.threads).map(Arc::new);
        let Ok(program) = Program::lower(&bundle, &graph) else {
            if let Ok(network) = Network::lower(&bundle, &graph) {
                let shapes = &bundle.manifest().shapes;
                let shapes = planned_shapes(&graph, &planned, shapes, &options.shapes)?;
                let plan = Signals::plan(&bundle, &graph, &network, &shapes, options.threads);
                options.budget.admit(&[plan])?;
                let signals = Box::new(Signals::new(network, machine()?, shapes));
                return Session::finish(
                    bundle,
                    graph,
                    Executor::Signals(signals),
                    plan,
                    usize::MAX,
                );
            }
            // tract copies its share of the weights; what it starts from is known before.
            let mut plans = Mixture::measured(&bundle, &planned, options);
            match &plans[..] {
                [] => options.budget.admit(&[Mixture::least(&bundle)])?,
                known => options.budget.admit(known)?,
            }
            let mixture = Mixture::new(machine()?, &graph, &planned, options)?;
            if plans.is_empty() {
                plans.push(with_beginning(mixture.plan(), &bundle));
            }
            options.budget.admit(&plans)?;
            let plan = plans[0];
            let longest = planned.last().copied().unwrap_or(usize::MAX);
            return Session::finish(bundle, graph, Executor::Mixture(mixture), plan, longest);
        };
        let longest = planned.last().map_or(program.positions, |&last| last.min(program.positions));
        let plans = Kernels::plans(&bundle, &program, &planned, options.threads);
        options.budget.admit(&plans)?;
        let kernels = Box::new(Kernels::new(program, machine()?, longest));
        Session::finish(bundle, graph, Executor::Kernels(kernels), plans[0], longest)
    }

    fn finish(
        bundle: Arc<Bundle>,
        graph: Graph,
        executor: Executor,
        plan: Plan,
        longest: usize,
    ) -> Result<Session> {
        let text =
            bundle.tokenizer().map(|section| Text::from_section(section, longest)).transpose()?;
        let mut session = Session { bundle, graph, executor, text, plan, longest, early: None };
        session.check_labels()?;
        session.early = session.exits()?;
        Ok(session)
    }

    /// The same session, taking early exits that are certain to `threshold`, 0 to 1, instead of what the bundle
    /// was calibrated to; at 1 it takes none.
    ///
    /// # Errors
    /// [`Error::Missing`] where the bundle has no early exits, or our kernels do not run it from end to end.
    pub fn with_exit_threshold(mut self, threshold: f32) -> Result<Session> {
        let early = self.early.take().ok_or(Error::Missing {
            what: "early exits that could be taken",
            next: "distil it with `student.exits`, and pack all of it for our kernels",
        })?;
        self.early = Some(Early { threshold, ..early });
        Ok(self)
    }

    /// The exits that the bundle names, where they can end a run.
    fn exits(&self) -> Result<Option<Early>> {
        let Some(exits) = &self.manifest().exits else { return Ok(None) };
        let place = |name: &String| {
            let place = self.graph.outputs.iter().position(|output| output.name == *name);
            let place = place.filter(|&place| {
                place > 0 && self.graph.outputs[place].shape == self.graph.outputs[0].shape
            });
            place.ok_or_else(|| {
                let expected = "a further output of the graph, shaped like the first";
                Error::graph("the manifest's exits", expected, format!("`{name}`"))
            })
        };
        let outputs = exits.outputs.iter().map(place).collect::<Result<_>>()?;
        // tract's plan has one end.
        let ends_early = matches!(self.executor, Executor::Kernels(_));
        Ok(ends_early.then_some(Early { outputs, threshold: exits.threshold }))
    }

    fn check_labels(&self) -> Result<()> {
        let labels = self.manifest().labels.len();
        let Some(output) = self.graph.outputs.first() else { return Ok(()) };
        match output.shape.last() {
            Some(&Dim::Fixed(width))
                if self.manifest().task == Task::Classify && labels != width =>
            {
                Err(Error::Labels { labels, output: output.name.clone(), width })
            }
            _ => Ok(()),
        }
    }

    /// What the model says of `text`. A text that is longer than the longest sequence is cut off.
    ///
    /// # Errors
    /// [`Error::Missing`] where the model has no tokenizer; [`Error::Labels`] where it gives more than
    /// one number a label; [`Error::Engine`].
    pub fn predict(&self, text: &str) -> Result<Prediction> {
        self.predict_with_depth(text).map(|(prediction, _)| prediction)
    }

    /// The same, and how far it computed; `None` where the model has no early exits that it could take.
    ///
    /// # Errors
    /// As [`Session::predict`].
    pub fn predict_with_depth(&self, text: &str) -> Result<(Prediction, Option<Depth>)> {
        let (scores, depth) = self.scores_and_depth(text)?;
        Ok((self.prediction(scores)?, depth))
    }

    /// The same for tensors, as [`Session::run`] takes them, with a batch of one.
    ///
    /// # Errors
    /// As [`Session::scores_of`].
    pub fn predict_tensors(&self, inputs: &BTreeMap<String, Tensor>) -> Result<Prediction> {
        self.prediction(self.scores_of(inputs)?)
    }

    fn prediction(&self, scores: Vec<f32>) -> Result<Prediction> {
        let labels = &self.manifest().labels;
        match self.manifest().task {
            Task::Classify if scores.len() != labels.len() => Err(self.unlabelled(scores.len())),
            Task::Classify => Ok(decode::ranked(labels, &scores)),
            Task::Embed | Task::Raw => Ok(Prediction::Embedding(scores)),
        }
    }

    /// The first output for `text`: with [`Task::Classify`] the probability of each label, 0 to 1, in
    /// the manifest's order; otherwise the vector as it comes.
    ///
    /// # Errors
    /// As [`Session::predict`].
    pub fn scores(&self, text: &str) -> Result<Vec<f32>> {
        self.scores_and_depth(text).map(|(scores, _)| scores)
    }

    fn scores_and_depth(&self, text: &str) -> Result<(Vec<f32>, Option<Depth>)> {
        let ids = self.tokenizer()?.ids(text)?;
        let (Some(early), Executor::Kernels(kernels)) = (&self.early, &self.executor) else {
            return Ok((self.scored(self.first_output(&ids)?)?, None));
        };
        self.check_length(ids.len())?;
        let enough = |answer: &Tensor| {
            let logits = answer.to_f32().unwrap_or_default();
            exits::is_certain(exits::likeliest(&logits).1, early.threshold)
        };
        let (output, answer) = kernels.run_until(&ids, &early.outputs, &enough)?;
        let place = early.outputs.iter().position(|&exit| exit == output);
        let work = |output| kernels.program.work_until(output, ids.len()).macs as f64;
        let depth = Depth {
            exit: 1 + place.unwrap_or(early.outputs.len()),
            compute: work(output) / work(0).max(1.0),
        };
        Ok((self.scored(values(Some(&answer))?)?, Some(depth)))
    }

    /// The same for tensors, as [`Session::run`] takes them; of a batch, row after row.
    ///
    /// # Errors
    /// As [`Session::run`]; [`Error::Labels`] where the first output has no number for each label.
    pub fn scores_of(&self, inputs: &BTreeMap<String, Tensor>) -> Result<Vec<f32>> {
        let outputs = self.run(inputs)?;
        self.scored(values(outputs.first().map(|(_, tensor)| tensor))?)
    }

    fn scored(&self, values: Vec<f32>) -> Result<Vec<f32>> {
        let labels = self.manifest().labels.len();
        match self.manifest().task {
            Task::Classify if labels == 0 || !values.len().is_multiple_of(labels) => {
                Err(self.unlabelled(values.len()))
            }
            Task::Classify => Ok(values.chunks_exact(labels).flat_map(decode::softmax).collect()),
            Task::Embed | Task::Raw => Ok(values),
        }
    }

    fn unlabelled(&self, width: usize) -> Error {
        let output = self.graph.outputs.first().map_or(String::new(), |output| output.name.clone());
        Error::Labels { labels: self.manifest().labels.len(), output, width }
    }

    fn tokenizer(&self) -> Result<&Text> {
        self.text.as_ref().ok_or(Error::Missing {
            what: "tokenizer",
            next: "pack it with `--tokenizer`, or give tensors with `--input`",
        })
    }

    /// The first output for one sequence of ids, none of them masked.
    fn first_output(&self, ids: &[i64]) -> Result<Vec<f32>> {
        let outputs = match &self.executor {
            Executor::Kernels(kernels) => {
                self.check_length(ids.len())?;
                kernels.run(ids, &vec![1; ids.len()])?
            }
            Executor::Mixture(mixture) => {
                let length = mixture.length_for(&self.graph, ids.len());
                let length = length.ok_or_else(|| self.too_long(ids.len()))?;
                mixture.run(&self.graph, &self.padded(ids, length))?
            }
            Executor::Signals(_) => return Err(NO_TOKENS),
        };
        values(outputs.first())
    }

    fn check_length(&self, tokens: usize) -> Result<()> {
        if tokens == 0 || tokens > self.longest {
            return Err(self.too_long(tokens));
        }
        Ok(())
    }

    fn too_long(&self, tokens: usize) -> Error {
        Error::Input {
            name: self.graph.inputs.first().map_or(String::new(), |input| input.name.clone()),
            expected: format!("1 to {} tokens", self.longest),
            got: format!("{tokens}; open it with a longer `--seq`"),
        }
    }

    /// The graph's inputs for `ids`, padded to `length` with masked tokens.
    fn padded(&self, ids: &[i64], length: usize) -> Vec<Tensor> {
        let padded = |values: &mut dyn Iterator<Item = i64>| {
            let values: Vec<i64> = values.chain(std::iter::repeat(0)).take(length).collect();
            Tensor::from_i64(&[1, length], &values)
        };
        let input = |input: &ValueSpec| match InputKind::of(input) {
            InputKind::Mask => padded(&mut ids.iter().map(|_| 1)),
            InputKind::Segments => padded(&mut std::iter::empty()),
            InputKind::Ids => padded(&mut ids.iter().copied()),
        };
        self.graph.inputs.iter().map(input).collect()
    }

    /// Runs the graph on tensors, by the names of its inputs; gives its outputs in order. Inputs may
    /// have any batch.
    ///
    /// # Errors
    /// [`Error::Input`] where one is missing, unknown, or not of the declared type and shape.
    pub fn run(&self, inputs: &BTreeMap<String, Tensor>) -> Result<Vec<(String, Tensor)>> {
        let given = self.in_order(inputs)?;
        let outputs = match &self.executor {
            Executor::Mixture(mixture) => mixture.run(&self.graph, &given)?,
            Executor::Signals(signals) => signals.run(&self.graph, given)?,
            Executor::Kernels(kernels) => {
                self.check_length(given[0].shape()[1])?;
                kernels.run_batch(inputs)?
            }
        };
        Ok(self.graph.outputs.iter().map(|output| output.name.clone()).zip(outputs).collect())
    }

    /// Runs the graph as [`Session::run`] does, and tells the operators in the order in which they ran, of a
    /// batch sequence by sequence, instead of the outputs.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn profile(&self, inputs: &BTreeMap<String, Tensor>) -> Result<Vec<Span>> {
        let given = self.in_order(inputs)?;
        let mut profile = Profile::begin();
        match &self.executor {
            Executor::Mixture(mixture) => mixture.profile(&self.graph, &given, &mut profile)?,
            Executor::Signals(signals) => signals.profile(&self.graph, given, &mut profile)?,
            Executor::Kernels(kernels) => {
                self.check_length(given[0].shape()[1])?;
                kernels.profile(&self.graph, inputs, &mut profile)?;
            }
        }
        Ok(profile.into_spans())
    }

    fn in_order(&self, inputs: &BTreeMap<String, Tensor>) -> Result<Vec<Tensor>> {
        let declared = || self.graph.inputs.iter().map(ValueSpec::to_string).collect::<Vec<_>>();
        if let Some(name) =
            inputs.keys().find(|name| !self.graph.inputs.iter().any(|i| i.name == **name))
        {
            return Err(Error::Input {
                name: name.clone(),
                expected: format!("one of: {}", declared().join("; ")),
                got: "an input that the model does not have".to_owned(),
            });
        }
        let value = |spec: &ValueSpec| {
            let refuse = |got: String| Error::Input {
                name: spec.name.clone(),
                expected: spec.to_string(),
                got,
            };
            let tensor = inputs.get(&spec.name).ok_or_else(|| refuse("none".to_owned()))?;
            let fits = |(dim, &extent): (&Dim, &usize)| match dim {
                Dim::Fixed(fixed) => *fixed == extent,
                Dim::Symbol(_) => extent > 0,
            };
            let shaped = tensor.shape().len() == spec.shape.len()
                && spec.shape.iter().zip(tensor.shape()).all(fits);
            if tensor.dtype() != spec.dtype || !shaped {
                return Err(refuse(format!("{} {:?}", tensor.dtype(), tensor.shape())));
            }
            Ok(tensor.clone())
        };
        self.graph.inputs.iter().map(value).collect()
    }

    /// Tensors to time a run with: `sequence` tokens of ordinary ids, nothing masked; other inputs hold
    /// a fixed pattern.
    pub fn example(&self, sequence: usize) -> BTreeMap<String, Tensor> {
        // The first ids exist in every vocabulary.
        let ids: Vec<i64> = (0..sequence as i64).map(|place| 1 + place % 7).collect();
        let tensors = match takes_ids(&self.graph) {
            true => self.padded(&ids, sequence),
            false => self.example_facts(sequence).iter().map(Fact::pattern).collect(),
        };
        self.graph.inputs.iter().map(|input| input.name.clone()).zip(tensors).collect()
    }

    /// The inputs whose values, not only their shapes, decide how the model computes: what it is planned for
    /// must give them.
    pub fn controls(&self) -> Vec<&ValueSpec> {
        match &self.executor {
            Executor::Kernels(_) | Executor::Signals(_) => Vec::new(),
            Executor::Mixture(mixture) => {
                mixture.controls().iter().map(|&input| &self.graph.inputs[input]).collect()
            }
        }
    }

    /// Whether [`Session::example`] is one that this session is planned for: not where the model's shapes are
    /// open, or a value decides how it computes, and none was chosen.
    pub fn has_example(&self) -> bool {
        match &self.executor {
            Executor::Kernels(_) | Executor::Signals(_) => true,
            Executor::Mixture(mixture) => mixture.planned_facts().next().is_some(),
        }
    }

    /// The shapes of [`Session::example`]: those of `sequence` tokens, else the first that were planned for.
    fn example_facts(&self, sequence: usize) -> Vec<Fact> {
        match &self.executor {
            Executor::Mixture(mixture) => mixture.example_facts(&self.graph, sequence),
            Executor::Signals(signals) => signals.planned()[0].clone(),
            Executor::Kernels(_) => facts(&self.graph, sequence),
        }
    }

    /// Inputs of every length, or of every shape, that was planned for.
    pub(crate) fn examples(&self) -> Vec<BTreeMap<String, Tensor>> {
        let names = || self.graph.inputs.iter().map(|input| input.name.clone());
        let of_shapes = |facts: &[Fact]| names().zip(facts.iter().map(Fact::pattern)).collect();
        match &self.executor {
            Executor::Kernels(_) => vec![self.example(self.longest)],
            Executor::Signals(signals) => {
                signals.planned().iter().map(|facts| of_shapes(facts)).collect()
            }
            Executor::Mixture(mixture) => match mixture.lengths() {
                [] => mixture.planned_facts().map(of_shapes).collect(),
                lengths => lengths.iter().map(|&length| self.example(length)).collect(),
            },
        }
    }

    /// The graph's inputs for `text`, by name: as long as its ids are, or as the next planned length where
    /// tract runs the graph.
    ///
    /// # Errors
    /// [`Error::Missing`] where the model has no tokenizer; [`Error::Tokenizer`].
    pub(crate) fn text_inputs(&self, text: &str) -> Result<Vec<(String, Tensor)>> {
        let ids = self.tokenizer()?.ids(text)?;
        let length = match &self.executor {
            Executor::Kernels(_) => ids.len(),
            Executor::Mixture(mixture) => mixture
                .length_for(&self.graph, ids.len())
                .ok_or_else(|| self.too_long(ids.len()))?,
            Executor::Signals(_) => return Err(NO_TOKENS),
        };
        let names = self.graph.inputs.iter().map(|input| input.name.clone());
        Ok(names.zip(self.padded(&ids, length)).collect())
    }

    /// Whether `inputs`, which belong to this graph, are of a length that this session is planned for.
    pub(crate) fn has_room_for(&self, inputs: &[(String, Tensor)]) -> bool {
        let length = inputs.first().and_then(|(_, tensor)| tensor.shape().get(1).copied());
        match (&self.executor, length) {
            (Executor::Kernels(_), Some(length)) => length <= self.longest,
            (Executor::Mixture(mixture), Some(length)) if !mixture.lengths().is_empty() => {
                mixture.lengths().contains(&length)
            }
            _ => true,
        }
    }

    /// Whether it takes sequences as long as its bundle was packed for.
    pub(crate) fn is_at_full_length(&self) -> bool {
        self.manifest().sequences.last().is_none_or(|&longest| longest <= self.longest)
    }

    /// The golden examples of its bundle.
    pub(crate) fn golden(&self) -> Result<Vec<Example>> {
        self.bundle.golden()
    }

    /// All bytes of its bundle.
    pub(crate) fn image(&self) -> &[u8] {
        self.bundle.image()
    }

    /// The digest of its bundle.
    pub fn digest(&self) -> Digest {
        self.bundle.digest()
    }

    /// Whose signature its bundle carries.
    pub fn signed_by(&self) -> Option<&PublicKey> {
        self.bundle.signed_by()
    }

    /// Arithmetic of one run of `sequence` tokens; for a graph that tract runs, of the next planned
    /// length.
    pub fn work(&self, sequence: usize) -> Work {
        match &self.executor {
            Executor::Kernels(kernels) => kernels.program.work(sequence),
            Executor::Signals(signals) => signals.network.work(),
            Executor::Mixture(mixture) => mixture.work(&self.graph, sequence),
        }
    }

    /// Share of the multiply-accumulates of such a run that are on int8 numbers, 0 to 1; `None` where none is
    /// planned for, as [`Session::has_example`] says.
    pub fn int8_mac_share(&self, sequence: usize) -> Option<f64> {
        self.has_example().then(|| self.work(sequence).int8_mac_share())
    }

    /// The graph's inputs, in order.
    pub fn inputs(&self) -> &[ValueSpec] {
        &self.graph.inputs
    }

    /// The graph's outputs, in order.
    pub fn outputs(&self) -> &[ValueSpec] {
        &self.graph.outputs
    }

    /// The graph, as it is stored.
    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Whether its outputs are tensors, not labels or text vectors.
    pub(crate) fn is_raw(&self) -> bool {
        self.manifest().task == Task::Raw
    }

    /// What it takes from memory at most.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What the bundle says of itself.
    pub fn manifest(&self) -> &Manifest {
        self.bundle.manifest()
    }

    /// Longest sequence that it takes, in tokens; `usize::MAX` where its shapes are fixed.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// What runs the graph: `kernels` for our own from end to end, `tract` where none of ours computes a
    /// node, else `mixture`.
    pub fn executor(&self) -> &'static str {
        match (&self.executor, self.operators()) {
            (Executor::Kernels(_) | Executor::Signals(_), _) => "kernels",
            (_, Operators { kernels: 0, .. }) => "tract",
            _ => "mixture",
        }
    }

    /// How many operators of the graph each executor computes.
    pub fn operators(&self) -> Operators {
        let (kernels, tract) = match &self.executor {
            Executor::Kernels(kernels) => (kernels.program.len(), 0),
            Executor::Signals(signals) => (signals.network.len(), 0),
            Executor::Mixture(mixture) => mixture.operators(),
        };
        Operators { kernels, tract }
    }
}

/// How many operators of a graph are computed by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Operators {
    /// By our kernels.
    pub kernels: usize,
    /// By tract.
    pub tract: usize,
}

/// What a session of the model at `path` would take from memory, for each sequence length that it is
/// planned for up to that of `options`, the longest first. The budget of `options` is not looked at.
///
/// # Errors
/// As [`Session::open`].
pub fn plans(path: &Path, options: &Options) -> Result<Vec<Plan>> {
    let unlimited = || Options { budget: Budget::UNLIMITED, ..options.clone() };
    if options.heap.is_some() && !Bundle::is_bundle(path)? {
        return Ok(vec![*Session::open(path, &unlimited())?.plan()]);
    }
    let bundle = bundle_at(path, options)?;
    let (graph, planned) = (bundle.graph()?, planned(&bundle, options.sequence)?);
    if let Ok(program) = Program::lower(&bundle, &graph) {
        return Ok(Kernels::plans(&bundle, &program, &planned, options.threads));
    }
    if let Ok(network) = Network::lower(&bundle, &graph) {
        let shapes = &bundle.manifest().shapes;
        let shapes = planned_shapes(&graph, &planned, shapes, &options.shapes)?;
        return Ok(vec![Signals::plan(&bundle, &graph, &network, &shapes, options.threads)]);
    }
    let measured = Mixture::measured(&bundle, &planned, options);
    if !measured.is_empty() {
        return Ok(measured);
    }
    // tract tells what it needs only once it has compiled; one session serves all lengths.
    Ok(vec![*Session::from_bundle(bundle, &unlimited())?.plan()])
}

/// What a session of a graph that takes other inputs than tokens is planned for: the sequence lengths, the shapes, or the only one that
/// there is.
fn planned_shapes(
    graph: &Graph,
    lengths: &[usize],
    stored: &[Shapes],
    asked: &[Shapes],
) -> Result<Vec<Vec<Fact>>> {
    let shapes = if asked.is_empty() { stored } else { asked };
    if !shapes.is_empty() {
        return shapes.iter().map(|shapes| shapes::facts(graph, shapes)).collect();
    }
    let open = graph.inputs.iter().flat_map(|input| input.shape.iter().skip(1));
    match lengths {
        [] if open.into_iter().any(|dim| matches!(dim, Dim::Symbol(_))) => Ok(Vec::new()),
        [] => Ok(vec![facts(graph, 1)]),
        lengths => Ok(lengths.iter().map(|&length| facts(graph, length)).collect()),
    }
}

/// What a model's sessions will run, and on what.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    /// As [`Session::executor`].
    pub(crate) executor: &'static str,
    /// As [`Session::operators`].
    pub(crate) operators: Operators,
    /// The arithmetic of one run, by planned length; the length is 1 where shapes are fixed.
    pub(crate) work: BTreeMap<usize, Work>,
}

/// Surveys the model at `path`. A graph that our kernels run from end to end is not opened for it.
///
/// # Errors
/// As [`Session::open`].
pub(crate) fn survey(path: &Path) -> Result<Survey> {
    let bundle = bundle_at(path, &Options::default())?;
    let lengths = match &bundle.manifest().sequences[..] {
        [] => vec![1],
        lengths => lengths.to_vec(),
    };
    let by_length = |work: &dyn Fn(usize) -> Work| {
        lengths.iter().map(|&length| (length, work(length))).collect::<BTreeMap<_, _>>()
    };
    if let Ok(program) = Program::lower(&bundle, &bundle.graph()?) {
        return Ok(Survey {
            executor: "kernels",
            operators: Operators { kernels: program.len(), tract: 0 },
            work: by_length(&|length| program.work(length)),
        });
    }
    if let Ok(network) = Network::lower(&bundle, &bundle.graph()?) {
        return Ok(Survey {
            executor: "kernels",
            operators: Operators { kernels: network.len(), tract: 0 },
            work: by_length(&|_| network.work()),
        });
    }
    let session = Session::from_bundle(bundle, &Options::default())?;
    Ok(Survey {
        executor: session.executor(),
        operators: session.operators(),
        work: by_length(&|length| session.work(length)),
    })
}

fn bundle_at(path: &Path, options: &Options) -> Result<Bundle> {
    #[cfg(feature = "tract")]
    if !Bundle::is_bundle(path)? {
        // An ONNX file carries no signature.
        options.trust.admit(None, path)?;
        return crate::prepare::bundle_of_onnx(path, options.sequence);
    }
    Bundle::open_trusted(path, &options.trust)
}

/// Whether all that goes in is `[batch, sequence]` of i64, as a tokenizer gives.
pub(crate) fn takes_ids(graph: &Graph) -> bool {
    graph.inputs.iter().all(|input| input.dtype == DType::I64 && input.shape.len() == 2)
}

/// The part that an i64 input `[batch, sequence]` plays, by the names that exporters give.
enum InputKind {
    Ids,
    Mask,
    Segments,
}

impl InputKind {
    fn of(input: &ValueSpec) -> InputKind {
        match input.name.as_str() {
            name if name.contains("mask") => InputKind::Mask,
            name if name.contains("type") || name.contains("segment") => InputKind::Segments,
            _ => InputKind::Ids,
        }
    }
}

/// The planned lengths up to `limit`, ascending. A limit below the shortest is a length of its own.
fn planned(bundle: &Bundle, limit: Option<usize>) -> Result<Vec<usize>> {
    let sequences = &bundle.manifest().sequences;
    let (Some(limit), Some(&longest)) = (limit, sequences.last()) else {
        return Ok(sequences.clone());
    };
    if limit > longest || limit == 0 {
        return Err(Error::Input {
            name: "sequence".to_owned(),
            expected: format!("1 to {longest} tokens"),
            got: format!("{limit}; pack it with a longer `--seq`"),
        });
    }
    let mut planned: Vec<usize> =
        sequences.iter().copied().filter(|&length| length < limit).collect();
    planned.push(limit);
    Ok(planned)
}

/// Concrete types and shapes of a graph's inputs: a batch of one, every other symbol `length`.
pub(crate) fn facts(graph: &Graph, length: usize) -> Vec<Fact> {
    let extent = |(axis, dim): (usize, &Dim)| match dim {
        Dim::Fixed(extent) => *extent,
        Dim::Symbol(_) if axis == 0 => 1,
        Dim::Symbol(_) => length,
    };
    let fact = |input: &ValueSpec| {
        let shape: Vec<usize> = input.shape.iter().enumerate().map(extent).collect();
        Fact::new(input.dtype, &shape)
    };
    graph.inputs.iter().map(fact).collect()
}

/// The values of the first output.
fn values(output: Option<&Tensor>) -> Result<Vec<f32>> {
    let values = output.and_then(Tensor::to_f32);
    values.ok_or_else(|| Error::graph("the first output", "f32 values", "another type"))
}
