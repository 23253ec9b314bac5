//! Steps executed: one kernel call each, its rows shared out over the threads.

use std::ops::Range;

use super::{Needs, Program, Rows, Step, Weights, Words};
use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::kernels::{
    self, Activation, Cpu, Embeddings, Epilogue, Heads, KeysValues, LayerNorm, NoEmbedding,
    PackedF32, PackedI8, PerThread, RowScale, RowsMut, Threads, WordTable, quantized_width,
};
use crate::manifest::Extent;
use crate::tensor::Tensor;

/// Rows that a tile of the linear kernels takes at once; cuts between threads respect it.
const TILE_ROWS: usize = 12;

/// Below this norm a vector counts as zero (PyTorch: `normalize`, `eps`).
const SMALLEST_NORM: f32 = 1e-12;

/// Buffers for a run, allocated once.
#[derive(Debug)]
pub(crate) struct Workspace {
    arena: Vec<f32>,
    /// Where each slot begins in the arena.
    offsets: Vec<usize>,
    packed: Vec<f32>,
    scores: Vec<f32>,
    quantized: Vec<u8>,
    row_scales: Vec<RowScale>,
    ids: Vec<u32>,
    segments: Vec<u32>,
    no_segment: Vec<f32>,
    mask: Vec<u8>,
}

impl Workspace {
    pub(crate) fn new(needs: &Needs) -> Workspace {
        Workspace {
            arena: vec![0.0; needs.arena],
            offsets: needs.offsets.clone(),
            packed: vec![0.0; needs.packed],
            scores: vec![0.0; needs.scores],
            quantized: vec![0; needs.quantized],
            row_scales: vec![RowScale::default(); needs.tokens],
            ids: vec![0; needs.tokens],
            segments: vec![0; needs.tokens],
            no_segment: vec![0.0; needs.embedding],
            mask: vec![0; needs.tokens],
        }
    }
}

/// What a program runs on.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    pub(crate) bundle: &'a Bundle,
    pub(crate) cpu: Cpu,
    pub(crate) threads: &'a Threads,
}

impl Machine<'_> {
    /// The values of a constant. Its extent was checked when the program was lowered, its alignment when
    /// the bundle was opened.
    fn values<T: bytemuck::Pod>(&self, extent: Extent) -> &[T] {
        bytemuck::cast_slice(self.bundle.section(extent))
    }
}

impl Program {
    /// Runs on one sequence; `ids` and `mask` are as long as it, and not longer than the workspace was
    /// made for. Gives the graph's outputs, with a leading batch of one.
    ///
    /// # Errors
    /// [`Error::Input`] where an id has no row in the vocabulary.
    pub(crate) fn run(
        &self,
        machine: &Machine,
        workspace: &mut Workspace,
        ids: &[i64],
        mask: &[i64],
    ) -> Result<Vec<Tensor>> {
        let tokens = ids.len();
        for (target, &id) in workspace.ids.iter_mut().zip(ids) {
            // Out of range for the table is out of range for `u32` too, or found by the lookup.
            *target = u32::try_from(id).unwrap_or(u32::MAX);
        }
        for (target, &keep) in workspace.mask.iter_mut().zip(mask) {
            *target = u8::from(keep != 0);
        }
        let run = Run { program: self, machine, tokens };
        for step in &self.steps {
            run.step(step, workspace).map_err(|error| self.no_embedding(error, ids))?;
        }
        Ok(self.outputs.iter().map(|&slot| run.output(slot, workspace)).collect())
    }

    fn no_embedding(&self, error: NoEmbedding, ids: &[i64]) -> Error {
        let (expected, got) = match error {
            NoEmbedding::Word { place, .. } => (
                "ids within the vocabulary".to_owned(),
                format!("{} at position {place}", ids[place]),
            ),
            NoEmbedding::Segment { place, segment } => {
                ("the first segment".to_owned(), format!("segment {segment} at position {place}"))
            }
            NoEmbedding::Position { place } => {
                (format!("at most {} tokens", self.positions), format!("position {place}"))
            }
        };
        Error::Input { name: self.ids.clone(), expected, got }
    }
}

struct Run<'a> {
    program: &'a Program,
    machine: &'a Machine<'a>,
    tokens: usize,
}

