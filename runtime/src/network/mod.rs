//! A graph over signals and images that our kernels run from end to end: shapes are known, values lie in one
//! arena, and steps are executed one after the other.
//!
//! [`Network::lower`] turns the stored graph into steps once; [`Network::run`] executes them for each element of
//! a batch by itself. Weights stay where they lie in the bundle. Sequences of tokens, whose length each call
//! chooses, are `program`'s.

mod lower;
mod run;
#[cfg(all(test, feature = "tract"))]
mod tests;

use crate::arena::{self, Slot};
use crate::kernels::PANEL;
use crate::operators::array::Array;
use crate::operators::{self, Element, Matrix, NetworkWork, Operator, Work};
use crate::shapes::Fact;

pub(crate) use run::Workspace;

/// A compiled graph.
#[derive(Debug)]
pub(crate) struct Network {
    /// What is given, in the order of the graph's inputs.
    inputs: Vec<Value>,
    /// What is asked for, in the order of the graph's outputs.
    outputs: Vec<Value>,
    slots: Vec<Slot>,
    steps: Vec<Step>,
    /// Whether the outermost axis of all inputs and outputs is one of a batch.
    batched: bool,
}

/// An array of activations. Several may share a slot, where they differ in their shape only.
#[derive(Clone, Debug)]
struct Value {
    slot: usize,
    shape: Vec<usize>,
    element: Element,
}

impl Value {
    fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// One operator, the values that it reads, and the one that it writes.
#[derive(Debug)]
struct Step {
    /// Its place among the nodes of the graph.
    node: usize,
    kernel: Kernel,
    x: Value,
    other: Option<Value>,
    out: Value,
}

#[derive(Debug)]
enum Kernel {
    /// One of ours, and its input as a matrix.
    Fused(Box<Operator>, Matrix),
    /// One of ONNX's.
    Array(Array),
}

/// What a run on a number of threads needs beside the weights, in elements.
#[derive(Clone, Debug)]
pub(crate) struct Needs {
    arena: usize,
    offsets: Vec<usize>,
    scratch: operators::Needs,
}

impl Needs {
    pub(crate) fn activations_bytes(&self) -> u64 {
        (self.arena * size_of::<f32>()) as u64
    }

    pub(crate) fn scratch_bytes(&self) -> u64 {
        self.scratch.bytes()
    }
}

impl Step {
    /// The arithmetic of a run of it.
    fn work(&self) -> Work {
        let work = match &self.kernel {
            Kernel::Fused(operator, x) => match &**operator {
                Operator::Grid(grid) => grid.work(&self.x.shape, self.x.element),
                operator => operator.work(*x),
            },
            Kernel::Array(_) => Work::default(),
        };
        let mut all = Work { network: self.network_work(), ..Work::default() };
        all += work;
        all
    }

    /// What a run of it does that its operator does not know of.
    fn network_work(&self) -> NetworkWork {
        let one = NetworkWork { steps: 1, ..NetworkWork::default() };
        let other = self.other.as_ref().map_or(0, Value::count);
        let [other, x, out] = [other, self.x.count(), self.out.count()].map(|count| count as u64);
        let Kernel::Fused(operator, matrix) = &self.kernel else {
            return NetworkWork { array_values: x + other + out, ..one };
        };
        match &**operator {
            Operator::Grid(_) => NetworkWork { f32_values: other, ..one },
            Operator::Linear(layer) => {
                let weights = (layer.k * layer.n.next_multiple_of(PANEL)) as u64;
                let macs = weights * matrix.rows as u64;
                // The rows of the largest tile.
                let reads = weights * matrix.rows.div_ceil(12) as u64;
                let one = NetworkWork { layers: 1, f32_values: other, ..one };
                match layer.int8 {
                    None => {
                        let f32_values = other + out;
                        NetworkWork {
                            f32_panel_macs: macs,
                            weight_bytes: 4 * reads,
                            f32_values,
                            ..one
                        }
                    }
                    Some(_) => {
                        let int8_values = 2 * x + out;
                        NetworkWork {
                            int8_panel_macs: macs,
                            weight_bytes: reads,
                            int8_values,
                            ..one
                        }
                    }
                }
            }
            _ => NetworkWork { f32_values: x + other + out, ..one },
        }
    }
}

impl Network {
    /// What a run on `threads` needs.
    pub(crate) fn needs(&self, threads: usize) -> Needs {
        let (offsets, arena) = arena::place(&self.slots);
        let needs = self.steps.iter().map(|step| match &step.kernel {
            Kernel::Fused(operator, x) => match &**operator {
                Operator::Grid(grid) => grid.needs(&step.x.shape, threads),
                operator => operator.needs(*x, threads),
            },
            Kernel::Array(_) => operators::Needs::default(),
        });
        let scratch = needs.reduce(operators::Needs::either).unwrap_or_default();
        Needs { arena, offsets, scratch }
    }

    /// Bytes of the outputs of a batch of so many.
    pub(crate) fn output_bytes(&self, batch: usize) -> u64 {
        let values: usize = self.outputs.iter().map(Value::count).sum();
        (values * size_of::<f32>()) as u64 * batch as u64
    }

    /// The arithmetic of a run of one element of a batch.
    pub(crate) fn work(&self) -> Work {
        let mut work = Work::default();
        for step in &self.steps {
            work += step.work();
        }
        work
    }

    /// Operators that it runs.
    pub(crate) fn len(&self) -> usize {
        self.steps.len()
    }

    /// How many elements of a batch `inputs` are; 1 where there is no batch.
    pub(crate) fn batch_of(&self, inputs: &[Fact]) -> usize {
        match inputs.first() {
            Some(fact) if self.batched => fact.shape.first().copied().unwrap_or(1),
            _ => 1,
        }
    }
}
