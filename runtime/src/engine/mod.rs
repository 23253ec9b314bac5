//! tract, seen from the rest of this crate: which operators it knows, and graphs compiled for concrete
//! shapes, alone or as a mixture of its operators and ours.
//!
//! Only this module and `onnx` name tract.

mod grid;
mod growth;
mod operator;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tract_core::internal::Cost;
use tract_core::ops::konst::Const;
use tract_core::optim::Optimizer;
use tract_core::plan::eval;
use tract_onnx::pb;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::InferenceOp;

use crate::error::{Error, Result};
use crate::graph::{DRAM_DOMAIN, Graph, Node};
use crate::operators::{Machine, Operator, Work};
use crate::profile::Profile;
use crate::rewrite::{self, operators};
use crate::shapes::{self, Fact};
use crate::tensor::{self, DType};
use operator::Kernel;

/// A stored graph with its constants, of which our kernels compute what they can and tract the rest.
#[derive(Debug)]
pub(crate) struct Mixture {
    /// The graph without the constants that our kernels read where they lie.
    graph: Graph,
    /// Our operators by the value that each writes.
    operators: BTreeMap<String, Arc<Operator>>,
    machine: Arc<Machine>,
}

impl Mixture {
    /// Finds the operators of `graph`, whose constants lie in the machine's bundle.
    ///
    /// # Errors
    /// [`Error::Graph`] where a node of ours contradicts its kernel.
    pub(crate) fn new(machine: &Arc<Machine>, graph: &Graph) -> Result<Mixture> {
        let mut graph = graph.clone();
        let mut operators = BTreeMap::new();
        for node in &mut graph.nodes {
            if let Some(operator) = Operator::of(&machine.bundle, node)? {
                let values = operator.values(node).into_iter().map(str::to_owned).collect();
                operators.insert(node.output().to_owned(), Arc::new(operator));
                // A name that no operator of ONNX has; constants stay behind.
                *node = Node { op: format!("dram.{}", node.op), inputs: values, ..node.clone() };
            }
        }
        let read = graph.values_read();
        let entries = machine.bundle.manifest().tensors.iter();
        let tensors = entries
            .filter(|entry| read.contains(&entry.name))
            .map(|entry| Ok((entry.name.clone(), machine.bundle.tensor(entry)?)));
        graph.initializers = tensors.collect::<Result<_>>()?;
        Ok(Mixture { graph, operators, machine: machine.clone() })
    }

    /// Operators that our kernels compute, and those that tract does.
    pub(crate) fn operators(&self) -> (usize, usize) {
        (self.operators.len(), self.graph.nodes.len() - self.operators.len())
    }

    /// Bytes of the constants that tract copies.
    pub(crate) fn copied_bytes(&self) -> u64 {
        self.graph.initializers.values().map(|tensor| tensor.bytes().len() as u64).sum()
    }

    /// Gives back the pages of the constants that tract has copied.
    pub(crate) fn release(&self) {
        self.graph.initializers.values().for_each(tensor::Tensor::release);
    }

    /// The graph, with a node that ONNX does not know for each of our operators.
    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Compiles it for inputs of exactly these types, shapes and known values, in the order of the graph's
    /// inputs. Constants that one of `others` has too are shared with it.
    ///
    /// # Errors
    /// [`Error::Engine`] with tract's report; those of [`rewrite::specialize`].
    pub(crate) fn compile(&self, inputs: &[Fact], others: &[&Compiled]) -> Result<Compiled> {
        let ours = |output: &str| {
            let operator = self.operators.get(output)?.clone();
            Some(Kernel::expansion(operator, self.machine.clone()))
        };
        let constant = |part: &Graph, facts: &[Fact]| constant(part, facts, ours);
        let graph = rewrite::specialize(&self.graph, inputs, &constant)?;
        Compiled::new(&graph, inputs, ours, others)
    }
}

/// A graph compiled by tract for concrete input shapes.
#[derive(Debug)]
pub(crate) struct Compiled {
    name: String,
    plan: Arc<RunnableModel<TypedFact, Box<dyn TypedOp>>>,
}

/// What a compiled graph takes from memory, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Constants that tract keeps.
    pub(crate) constants: u64,
    /// Everything live at the widest moment.
    pub(crate) live: u64,
    /// Scratch of our operators.
    pub(crate) scratch: u64,
}

