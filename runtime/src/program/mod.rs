//! A graph that our kernels run from end to end: steps over one arena of activations.
//!
//! [`Program::lower`] turns the stored graph into steps once; [`Program::run`] executes them for a
//! sequence of any length up to the planned one, without allocating. Weights stay where they lie
//! in the bundle.

mod arena;
mod lower;
mod run;

use crate::kernels::{Activation, Heads, RowScale, quantized_width};
use crate::manifest::Extent;

pub(crate) use run::{Machine, Workspace};

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

/// One kernel call; plain numbers are slots, extents lie in the bundle.
#[derive(Debug)]
enum Step {
    Embed {
        words: Words,
        positions: Extent,
        width: usize,
        out: usize,
    },
    LayerNorm {
        x: usize,
        gamma: Extent,
        beta: Extent,
        epsilon: f32,
        out: usize,
    },
    Linear {
        x: usize,
        weights: Weights,
        activation: Activation,
        residual: Option<usize>,
        out: usize,
    },
    Attention {
        qkv: usize,
        heads: Heads,
        out: usize,
    },
    Gelu {
        x: usize,
        out: usize,
    },
    MeanPool {
        hidden: usize,
        out: usize,
    },
    FirstToken {
        hidden: usize,
        out: usize,
    },
    L2Normalize {
        x: usize,
        out: usize,
    },
}

#[derive(Debug)]
enum Words {
    F32(Extent),
    Int8 { rows: Extent, scales: Extent },
}

#[derive(Clone, Copy, Debug)]
struct Weights {
    k: usize,
    n: usize,
    panels: Extent,
    bias: Extent,
    /// Column sums and scales of int8 panels.
    int8: Option<(Extent, Extent)>,
}

/// What a run for a number of tokens on a number of threads needs beside the weights, in elements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    arena: usize,
    /// Where each slot begins in the arena; for fewer tokens the same places serve.
    offsets: Vec<usize>,
    embedding: usize,
    packed: usize,
    scores: usize,
    quantized: usize,
    tokens: usize,
}

impl Needs {
    pub(crate) fn activations_bytes(&self) -> u64 {
        (self.arena * size_of::<f32>()) as u64
    }

    pub(crate) fn scratch_bytes(&self) -> u64 {
        let per_token = size_of::<RowScale>() + 2 * size_of::<u32>() + size_of::<u8>();
        let floats = (self.packed + self.scores + self.embedding) * size_of::<f32>();
        (floats + self.quantized + self.tokens * per_token) as u64
    }
}

/// Arithmetic of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Multiply-accumulates of matrix products, convolutions and attention.
    pub macs: u64,
    /// Those of them that run on int8 numbers.
    pub int8_macs: u64,
}

impl Work {
    /// Share of the multiply-accumulates that run in int8, 0 to 1.
    pub fn int8_mac_share(&self) -> f64 {
        if self.macs == 0 { 0.0 } else { self.int8_macs as f64 / self.macs as f64 }
    }
}

impl Program {
    /// What a run of up to `tokens` on `threads` needs.
    pub(crate) fn needs(&self, tokens: usize, threads: usize) -> Needs {
        let (offsets, arena) = arena::place(&self.slots, tokens);
        let mut needs = Needs { arena, offsets, tokens, ..Needs::default() };
        for step in &self.steps {
            match step {
                Step::Embed { width, .. } => needs.embedding = needs.embedding.max(*width),
                Step::Attention { heads, .. } => {
                    needs.packed = needs.packed.max(heads.packed_len(tokens));
                    needs.scores = needs.scores.max(heads.scratch_len(tokens) * threads);
                }
                Step::Linear { x, weights, .. } if weights.int8.is_some() => {
                    let rows = self.slots[*x].rows.count(tokens);
                    needs.quantized = needs.quantized.max(rows * quantized_width(weights.k));
                }
                _ => {}
            }
        }
        needs
    }

    /// The arithmetic of a run of `tokens`.
    pub(crate) fn work(&self, tokens: usize) -> Work {
        let mut work = Work::default();
        for step in &self.steps {
            match step {
                Step::Linear { x, weights, .. } => {
                    let macs = (self.slots[*x].rows.count(tokens) * weights.k * weights.n) as u64;
                    work.macs += macs;
                    work.int8_macs += if weights.int8.is_some() { macs } else { 0 };
                }
                Step::Attention { heads, .. } => {
                    work.macs += 2 * (tokens * tokens * heads.hidden()) as u64;
                }
                _ => {}
            }
        }
        work
    }
}
