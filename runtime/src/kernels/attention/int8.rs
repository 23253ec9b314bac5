//! Attention on integers: what its two products read is rounded just before, queries, keys and the columns of
//! the values each in a step of their own, the shares of a softmax in steps of a 255th of the largest.
//!
//! What a product reads lies in *quads*, the four bytes of a column that it takes at once, `[k / 4, 32]` of them. So
//! whole columns of values and shares are rounded, summed and put together side by side, and no byte is moved on its own.

use super::{EXCLUDED, Heads, Rows, check, largest, turn};
use crate::kernels::block::{Block, Strided};
use crate::kernels::cpu::{Cpu, per_cpu};
use crate::kernels::math::SHIFT;
use crate::kernels::pack::{MOST_INT8_INPUTS, PANEL};
use crate::kernels::tiles::{self, Share};
use std::ops::Range;

/// The longest sequence whose sums cannot overflow an `i32`.
pub const MOST_INT8_TOKENS: usize = MOST_INT8_INPUTS;

/// A row of 32 floats; of 32 sums; of the quads of four rows.
type Floats = [f32; PANEL];
type Sums = [i32; PANEL];
type Quads = [u32; PANEL];

/// What is added to signed bytes that stand on the left of a product.
const LEFT: u8 = 128;

/// Rows that are rounded side by side.
const TOGETHER: usize = 8;

/// Steps below this are taken for none: their reciprocal could be infinite.
const LEAST_STEP: f32 = 1e-30;

impl Heads {
    /// Floats of scratch that each thread of [`attention_i8`] needs for `tokens`.
    pub fn scratch_len_i8(self, tokens: usize) -> usize {
        let counts = Counts::of(self, tokens);
        let of_values = counts.panels * (counts.token_quads + 2);
        let of_queries = 5 * counts.token_quads + 2 * counts.width_quads;
        (of_values + of_queries) * PANEL + tokens * (counts.width_quads + 1)
    }
}

/// What scratch is counted in.
struct Counts {
    /// Panels of the columns of a head.
    panels: usize,
    /// Quads of the columns of a head,
    width_quads: usize,
    /// and of tokens.
    token_quads: usize,
}

impl Counts {
    fn of(heads: Heads, tokens: usize) -> Counts {
        Counts {
            panels: heads.value_panels(),
            width_quads: heads.head_width.div_ceil(4),
            token_quads: tokens.div_ceil(4),
        }
    }
}

/// The scratch of one thread.
struct Scratch<'a> {
    /// Of 32 queries, `[tokens, 32]`, whole quads of tokens.
    scores: &'a mut [Floats],
    /// Their shares, `[tokens / 4, 32]`.
    shares: &'a mut [Quads],
    /// Those queries, `[32, width / 4]`,
    query_rows: &'a mut [u32],
    /// and turned, `[width / 4, 32]`.
    queries: &'a mut [Quads],
    /// `[panels, tokens / 4, 32]`,
    values: &'a mut [Quads],
    /// the steps of their columns,
    value_steps: &'a mut [Floats],
    /// and what their bytes add up to.
    value_sums: &'a mut [Sums],
    /// `[tokens, width / 4]`,
    keys: &'a mut [u32],
    /// and their steps.
    key_steps: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    fn of(scratch: &'a mut [f32], heads: Heads, tokens: usize) -> Scratch<'a> {
        let Counts { panels, width_quads, token_quads } = Counts::of(heads, tokens);
        let (keys, rest) = scratch.split_at_mut(tokens * width_quads);
        let (key_steps, rest) = rest.split_at_mut(tokens);
        let (query_rows, rest) = rest.split_at_mut(PANEL * width_quads);
        let (rows, _) = rest.as_chunks_mut::<PANEL>();
        let (scores, rows) = rows.split_at_mut(4 * token_quads);
        let (shares, rows) = rows.split_at_mut(token_quads);
        let (queries, rows) = rows.split_at_mut(width_quads);
        let (value_steps, rows) = rows.split_at_mut(panels);
        let (value_sums, values) = rows.split_at_mut(panels);
        Scratch {
            scores,
            shares: bytemuck::cast_slice_mut(shares),
            query_rows: bytemuck::cast_slice_mut(query_rows),
            queries: bytemuck::cast_slice_mut(queries),
            values: bytemuck::cast_slice_mut(values),
            value_steps,
            value_sums: bytemuck::cast_slice_mut(value_sums),
            keys: bytemuck::cast_slice_mut(keys),
            key_steps,
        }
    }
}