impl Memory {
    /// That of two forms, of which one runs at a time.
    pub(crate) fn beside(self, other: Memory) -> Memory {
        Memory {
            constants: self.constants + other.constants,
            live: self.live.max(other.live),
            scratch: self.scratch.max(other.scratch),
        }
    }
}

impl Compiled {
    /// Compiles `graph` for inputs of exactly these types and shapes, in the order of its inputs, with our
    /// operator where `ours` has one for a node's output, and with the constants of `others` where they are
    /// equal.
    fn new(
        graph: &Graph,
        inputs: &[Fact],
        ours: impl Fn(&str) -> Option<Box<dyn InferenceOp>>,
        others: &[&Compiled],
    ) -> Result<Compiled> {
        let doing = format!("preparing `{}` for {}", graph.name, list(graph, inputs));
        let plan = guarded(doing, || {
            let mut model = typed(graph, inputs, ours)?;
            let codegen = Optimizer::codegen().stopping_at(most_steps(&model));
            model.optimize_with_session(&mut codegen.session())?;
            share_constants(&mut model, others)?;
            model.into_runnable()
        })?;
        Ok(Compiled { name: graph.name.clone(), plan })
    }

    /// Runs it once.
    ///
    /// # Errors
    /// [`Error::Engine`] with tract's report.
    pub(crate) fn run(&self, inputs: &[tensor::Tensor]) -> Result<Vec<tensor::Tensor>> {
        guarded(format!("running `{}`", self.name), || {
            let outputs = self.plan.run(to_values(inputs)?)?;
            outputs.iter().map(|output| from_tract(output)).collect()
        })
    }

    /// Runs it once and notes its operators in `profile`, ours by what `stored` calls what writes a value.
    ///
    /// # Errors
    /// As [`Compiled::run`].
    pub(crate) fn profile(
        &self,
        inputs: &[tensor::Tensor],
        stored: &dyn Fn(&str) -> String,
        profile: &mut Profile,
    ) -> Result<()> {
        let model = self.plan.model();
        guarded(format!("running `{}`", self.name), || {
            let mut state = self.plan.spawn()?;
            state.run_plan_with_eval(to_values(inputs)?, |context, state, node, values| {
                let operator = match node.op_is::<Kernel>() {
                    true => stored(&node.name),
                    false => node.op.name().into_owned(),
                };
                let work = work_of(model, node);
                profile.time((&node.name, operator), work, || eval(context, state, node, values))
            })?;
            Ok(())
        })
    }

    /// The arithmetic of one run; for operators of its own, as tract counts it.
    pub(crate) fn work(&self) -> Work {
        let model = self.plan.model();
        let mut work = Work::default();
        for node in model.nodes() {
            work += work_of(model, node);
        }
        work
    }

    /// What it takes from memory.
    pub(crate) fn memory(&self) -> Memory {
        let model = self.plan.model();
        let bytes = |fact: &TypedFact| fact.mem_size().to_i64().unwrap_or(0) as u64;
        let constants = model.nodes().iter().flat_map(|node| &node.outputs);
        let constants = constants.filter_map(|o| o.fact.konst.as_ref());
        let constants: usize = constants.map(|k| k.len() * k.datum_type().size_of()).sum();
        let live = tract_core::model::memory::eval_tmp_memory_usage(
            model,
            self.plan.order_without_consts(),
            |node| !node.op_is::<tract_core::ops::konst::Const>(),
        );
        let live = live.unwrap_or_default().iter().filter_map(|(_, dim)| dim.to_i64().ok()).max();
        let everything =
            || model.nodes().iter().flat_map(|n| &n.outputs).map(|o| bytes(&o.fact)).sum();
        let scratch = model.nodes().iter().filter_map(|node| {
            let facts = model.node_input_facts(node.id).unwrap_or_default();
            node.op_as::<Kernel>().map(|kernel| kernel.needs(&facts).bytes())
        });
        Memory {
            constants: constants as u64,
            live: live.map_or_else(everything, |live| live as u64),
            scratch: scratch.max().unwrap_or(0),
        }
    }
}

