//! One kernel call an operator, its rows shared out over the threads.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::{Attention, Embedding, Int8, Linear, Narrow, Needs, Norm, Rows, Table};
use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::kernels::{
    self, Block, ColumnsMut, Cpu, Embeddings, Epilogue, LayerNorm, NoEmbedding, PANEL, PackedF32,
    PackedI8, PerThread, RowScale, RowsMut, Strided, Threads, WordTable, quantized_width,
};
use crate::manifest::Extent;

/// Rows for each thread below which threads share the columns of a linear layer and not its rows: two tiles of the
/// kernels, which leave no time for the weights to come from memory.
const FEW_ROWS: usize = 24;

/// Below this norm a vector counts as zero (PyTorch: `normalize`, `eps`).
const SMALLEST_NORM: f32 = 1e-12;

/// What operators run on: the weights in their bundle, a processor, threads.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) bundle: Arc<Bundle>,
    pub(crate) cpu: Cpu,
    pub(crate) threads: Threads,
}

/// Buffers that operators share, one after the other.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(super) quantized: Vec<u8>,
    row_scales: Vec<RowScale>,
    segments: Vec<u32>,
    no_segment: Vec<f32>,
    attention: Vec<f32>,
    wide: Vec<f32>,
    pub(super) patch: Vec<f32>,
    pub(super) patch_bytes: Vec<u8>,
}

impl Scratch {
    pub(crate) fn new(needs: Needs) -> Scratch {
        Scratch {
            quantized: vec![0; needs.quantized],
            row_scales: vec![RowScale::default(); needs.rows],
            segments: vec![0; needs.rows],
            no_segment: vec![0.0; needs.width],
            attention: vec![0.0; needs.attention],
            wide: vec![0.0; needs.wide],
            patch: vec![0.0; needs.patch],
            patch_bytes: vec![0; needs.patch_bytes],
        }
    }
}

impl Machine {
    /// This processor, and so many threads, for the weights of `bundle`.
    ///
    /// # Errors
    /// [`Error::Io`] where the system refuses another thread.
    pub(crate) fn new(bundle: Arc<Bundle>, threads: NonZeroUsize) -> Result<Machine> {
        let threads =
            Threads::new(threads.get()).map_err(Error::io("start", Path::new("a thread")))?;
        Ok(Machine { bundle, cpu: Cpu::detect(), threads })
    }

    /// The values of a constant. Its extent was checked when its node was parsed, its alignment when the
    /// bundle was opened.
    pub(crate) fn values<T: bytemuck::Pod>(&self, extent: Extent) -> &[T] {
        bytemuck::cast_slice(self.bundle.section(extent))
    }

    /// The sum of word and position vectors, `[tokens, width]`, of the ids of one sequence.
    pub(crate) fn embed(
        &self,
        embedding: &Embedding,
        ids: &[u32],
        scratch: &Scratch,
        out: &mut [f32],
    ) -> std::result::Result<(), NoEmbedding> {
        let Embedding { words, positions, .. } = *embedding;
        // The one segment of a single text was added to the positions when the graph was optimized.
        let segments = &scratch.no_segment[..words.width];
        let tables = Embeddings {
            words: self.words(words),
            segments,
            positions: self.values(positions),
            width: words.width,
        };
        kernels::embed(self.cpu, ids, &scratch.segments[..ids.len()], &tables, out)
    }