/// As [`attention`](super::attention), with both products on integers. Queries and keys are rounded for each token and
/// head in 127 steps either way, values for each column likewise, over the tokens that the mask keeps, and
/// `e^(score - largest)` in 255. Sums are exact; the rounded shares of a query are divided by their own sum.
/// `scratch` is [`Heads::scratch_len_i8`] long.
///
/// # Panics
/// When the lengths do not belong together, or there are more than [`MOST_INT8_TOKENS`] tokens.
pub fn attention_i8(
    cpu: Cpu,
    heads: Heads,
    which: Range<usize>,
    (qkv, mask): (&[f32], &[u8]),
    scratch: &mut [f32],
    mut out: Block<'_, f32>,
) {
    let (hidden, width, tokens) = (heads.hidden(), heads.head_width, mask.len());
    check(heads, &which, qkv, tokens, &out);
    assert!(tokens <= MOST_INT8_TOKENS, "32-bit sums hold that many tokens");
    assert_eq!(scratch.len(), heads.scratch_len_i8(tokens), "the scratch is that of the tokens");
    if out.rows() == 0 {
        return;
    }
    // Where all are excluded, all are attended to.
    let kept = if mask.iter().all(|&keep| keep == 0) { &[] } else { mask };
    let scratch = Scratch::of(scratch, heads, tokens);
    let (width_quads, token_quads) = (scratch.queries.len(), scratch.shares.len());
    let offset = tiles::i8_offset(cpu);
    // What fills up the last quad has no share.
    scratch.scores[tokens..].fill([f32::NEG_INFINITY; PANEL]);
    let mut sums = Rows([[0; PANEL]; PANEL]);
    for (place, head) in which.enumerate() {
        let part = |part: usize, first: usize| {
            let values = &qkv[(first * 3 + part) * hidden + head * width..];
            Strided { values, stride: 3 * hidden, width }
        };
        for (panel, quads) in scratch.values.chunks_exact_mut(token_quads).enumerate() {
            let Strided { values, stride, .. } = part(2, 0);
            let (values, width) = (&values[panel * PANEL..], PANEL.min(width - panel * PANEL));
            let columns = (&mut scratch.value_steps[panel], &mut scratch.value_sums[panel]);
            let values = Strided { values, stride, width };
            round_columns(cpu, (values, tokens), kept, quads, columns);
        }
        round_rows(cpu, part(1, 0), LEFT, scratch.keys, scratch.key_steps);
        let keys = Strided::new(bytemuck::cast_slice(&*scratch.keys), 4 * width_quads);
        for first in (0..out.rows()).step_by(PANEL) {
            let count = PANEL.min(out.rows() - first);
            let (mut steps, mut query_sums) = ([0.0; PANEL], [0; PANEL]);
            let rows = &mut scratch.query_rows[..count * width_quads];
            round_rows(cpu, part(0, first), 0, rows, &mut steps[..count]);
            turn(Strided::new(rows, width_quads), count, scratch.queries);
            sum_columns(cpu, scratch.queries, &mut query_sums);
            let panel = bytemuck::cast_slice(&*scratch.queries);
            let tiles = scratch.scores[..tokens].chunks_mut(PANEL);
            for (tile, scores) in tiles.enumerate() {
                let (first, sums) = (tile * PANEL, &mut sums.0[..scores.len()]);
                let keys = Strided { values: &keys.values[first * keys.stride..], ..keys };
                tiles::multiply_i8(cpu, keys, panel, sums, Share::ALL.after(panel));
                let columns = (&steps, &query_sums);
                let key_steps = &scratch.key_steps[first..];
                finish(cpu, sums, i32::from(LEFT) - offset, columns, key_steps, scores);
            }
            for (scores, _) in scratch.scores.iter_mut().zip(mask).filter(|(_, keep)| **keep == 0) {
                scores.fill(EXCLUDED);
            }
            let mut factors = [0.0; PANEL];
            softmax(cpu, scratch.scores, scratch.shares, &mut factors);
            for (panel, values) in scratch.values.chunks_exact(token_quads).enumerate() {
                let sums = &mut sums.0[..count];
                tiles::multiply_turned_i8(cpu, scratch.shares, values, sums);
                let columns = (&scratch.value_steps[panel], &scratch.value_sums[panel]);
                // The scores were used up.
                let results = &mut scratch.scores[..count];
                finish(cpu, sums, -offset, columns, &factors, results);
                let columns = panel * PANEL..width.min((panel + 1) * PANEL);
                for (row, result) in (first..).zip(results) {
                    let out = &mut out.row(row)[place * width..][columns.clone()];
                    out.copy_from_slice(&result[..columns.len()]);
                }
            }
        }
    }
}