/// Replaces the constants of `model`, packed ones too, by equal ones of `others`: what differs between two
/// shapes of a graph is seldom its weights.
fn share_constants(model: &mut TypedModel, others: &[&Compiled]) -> TractResult<()> {
    let nodes = others.iter().flat_map(|other| other.plan.model().nodes());
    let known: Vec<Arc<Tensor>> =
        nodes.filter_map(|node| Some(node.op_as::<Const>()?.val().clone())).collect();
    for node in &mut model.nodes {
        let Some(konst) = node.op_as::<Const>() else { continue };
        let Some(same) = known.iter().find(|known| *known == konst.val()) else { continue };
        let is_exotic = konst.exotic_fact().is_some();
        let fact = &mut node.outputs[0].fact;
        fact.konst = Some(same.clone());
        let exotic = fact.exotic_fact.clone().filter(|_| is_exotic);
        node.op = Box::new(Const::new_with_opt_exotic_fact(same.clone(), exotic)?);
    }
    Ok(())
}

/// The arithmetic of a run of `node`.
fn work_of(model: &TypedModel, node: &TypedNode) -> Work {
    let facts = model.node_input_facts(node.id).unwrap_or_default();
    match node.op_as::<Kernel>() {
        Some(kernel) => kernel.work(&facts),
        None => tract_work(node, &facts),
    }
}

/// Multiply-accumulates of an operator of tract's, as it counts them by the type that it multiplies.
fn tract_work(node: &TypedNode, facts: &[&TypedFact]) -> Work {
    let mut work = Work::default();
    for (cost, count) in node.op.cost(facts).unwrap_or_default() {
        if let Cost::FMA(datum_type) = cost {
            let macs = count.to_i64().unwrap_or(0) as u64;
            let int8 = datum_type.unquantized().size_of() == 1;
            work += Work { macs, int8_macs: if int8 { macs } else { 0 }, ..Work::default() };
        }
    }
    work
}

/// Runs `graph` once on `inputs`, compiled for them by tract alone: what an optimized graph is held to.
///
/// # Errors
/// [`Error::Engine`] with tract's report; those of [`rewrite::specialize`].
pub(crate) fn reference(graph: &Graph, inputs: &[tensor::Tensor]) -> Result<Vec<tensor::Tensor>> {
    let facts = shapes::known(inputs, &rewrite::controls(graph));
    evaluate(&*rewrite::specialize(graph, &facts, &shape_constant)?, inputs)
}

/// Runs `graph` once on `inputs`, compiled for their shapes.
///
/// # Errors
/// [`Error::Engine`] with tract's report.
pub(crate) fn evaluate(graph: &Graph, inputs: &[tensor::Tensor]) -> Result<Vec<tensor::Tensor>> {
    let facts: Vec<Fact> = inputs.iter().map(Fact::of).collect();
    Compiled::new(graph, &facts, |_| None, &[])?.run(inputs)
}

/// [`rewrite::Constant`] by tract alone.
pub(crate) fn shape_constant(graph: &Graph, inputs: &[Fact]) -> Option<tensor::Tensor> {
    constant(graph, inputs, |_| None)
}

/// What the only output of `graph` is for all inputs of these types and shapes; `None` where that hangs on
/// their values.
fn constant(
    graph: &Graph,
    inputs: &[Fact],
    ours: impl Fn(&str) -> Option<Box<dyn InferenceOp>>,
) -> Option<tensor::Tensor> {
    let doing = format!("evaluating `{}`", graph.name);
    let model = guarded(doing, || typed(graph, inputs, ours)).ok()?;
    let output = model.outputs.first()?;
    from_tract(model.outlet_fact(*output).ok()?.konst.as_ref()?).ok()
}

/// One line for every node that neither tract nor this crate can run, subgraphs included.
pub(crate) fn unsupported(graph: &Graph) -> Vec<String> {
    let onnx = tract_onnx::onnx();
    let known = |node: &Node| {
        (node.is_onnx()
            && (onnx.op_register.0.contains_key(&node.op) || operators::knows(&node.op)))
            || node.domain == DRAM_DOMAIN
            || rewrite::takes(node)
    };
    let mut findings = Vec::new();
    for node in &graph.nodes {
        if !known(node) {
            let opset =
                graph.opsets.get(&node.domain).map_or(String::new(), |v| format!(", opset {v}"));
            let domain = if node.is_onnx() { "ai.onnx" } else { &node.domain };
            findings.push(format!(
                "operator `{}` (domain {domain}{opset}) at node `{}`: not available; export the \
                 model without it, or express it with basic operators",
                node.op,
                if node.name.is_empty() { node.output() } else { &node.name },
            ));
        }
        findings.extend(node.subgraphs().flat_map(unsupported));
    }
    findings
}