impl Run<'_> {
    fn step(&self, step: &Step, workspace: &mut Workspace) -> Result<(), NoEmbedding> {
        let Machine { cpu, threads, .. } = *self.machine;
        match step {
            Step::Embed { words, positions, width, out } => {
                return self.embed(words, *positions, *width, *out, workspace);
            }
            Step::LayerNorm { x, gamma, beta, epsilon, out } => {
                let norm = LayerNorm {
                    gamma: self.machine.values(*gamma),
                    beta: self.machine.values(*beta),
                    epsilon: *epsilon,
                };
                let width = self.width(*out);
                let [x, out] = self.slots(&mut workspace.arena, &workspace.offsets, [*x, *out]);
                threads.split(x.len() / width, 1, RowsMut::new(out, width), |rows, out| {
                    kernels::layer_norm(cpu, &x[columns(&rows, width)], norm, out);
                });
            }
            Step::Linear { x, weights, activation, residual, out } => {
                self.linear(*x, weights, *activation, *residual, *out, workspace);
            }
            Step::Attention { qkv, heads, out } => self.attention(*qkv, *heads, *out, workspace),
            Step::Gelu { x, out } => {
                let width = self.width(*out);
                let [x, out] = self.slots(&mut workspace.arena, &workspace.offsets, [*x, *out]);
                threads.split(x.len() / width, 1, RowsMut::new(out, width), |rows, out| {
                    out.copy_from_slice(&x[columns(&rows, width)]);
                    kernels::gelu(cpu, out);
                });
            }
            Step::MeanPool { hidden, out } => {
                let [hidden, out] =
                    self.slots(&mut workspace.arena, &workspace.offsets, [*hidden, *out]);
                kernels::masked_mean(cpu, hidden, &workspace.mask[..self.tokens], out);
            }
            Step::FirstToken { hidden, out } => {
                let [hidden, out] =
                    self.slots(&mut workspace.arena, &workspace.offsets, [*hidden, *out]);
                out.copy_from_slice(&hidden[..out.len()]);
            }
            Step::L2Normalize { x, out } => {
                let width = self.width(*out);
                let [x, out] = self.slots(&mut workspace.arena, &workspace.offsets, [*x, *out]);
                out.copy_from_slice(x);
                kernels::l2_normalize(cpu, out, width, SMALLEST_NORM);
            }
        }
        Ok(())
    }

    fn embed(
        &self,
        words: &Words,
        positions: Extent,
        width: usize,
        out: usize,
        workspace: &mut Workspace,
    ) -> Result<(), NoEmbedding> {
        let machine = self.machine;
        let words = match words {
            Words::F32(rows) => WordTable::F32(machine.values(*rows)),
            Words::Int8 { rows, scales } => {
                WordTable::I8 { rows: machine.values(*rows), scales: machine.values(*scales) }
            }
        };
        // The one segment of a single text was added to the positions when the graph was optimized.
        let (segments, positions) = (&workspace.no_segment[..width], machine.values(positions));
        let tables = Embeddings { words, segments, positions, width };
        let (ids, segments) = (&workspace.ids[..self.tokens], &workspace.segments[..self.tokens]);
        let [out] = self.slots(&mut workspace.arena, &workspace.offsets, [out]);
        kernels::embed(machine.cpu, ids, segments, &tables, out)
    }

    fn linear(
        &self,
        x: usize,
        weights: &Weights,
        activation: Activation,
        residual: Option<usize>,
        out: usize,
        workspace: &mut Workspace,
    ) {
        let Machine { cpu, threads, .. } = *self.machine;
        let Weights { k, n, .. } = *weights;
        let rows = self.program.slots[x].rows.count(self.tokens);
        let Workspace { arena, offsets, quantized, row_scales, .. } = workspace;
        let ([x, out], residual) = match residual {
            Some(residual) => {
                let [x, residual, out] = self.slots(arena, offsets, [x, residual, out]);
                ([x, out], Some(&*residual))
            }
            None => (self.slots(arena, offsets, [x, out]), None),
        };
        let epilogue = |rows: &Range<usize>| Epilogue {
            activation,
            residual: residual.map(|residual| &residual[columns(rows, n)]),
        };
        let out = RowsMut::new(out, n);
        match self.packed(weights) {
            Packed::F32(weights) => threads.split(rows, TILE_ROWS, out, |rows, out| {
                kernels::linear_f32(cpu, &x[columns(&rows, k)], &weights, epilogue(&rows), out);
            }),
            Packed::Int8(weights) => {
                let width = quantized_width(k);
                let quantized = RowsMut::new(&mut quantized[..rows * width], width);
                let scales = RowsMut::new(&mut row_scales[..rows], 1);
                threads.split(
                    rows,
                    TILE_ROWS,
                    (out, quantized, scales),
                    |rows, (out, quantized, scales)| {
                        kernels::quantize_rows(cpu, &x[columns(&rows, k)], k, quantized, scales);
                        kernels::linear_i8(cpu, quantized, scales, &weights, epilogue(&rows), out);
                    },
                );
            }
        }
    }

    fn packed(&self, weights: &Weights) -> Packed<'_> {
        let Weights { k, n, .. } = *weights;
        let (machine, bias) = (self.machine, self.machine.values(weights.bias));
        let packed = match weights.int8 {
            None => PackedF32::new(machine.values(weights.panels), bias, k, n).map(Packed::F32),
            Some((sums, scales)) => {
                let (panels, sums) = (machine.values(weights.panels), machine.values(sums));
                PackedI8::new(panels, sums, machine.values(scales), bias, k, n).map(Packed::Int8)
            }
        };
        packed.expect("lowering checked the extents of all weights")
    }

    fn attention(&self, qkv: usize, heads: Heads, out: usize, workspace: &mut Workspace) {
        let Machine { cpu, threads, .. } = *self.machine;
        let (tokens, stride, hidden) = (self.tokens, 3 * heads.hidden(), heads.hidden());
        let Workspace { arena, offsets, packed, scores, mask, .. } = workspace;
        let [qkv, out] = self.slots(arena, offsets, [qkv, out]);
        let packed = &mut packed[..heads.packed_len(tokens)];
        let groups = RowsMut::new(packed, heads.group_len());
        threads.split(tokens.div_ceil(Heads::GROUP), 1, groups, |groups, packed| {
            let rows = groups.start * Heads::GROUP..(groups.end * Heads::GROUP).min(tokens);
            kernels::pack_keys_values(cpu, heads, &qkv[columns(&rows, stride)], packed);
        });
        let keys_values = KeysValues { packed, mask: &mask[..tokens] };
        let scores = PerThread::new(scores, heads.scratch_len(tokens));
        threads.split(
            tokens,
            TILE_ROWS,
            (RowsMut::new(out, hidden), scores),
            |rows, (out, scores)| {
                kernels::attention(
                    cpu,
                    heads,
                    &qkv[columns(&rows, stride)],
                    keys_values,
                    scores,
                    out,
                );
            },
        );
    }

    fn width(&self, slot: usize) -> usize {
        self.program.slots[slot].width
    }

    /// The matrices in `slots`, all different, as parts of the arena.
    fn slots<'a, const N: usize>(
        &self,
        arena: &'a mut [f32],
        offsets: &[usize],
        slots: [usize; N],
    ) -> [&'a mut [f32]; N] {
        arena
            .get_disjoint_mut(slots.map(|slot| self.range(slot, offsets)))
            .expect("slots that live at the same time do not overlap")
    }

    fn range(&self, slot: usize, offsets: &[usize]) -> Range<usize> {
        let length = self.program.slots[slot].rows.count(self.tokens) * self.width(slot);
        offsets[slot]..offsets[slot] + length
    }

    fn output(&self, slot: usize, workspace: &Workspace) -> Tensor {
        let values = &workspace.arena[self.range(slot, &workspace.offsets)];
        let width = self.width(slot);
        match self.program.slots[slot].rows {
            Rows::One => Tensor::from_f32(&[1, width], values),
            Rows::Tokens => Tensor::from_f32(&[1, self.tokens, width], values),
        }
    }
}

enum Packed<'a> {
    F32(PackedF32<'a>),
    Int8(PackedI8<'a>),
}

/// The elements of `rows` in a matrix of that width.
fn columns(rows: &Range<usize>, width: usize) -> Range<usize> {
    rows.start * width..rows.end * width
}