/// A magnitude as an integer, which compares as the float does, and in any order.
#[inline(always)]
fn magnitude(value: f32) -> u32 {
    value.to_bits() & 0x7fff_ffff
}

/// The largest magnitude, NaN above all.
#[inline(always)]
fn largest_magnitude(values: &[f32]) -> f32 {
    let (whole, rest) = values.as_chunks::<PANEL>();
    let mut most = rest.iter().fold(0, |most, value| magnitude(*value).max(most));
    for values in whole {
        most = values.iter().fold(most, |most, value| magnitude(*value).max(most));
    }
    f32::from_bits(most)
}

/// The step of 127 either way of `most`, and what values are multiplied with to be divided by it.
#[inline(always)]
fn step_of(most: f32) -> (f32, f32) {
    let step = most / 127.0;
    (step, if step > LEAST_STEP { 1.0 / step } else { 0.0 })
}

/// The bits of [`SHIFT`] with `value / step` added, whose lowest byte is that integer. NaN is taken for the least.
#[inline(always)]
fn shifted(value: f32, reciprocal: f32) -> u32 {
    let steps = value * reciprocal;
    let steps = if steps > -127.0 { steps } else { -127.0 };
    (steps + SHIFT).to_bits()
}

/// Each row of `x` to quads of bytes with `zero_point` added, in 127 steps either way of its largest magnitude: those
/// steps, as many as there are rows. What a row lacks of whole quads is zero.
fn round_rows(cpu: Cpu, x: Strided<'_, f32>, zero_point: u8, quads: &mut [u32], steps: &mut [f32]) {
    #[inline(always)]
    fn body(x: Strided<'_, f32>, zero_point: u8, quads: &mut [u32], steps: &mut [f32]) {
        let width = 4 * (quads.len() / steps.len());
        let bytes = bytemuck::cast_slice_mut::<_, u8>(quads).chunks_mut(TOGETHER * width);
        for (block, (bytes, steps)) in bytes.zip(steps.chunks_mut(TOGETHER)).enumerate() {
            // Side by side, since each waits long for its own.
            for (row, step) in steps.iter_mut().enumerate() {
                *step = largest_magnitude(x.row(block * TOGETHER + row));
            }
            let mut reciprocals = [0.0; TOGETHER];
            for (step, reciprocal) in steps.iter_mut().zip(&mut reciprocals) {
                (*step, *reciprocal) = step_of(*step);
            }
            for (row, bytes) in bytes.chunks_exact_mut(width).enumerate() {
                let values = x.row(block * TOGETHER + row);
                let (bytes, padding) = bytes.split_at_mut(values.len());
                let (whole, rest) = values.as_chunks::<PANEL>();
                let (whole_bytes, rest_bytes) = bytes.as_chunks_mut::<PANEL>();
                let round = |bytes: &mut [u8], values: &[f32]| {
                    for (byte, value) in bytes.iter_mut().zip(values) {
                        *byte = (shifted(*value, reciprocals[row]) as u8).wrapping_add(zero_point);
                    }
                };
                // Whole ones by themselves: their length is known to the compiler.
                whole_bytes.iter_mut().zip(whole).for_each(|(bytes, values)| round(bytes, values));
                round(rest_bytes, rest);
                for byte in padding {
                    *byte = zero_point;
                }
            }
        }
    }
    per_cpu!(cpu, body(
        x: Strided<'_, f32>,
        zero_point: u8,
        quads: &mut [u32],
        steps: &mut [f32],
    ))
}