/// What `work` gives, or its failure as an error: a report or a panic.
///
/// tract asserts and indexes where a model contradicts what it expects, so a model from outside can
/// make it panic; what comes from outside must be refused instead. Nothing that `work` may have left
/// half-done is used again: a model is dropped, and each run starts with a state of its own.
fn guarded<T>(doing: String, work: impl FnOnce() -> TractResult<T>) -> Result<T> {
    let panicked = |payload: Box<dyn std::any::Any + Send>| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
        TractError::msg(format!("the engine gave up: {text}"))
    };
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|payload| Err(panicked(payload)))
        .map_err(Error::engine(doing))
}

/// The graph as tract types it, with our operator where `ours` has one for a node's output.
fn typed(
    graph: &Graph,
    inputs: &[Fact],
    ours: impl Fn(&str) -> Option<Box<dyn InferenceOp>>,
) -> TractResult<TypedModel> {
    let graph = operators::rewrite(graph, inputs);
    let Parsed { mut model, outlets } = parsed(&graph)?;
    for node in &graph.nodes {
        if let Some(operator) = ours(node.output()) {
            model.node_mut(outlets[node.output()].node).op = operator;
        }
    }
    for (index, input) in inputs.iter().enumerate() {
        let fact = InferenceFact::dt_shape(datum_type(input.dtype)?, &input.shape);
        model.set_input_fact(index, fact)?;
    }
    growth::admit(&mut model, &graph, &outlets)?;
    let mut model = model.into_typed()?;
    Optimizer::declutter().stopping_at(most_steps(&model)).optimize(&mut model)?;
    Ok(model)
}

/// More axes than any tensor has; numpy knows 64.
const MOST_AXES: u64 = 64;

/// A graph as tract reads it, and where the values of each name are.
struct Parsed {
    model: InferenceModel,
    outlets: HashMap<String, OutletId>,
}

/// Reads `graph`, and puts its constants in afterwards: written into a message first they would be there
/// three times.
fn parsed(graph: &Graph) -> TractResult<Parsed> {
    refuse_endless_counts(graph)?;
    // Symbolic dims written down by exporters clash with concrete inputs; tract infers its own.
    let onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
    // What is both a constant and an output has to be there when the outputs are wired.
    let is_output = |name: &String| graph.outputs.iter().any(|output| output.name == *name);
    let (written, constants): (BTreeMap<_, _>, BTreeMap<_, _>) =
        graph.initializers.clone().into_iter().partition(|(name, _)| is_output(name));
    let shell = Graph { initializers: written, ..graph.clone_without_initializers() };
    let mut proto = crate::onnx::to_model(&shell);
    proto.graph.iter_mut().for_each(leave_to_inference);
    proto.graph.iter_mut().for_each(name_apart);
    let parsed = onnx.parse(&proto, None)?;
    let (mut model, outlets) = (parsed.model, parsed.outlets_by_name);
    for (name, value) in &constants {
        // What nothing reads is nowhere.
        let Some(&outlet) = outlets.get(name) else { continue };
        let value = to_tract(value)?.into_arc_tensor();
        model.set_outlet_fact(outlet, InferenceFact::try_from(&value)?)?;
        model.node_mut(outlet.node).op = Box::new(Const::new(value)?);
        model.inputs.retain(|&input| input != outlet);
    }
    Ok(Parsed { model, outlets })
}

/// Refuses numbers that tract would count up to one by one, in the nodes of `graph` and of its subgraphs.
fn refuse_endless_counts(graph: &Graph) -> TractResult<()> {
    for node in &graph.nodes {
        let axis = node.int("axis", 0);
        if axis.abs_diff(0) > MOST_AXES {
            let place = node.place();
            return Err(TractError::msg(format!("{place}: an axis of a tensor, got {axis}")));
        }
        if node.is_onnx() && node.op == "Scan" {
            scan_adds_up(node)?;
        }
        node.subgraphs().try_for_each(refuse_endless_counts)?;
    }
    Ok(())
}

/// Whether what a `Scan` says of its inputs fits its body, which takes states and what is scanned, and gives
/// the states and more.
fn scan_adds_up(node: &Node) -> TractResult<()> {
    let scanned = usize::try_from(node.int("num_scan_inputs", 0)).unwrap_or(usize::MAX);
    let fits = |body: &Graph| {
        let states = body.inputs.len().checked_sub(scanned);
        states.is_some_and(|states| states <= body.outputs.len())
    };
    if node.subgraphs().all(fits) {
        return Ok(());
    }
    Err(TractError::msg(format!(
        "{}: inputs of its body that are states or scanned, states that are outputs too, got \
         num_scan_inputs {scanned}; export the model again",
        node.place()
    )))
}

