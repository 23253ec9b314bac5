//! A graph that our kernels run from end to end: steps over one arena of activations.
//!
//! [`Program::lower`] turns the stored graph into steps once; [`Program::run`] executes them for a
//! sequence of any length up to the planned one, without allocating. Weights stay where they lie
//! in the bundle.

mod lower;
mod run;

use crate::arena;
use crate::operators::{self, Matrix, Operator, Work};

pub(crate) use run::Workspace;

/// A compiled graph.
#[derive(Debug)]
pub(crate) struct Program {
    slots: Vec<Slot>,
    steps: Vec<Step>,
    /// The input that holds token ids.
    pub(crate) ids: String,
    /// The input that holds the mask, where the graph takes one.
    pub(crate) mask: Option<String>,
    /// Longest sequence that the position table allows.
    pub(crate) positions: usize,
    /// The slot of each output of the graph.
    outputs: Vec<usize>,
}

/// A matrix of activations: a row a token, or a single row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    rows: Rows,
    width: usize,
    /// The step that writes it and the last step that reads it.
    live: (usize, usize),
}

impl Slot {
    /// Its place in the arena of a run of `tokens`.
    fn of(&self, tokens: usize) -> arena::Slot {
        arena::Slot { length: self.rows.count(tokens) * self.width, live: self.live }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    Tokens,
    One,
}

impl Rows {
    fn count(self, tokens: usize) -> usize {
        match self {
            Rows::Tokens => tokens,
            Rows::One => 1,
        }
    }
}

/// One operator and the slots that it reads and writes.
#[derive(Debug)]
struct Step {
    /// Its place among the nodes of the graph.
    node: usize,
    operator: Operator,
    /// None where it reads the ids.
    x: Option<usize>,
    residual: Option<usize>,
    out: usize,
}

/// What a run for a number of tokens on a number of threads needs beside the weights, in elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    arena: usize,
    /// Where each slot begins in the arena; for fewer tokens the same places serve.
    offsets: Vec<usize>,
    scratch: operators::Needs,
    tokens: usize,
}

impl Needs {
    pub(crate) fn activations_bytes(&self) -> u64 {
        (self.arena * size_of::<f32>()) as u64
    }

    pub(crate) fn scratch_bytes(&self) -> u64 {
        let per_token = size_of::<u32>() + size_of::<u8>();
        self.scratch.bytes() + (self.tokens * per_token) as u64
    }
}

impl Program {
    /// What a run of up to `tokens` on `threads` needs.
    pub(crate) fn needs(&self, tokens: usize, threads: usize) -> Needs {
        let slots: Vec<arena::Slot> = self.slots.iter().map(|slot| slot.of(tokens)).collect();
        let (offsets, arena) = arena::place(&slots);
        let needs =
            self.steps.iter().map(|step| step.operator.needs(self.read_by(step, tokens), threads));
        let scratch = needs.reduce(operators::Needs::either).unwrap_or_default();
        Needs { arena, offsets, scratch, tokens }
    }

    /// Bytes of the outputs of a run of `tokens`, as they are copied out of the arena and, of a batch, once more.
    pub(crate) fn output_bytes(&self, tokens: usize) -> u64 {
        let values = self.outputs.iter().map(|&slot| {
            let slot = &self.slots[slot];
            slot.rows.count(tokens) * slot.width
        });
        (2 * values.sum::<usize>() * size_of::<f32>()) as u64
    }

    /// The arithmetic of a run of `tokens`.
    pub(crate) fn work(&self, tokens: usize) -> Work {
        let mut work = Work::default();
        for step in &self.steps {
            work += self.work_of(step, tokens);
        }
        work
    }

    fn work_of(&self, step: &Step, tokens: usize) -> Work {
        step.operator.work(self.read_by(step, tokens))
    }

    /// The arithmetic of a run of `tokens` that ends with the step that writes output `output`.
    pub(crate) fn work_until(&self, output: usize, tokens: usize) -> Work {
        let mut work = Work::default();
        for step in &self.steps[..=self.written_by(output)] {
            work += self.work_of(step, tokens);
        }
        work
    }

    /// The step that writes output `output`.
    fn written_by(&self, output: usize) -> usize {
        self.slots[self.outputs[output]].live.0
    }

    /// Operators that it runs.
    pub(crate) fn len(&self) -> usize {
        self.steps.len()
    }

    fn read_by(&self, step: &Step, tokens: usize) -> Matrix {
        match step.x.map(|slot| self.slots[slot]) {
            None => Matrix { rows: tokens, tokens, width: 1 },
            Some(slot) => {
                let rows = match step.operator {
                    // A query a row of the result.
                    Operator::Attention(_) => self.slots[step.out].rows,
                    _ => slot.rows,
                };
                Matrix { rows: rows.count(tokens), tokens, width: slot.width }
            }
        }
    }
}