/// What the bytes of each column add up to.
fn sum_columns(cpu: Cpu, quads: &[Quads], sums: &mut Sums) {
    #[inline(always)]
    fn body(quads: &[Quads], sums: &mut Sums) {
        *sums = [0; PANEL];
        for quads in quads {
            for (sum, quad) in sums.iter_mut().zip(quads) {
                let byte = |shift: u32| (quad << shift).cast_signed() >> 24;
                *sum += byte(24) + byte(16) + (byte(8) + byte(0));
            }
        }
    }
    per_cpu!(cpu, body(quads: &[Quads], sums: &mut Sums))
}

/// The rows of `x` - so many, of at most 32 columns - to quads of bytes, each column in 127 steps either way of its largest
/// magnitude: those steps, and what the bytes of a column add up to. Rows that `mask` excludes, where it is not empty, count as
/// zeros, and so does what is lacking of whole quads.
fn round_columns(
    cpu: Cpu,
    x: (Strided<'_, f32>, usize),
    mask: &[u8],
    quads: &mut [Quads],
    columns: (&mut Floats, &mut Sums),
) {
    #[inline(always)]
    fn body(
        (x, rows): (Strided<'_, f32>, usize),
        mask: &[u8],
        quads: &mut [Quads],
        (steps, sums): (&mut Floats, &mut Sums),
    ) {
        let row = |row: usize, to: &mut Floats| {
            if row >= rows || mask.get(row) == Some(&0) {
                *to = [0.0; PANEL];
            } else {
                let row = x.row(row);
                match row.first_chunk() {
                    Some(row) => *to = *row,
                    None => to[..row.len()].copy_from_slice(row),
                }
            }
        };
        let mut four = Rows([[0.0; PANEL]; 4]);
        let mut most = Rows([[0; PANEL]; 4]);
        for quad in 0..quads.len() {
            for (place, to) in four.0.iter_mut().enumerate() {
                row(4 * quad + place, to);
            }
            let pairs = most.0.as_flattened_mut().iter_mut().zip(four.0.as_flattened());
            pairs.for_each(|(most, value)| *most = magnitude(*value).max(*most));
        }
        let [a, b, c, d] = most.0;
        let mut reciprocals = Rows([[0.0; PANEL]; 4]);
        for column in 0..PANEL {
            let most = f32::from_bits(a[column].max(b[column]).max(c[column]).max(d[column]));
            (steps[column], reciprocals.0[0][column]) = step_of(most);
        }
        reciprocals.0 = [reciprocals.0[0]; 4];
        *sums = [0; PANEL];
        for (quad, bytes) in quads.iter_mut().enumerate() {
            for (place, to) in four.0.iter_mut().enumerate() {
                row(4 * quad + place, to);
            }
            // As one loop, so that the compiler makes vectors of neighbours.
            let mut rounded = Rows([[0; PANEL]; 4]);
            let pairs = four.0.as_flattened().iter().zip(reciprocals.0.as_flattened());
            for (rounded, (&value, &reciprocal)) in
                rounded.0.as_flattened_mut().iter_mut().zip(pairs)
            {
                *rounded = shifted(value, reciprocal).wrapping_sub(SHIFT.to_bits());
            }
            let [a, b, c, d] = rounded.0;
            for column in 0..PANEL {
                let (a, b, c, d) = (a[column], b[column], c[column], d[column]);
                let low = |x: u32| x & 0xff;
                bytes[column] = low(a) | low(b) << 8 | low(c) << 16 | d << 24;
                sums[column] += a.wrapping_add(b).wrapping_add(c.wrapping_add(d)).cast_signed();
            }
        }
    }
    per_cpu!(cpu, body(
        x: (Strided<'_, f32>, usize),
        mask: &[u8],
        quads: &mut [Quads],
        columns: (&mut Floats, &mut Sums),
    ))
}

/// `out [rows, 32] = (sums - zero_point * column_sums) * (row_steps * column_steps)`.
fn finish(
    cpu: Cpu,
    sums: &[Sums],
    zero_point: i32,
    columns: (&Floats, &Sums),
    row_steps: &[f32],
    out: &mut [Floats],
) {
    #[inline(always)]
    fn body(
        sums: &[Sums],
        zero_point: i32,
        (column_steps, column_sums): (&Floats, &Sums),
        row_steps: &[f32],
        out: &mut [Floats],
    ) {
        for ((sums, out), row_step) in sums.iter().zip(out).zip(row_steps) {
            let columns = column_steps.iter().zip(column_sums);
            for ((out, sum), (column_step, column_sum)) in out.iter_mut().zip(sums).zip(columns) {
                let exact = sum.wrapping_sub(column_sum.wrapping_mul(zero_point));
                *out = exact as f32 * (row_step * column_step);
            }
        }
    }
    per_cpu!(cpu, body(
        sums: &[Sums],
        zero_point: i32,
        columns: (&Floats, &Sums),
        row_steps: &[f32],
        out: &mut [Floats],
    ))
}

/// `e^(score - largest)` of each column of `scores [4 * quads, 32]` in 255ths, and one over the sum of these. NaN has no
/// share.
fn softmax(cpu: Cpu, scores: &[Floats], shares: &mut [Quads], factors: &mut Floats) {
    #[inline(always)]
    fn body(scores: &[Floats], shares: &mut [Quads], factors: &mut Floats) {
        let largest = [largest(scores.as_flattened()); 4];
        let mut sums = [0; PANEL];
        for (rows, quads) in scores.as_chunks::<4>().0.iter().zip(shares) {
            // As one loop, so that the compiler makes vectors of neighbours.
            let mut parts = Rows([[0; PANEL]; 4]);
            let pairs = rows.as_flattened().iter().zip(largest.as_flattened());
            for (part, (score, largest)) in parts.0.as_flattened_mut().iter_mut().zip(pairs) {
                *part = share(score - largest);
            }
            let [a, b, c, d] = parts.0;
            for column in 0..PANEL {
                let (a, b, c, d) = (a[column], b[column], c[column], d[column]);
                quads[column] = a | b << 8 | c << 16 | d << 24;
                sums[column] += a + b + c + d;
            }
        }
        for (factor, sum) in factors.iter_mut().zip(sums) {
            *factor = 1.0 / sum as f32;
        }
    }
    per_cpu!(cpu, body(scores: &[Floats], shares: &mut [Quads], factors: &mut Floats))
}

/// `255 e^x`, rounded, for an `x` that is not positive: `2^n` put into the exponent of 255 times a cubic in the
/// remainder, fitted to make its largest relative error on -1/2..1/2 least, 7.5e-5. Zero for NaN.
#[inline(always)]
fn share(x: f32) -> u32 {
    // What is smaller rounds to zero.
    const LEAST: f32 = -7.0;
    const CUBIC: [f32; 4] = [254.981_67, 176.781_55, 61.865_62, 14.068_658];
    let x = if x > LEAST { x } else { LEAST };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, SHIFT);
    let f = x.mul_add(std::f32::consts::LOG2_E, SHIFT - shifted);
    let power = CUBIC[3].mul_add(f, CUBIC[2]).mul_add(f, CUBIC[1]).mul_add(f, CUBIC[0]);
    let scaled = f32::from_bits(power.to_bits().wrapping_add(shifted.to_bits() << 23));
    (scaled + SHIFT).to_bits() & 0xff
}