    fn words(&self, table: Table) -> WordTable<'_> {
        match table.scales {
            None => WordTable::F32(self.values(table.rows)),
            Some(scales) => {
                WordTable::I8 { rows: self.values(table.rows), scales: self.values(scales) }
            }
        }
    }

    /// The rows that `indices` choose, one below the other; negative ones count from the end. Gives the
    /// first index that chooses none.
    pub(crate) fn gather(
        &self,
        table: &Table,
        indices: &[i64],
        out: &mut [f32],
    ) -> std::result::Result<(), i64> {
        let words = self.words(*table);
        for (&index, out) in indices.iter().zip(out.chunks_exact_mut(table.width)) {
            kernels::gather_row(words, index, out).ok_or(index)?;
        }
        Ok(())
    }

    pub(crate) fn layer_norm(&self, norm: &Norm, x: &[f32], out: &mut [f32]) {
        let Norm { width, epsilon, .. } = *norm;
        let norm =
            LayerNorm { gamma: self.values(norm.gamma), beta: self.values(norm.beta), epsilon };
        self.threads.split(x.len() / width, 1, RowsMut::new(out, width), |rows, out| {
            kernels::layer_norm(self.cpu, &x[columns(&rows, width)], norm, out);
        });
    }

    pub(crate) fn linear(
        &self,
        layer: &Linear,
        x: &[f32],
        residual: Option<&[f32]>,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) {
        let Linear { k, n, activation, .. } = *layer;
        let (cpu, m) = (self.cpu, x.len() / k);
        let epilogue = |rows: &Range<usize>, columns: &Range<usize>| {
            let residual = residual.map(|terms| Strided {
                values: &terms[rows.start * n + columns.start..],
                stride: n,
                width: columns.len(),
            });
            Epilogue { activation, residual }
        };
        let Scratch { quantized, row_scales, wide, .. } = scratch;
        match self.packed(layer, wide) {
            Packed::F32(weights) => self.share_out(m, n, out, |rows, cut, out| {
                let (x, epilogue) = (&x[columns(&rows, k)], epilogue(&rows, &cut));
                kernels::linear_f32(cpu, x, &weights.columns(cut), epilogue, out);
            }),
            Packed::Int8(weights, in_range) => {
                let width = quantized_width(k);
                let quantized = &mut quantized[..m * width];
                let scales = &mut row_scales[..m];
                self.quantize(in_range, x, k, quantized, scales);
                let (quantized, scales) = (&*quantized, &*scales);
                self.share_out(m, n, out, |rows, cut, out| {
                    let (x, epilogue) = (&quantized[columns(&rows, width)], epilogue(&rows, &cut));
                    kernels::linear_i8(cpu, x, &scales[rows], &weights.columns(cut), epilogue, out);
                });
            }
        }
    }

    /// Calls `work(rows, columns, their part of out)` for a share of the `m` rows or of the `n` columns for each thread:
    /// of columns where rows are so few that each thread would wait for all of the weights.
    fn share_out(
        &self,
        m: usize,
        n: usize,
        out: &mut [f32],
        work: impl Fn(Range<usize>, Range<usize>, Block<'_, f32>) + Sync,
    ) {
        if m < self.threads.count() * FEW_ROWS {
            self.threads.split(n, PANEL, ColumnsMut::new(out, n), |cut, out| work(0..m, cut, out));
        } else {
            self.threads.split(m, 1, RowsMut::new(out, n), |rows, out| {
                work(rows, 0..n, Block::new(out, n));
            });
        }
    }

    /// Rows of `x [m, k]` rounded in their range, and what their integers stand for.
    fn quantize(
        &self,
        in_range: Rows,
        x: &[f32],
        k: usize,
        quantized: &mut [u8],
        scales: &mut [RowScale],
    ) {
        let (cpu, m) = (self.cpu, scales.len());
        let range = match in_range {
            Rows::Each => None,
            Rows::Together => Some(kernels::range_of_tensor(cpu, x)),
            Rows::Calibrated(range) => Some(range),
        };
        let buffers = (RowsMut::new(quantized, quantized_width(k)), RowsMut::new(scales, 1));
        self.threads.split(m, 1, buffers, |rows, (quantized, scales)| {
            let x = &x[columns(&rows, k)];
            match range {
                None => kernels::quantize_rows(cpu, x, k, quantized, scales),
                Some(range) => {
                    kernels::quantize_with(cpu, x, k, range, quantized);
                    scales.fill(range);
                }
            }
        });
    }

    /// The weights where they lie, or widened in `wide`.
    fn packed<'a>(&'a self, layer: &Linear, wide: &'a mut [f32]) -> Packed<'a> {
        let Linear { k, n, .. } = *layer;
        let bias = self.values(layer.bias);
        let packed = match layer.int8 {
            None => {
                let panels = match layer.narrow {
                    Some(_) => self.widened_f16(self.values(layer.panels), wide),
                    None => self.values(layer.panels),
                };
                PackedF32::new(panels, bias, k, n).map(Packed::F32)
            }
            Some(Int8 { column_sums, scales, rows }) => {
                let panels = match layer.narrow {
                    Some(Narrow::Int4(multipliers, group)) => {
                        self.widened_i4(layer, (self.values(multipliers), group), wide)
                    }
                    _ => self.values(layer.panels),
                };
                let sums = self.values(column_sums);
                let weights = PackedI8::new(panels, sums, self.values(scales), bias, k, n);
                weights.map(|weights| Packed::Int8(weights, rows))
            }
        };
        packed.expect("parsing checked the extents of all weights")
    }

    fn widened_f16<'a>(&self, halves: &[u16], wide: &'a mut [f32]) -> &'a [f32] {
        let wide = &mut wide[..halves.len()];
        // A cache line at a time, so that threads share none.
        self.threads.split(
            halves.len() / PANEL,
            1,
            RowsMut::new(&mut *wide, PANEL),
            |rows, out| {
                kernels::widen_f16(self.cpu, &halves[columns(&rows, PANEL)], out);
            },
        );
        wide
    }

    fn widened_i4<'a>(
        &self,
        layer: &Linear,
        (multipliers, group): (&[u8], usize),
        wide: &'a mut [f32],
    ) -> &'a [i8] {
        let length = quantized_width(layer.k) * PANEL;
        let of_groups = layer.k.div_ceil(group) * PANEL;
        let count = layer.n.div_ceil(PANEL);
        let panels: &[u8] = self.values(layer.panels);
        let wide = &mut bytemuck::cast_slice_mut(wide)[..count * length];
        self.threads.split(count, 1, RowsMut::new(&mut *wide, length), |indices, out| {
            for (index, out) in indices.zip(out.chunks_exact_mut(length)) {
                let packed = &panels[index * length / 2..][..length / 2];
                let multipliers = &multipliers[index * of_groups..][..of_groups];
                kernels::widen_i4(self.cpu, packed, multipliers, group, out);
            }
        });
        wide
    }

    /// The attention of the first tokens of one sequence, as many as `out` has rows: `qkv` is `[tokens, width]`,
    /// `mask` `[tokens]`.
    pub(crate) fn attention(
        &self,
        attention: Attention,
        qkv: &[f32],
        mask: &[u8],
        scratch: &mut Scratch,
        out: &mut [f32],
    ) {
        let (cpu, tokens) = (self.cpu, mask.len());
        let row = qkv.len() / tokens;
        let heads = attention.shape(row);
        let (hidden, width) = (heads.hidden(), heads.head_width);
        let kernel = match attention.rounds(tokens) {
            true => kernels::attention_i8,
            false => kernels::attention,
        };
        let scratch = PerThread::new(&mut scratch.attention, attention.scratch_len(tokens, row));
        let out = ColumnsMut::new(out, hidden);
        self.threads.split(hidden, width, (out, scratch), |columns, (out, scratch)| {
            let which = columns.start / width..columns.end / width;
            kernel(cpu, heads, which, (qkv, mask), scratch, out);
        });
    }

    pub(crate) fn gelu(&self, width: usize, x: &[f32], out: &mut [f32]) {
        self.threads.split(x.len() / width, 1, RowsMut::new(out, width), |rows, out| {
            out.copy_from_slice(&x[columns(&rows, width)]);
            kernels::gelu(self.cpu, out);
        });
    }

    /// The mean of one sequence's rows.
    pub(crate) fn mean_pool(&self, hidden: &[f32], mask: &[u8], out: &mut [f32]) {
        kernels::masked_mean(self.cpu, hidden, mask, out);
    }

    pub(crate) fn l2_normalize(&self, width: usize, x: &[f32], out: &mut [f32]) {
        out.copy_from_slice(x);
        kernels::l2_normalize(self.cpu, out, width, SMALLEST_NORM);
    }
}

enum Packed<'a> {
    F32(PackedF32<'a>),
    /// With the ranges of the input's rows.
    Int8(PackedI8<'a>, Rows),
}

/// The elements of `rows` in a matrix of that width.
fn columns(rows: &Range<usize>, width: usize) -> Range<usize> {
    rows.start * width..rows.end * width
}