/// Steps after which the optimizer must stop: two of its rules may undo each other for ever, as they do
/// for recurrences with a matrix as state. Every step leaves a graph that computes the same.
fn most_steps(model: &TypedModel) -> usize {
    1_000 + 20 * model.nodes().len()
}

/// Names nodes after what they write, which is unique, where two have one name: tract tells them apart by it.
fn name_apart(graph: &mut pb::GraphProto) {
    let names: BTreeSet<&str> = graph.node.iter().map(|node| node.name.as_str()).collect();
    if names.len() < graph.node.len() {
        for node in &mut graph.node {
            node.name = node.output.first().cloned().unwrap_or_default();
        }
    }
}

/// Forgets the symbolic dims of what subgraphs take, at any depth.
fn leave_to_inference(graph: &mut pb::GraphProto) {
    let attributes = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
    for subgraph in attributes.filter_map(|attribute| attribute.g.as_mut()) {
        let types =
            subgraph.input.iter_mut().filter_map(|input| input.r#type.as_mut()?.value.as_mut());
        for pb::type_proto::Value::TensorType(tensor) in types {
            for dim in tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim) {
                let symbol = matches!(
                    dim.value,
                    Some(pb::tensor_shape_proto::dimension::Value::DimParam(_))
                );
                dim.value = dim.value.take().filter(|_| !symbol);
            }
        }
        leave_to_inference(subgraph);
    }
}

fn list(graph: &Graph, inputs: &[Fact]) -> String {
    let named = graph.inputs.iter().zip(inputs);
    let parts: Vec<String> = named
        .map(|(spec, fact)| format!("{} {} {:?}", spec.name, fact.dtype, fact.shape))
        .collect();
    if parts.is_empty() { "no inputs".to_owned() } else { parts.join(", ") }
}

fn to_values(tensors: &[tensor::Tensor]) -> TractResult<TVec<TValue>> {
    tensors.iter().map(|tensor| to_tract(tensor).map(Tensor::into_tvalue)).collect()
}

fn to_tract(tensor: &tensor::Tensor) -> TractResult<Tensor> {
    let mut result = Tensor::zero_dt(datum_type(tensor.dtype())?, tensor.shape())?;
    result.as_bytes_mut().copy_from_slice(tensor.bytes());
    Ok(result)
}

fn from_tract(tensor: &Tensor) -> TractResult<tensor::Tensor> {
    if tensor.datum_type() == TDim::datum_type() {
        return from_tract(&*tensor.cast_to::<i64>()?);
    }
    let dtype = dtype(tensor.datum_type())?;
    Ok(tensor::Tensor::from_bytes(dtype, tensor.shape(), tensor.as_bytes().to_vec())?)
}

fn datum_type(dtype: DType) -> TractResult<DatumType> {
    Ok(match dtype {
        DType::F32 => DatumType::F32,
        DType::F64 => DatumType::F64,
        DType::F16 => DatumType::F16,
        DType::Bf16 => return Err(TractError::msg("bf16 values; export the model as f32")),
        DType::I8 => DatumType::I8,
        DType::U8 => DatumType::U8,
        DType::I16 => DatumType::I16,
        DType::U16 => DatumType::U16,
        DType::I32 => DatumType::I32,
        DType::U32 => DatumType::U32,
        DType::I64 => DatumType::I64,
        DType::U64 => DatumType::U64,
        DType::Bool => DatumType::Bool,
    })
}

fn dtype(datum_type: DatumType) -> TractResult<DType> {
    Ok(match datum_type.unquantized() {
        DatumType::F32 => DType::F32,
        DatumType::F64 => DType::F64,
        DatumType::F16 => DType::F16,
        DatumType::I8 => DType::I8,
        DatumType::U8 => DType::U8,
        DatumType::I16 => DType::I16,
        DatumType::U16 => DType::U16,
        DatumType::I32 => DType::I32,
        DatumType::U32 => DType::U32,
        DatumType::I64 | DatumType::TDim => DType::I64,
        DatumType::U64 => DType::U64,
        DatumType::Bool => DType::Bool,
        other => return Err(TractError::msg(format!("a value of type {other:?}"))),
    })
}
