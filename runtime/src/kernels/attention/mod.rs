//! Queries, keys, values -> what each token attends to, thirty-two queries of a head at a time. Their scores lie
//! a key a row, so that what a softmax finds along the keys it finds for all queries at once.

mod int8;

use super::block::{Block, Strided};
use super::cpu::{Cpu, per_cpu};
use super::lanes::LANES;
use super::math;
use super::pack::PANEL;
use super::tiles::{self, Share};
use std::ops::Range;

pub use int8::{MOST_INT8_TOKENS, attention_i8};

/// The score of a key that the mask excludes: far below every score, and finite, so that a row
/// whose keys are all excluded attends to all alike.
const EXCLUDED: f32 = -1e30;

/// Keys whose scores a loop takes together: more than a compiler unrolls, so that it makes vectors of neighbours and
/// not of columns.
const TOGETHER: usize = 8;

/// The shape of a multi-head attention: `heads` of `head_width` columns each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heads {
    /// Number of heads.
    pub heads: usize,
    /// Columns of one head.
    pub head_width: usize,
}

impl Heads {
    /// Columns of all heads.
    pub fn hidden(self) -> usize {
        self.heads * self.head_width
    }

    /// Floats of scratch that each thread of [`attention`] needs for `tokens`.
    pub fn scratch_len(self, tokens: usize) -> usize {
        (tokens + self.head_width + self.value_panels() * tokens) * PANEL
    }

    fn value_panels(self) -> usize {
        self.head_width.div_ceil(PANEL)
    }
}

/// For each of the heads `which` and each of the first tokens, as many as `out` has rows,
/// `softmax(query . keys) . values`. `qkv` is `[tokens, 3 * hidden]`, each row the queries, keys and values of one
/// token, queries scaled already; `mask` is `[tokens]`, and a zero excludes a token from being attended to. `out` is
/// `[rows, columns of those heads]`; `scratch` is [`Heads::scratch_len`] long.
///
/// A query whose keys are all excluded attends to all tokens alike.
///
/// # Panics
/// When the lengths do not belong together.
pub fn attention(
    cpu: Cpu,
    heads: Heads,
    which: Range<usize>,
    (qkv, mask): (&[f32], &[u8]),
    scratch: &mut [f32],
    mut out: Block<'_, f32>,
) {
    let (hidden, width, tokens) = (heads.hidden(), heads.head_width, mask.len());
    check(heads, &which, qkv, tokens, &out);
    assert_eq!(scratch.len(), heads.scratch_len(tokens), "the scratch is that of the tokens");
    let (rows, _) = scratch.as_chunks_mut::<PANEL>();
    let (scores, rows) = rows.split_at_mut(tokens);
    let (queries, values) = rows.split_at_mut(width);
    let mut sums = Rows([[0.0; PANEL]; PANEL]);
    for (place, head) in which.enumerate() {
        let keys = Strided { values: &qkv[hidden + head * width..], stride: 3 * hidden, width };
        let first_value = Strided { values: &qkv[2 * hidden + head * width..], ..keys };
        pack_values(cpu, first_value, values, tokens);
        for first in (0..out.rows()).step_by(PANEL) {
            let count = PANEL.min(out.rows() - first);
            let start = first * 3 * hidden + head * width;
            turn(Strided { values: &qkv[start..], ..keys }, count, queries);
            let turned = queries.as_flattened();
            let (target, ahead) = ((scores.as_flattened_mut(), PANEL), Share::ALL.after(turned));
            tiles::multiply_f32(cpu, tokens, keys, turned, &[0.0; PANEL], target, ahead);
            for (row, _) in scores.iter_mut().zip(mask).filter(|(_, keep)| **keep == 0) {
                row.fill(EXCLUDED);
            }
            let mut shares = [1.0; PANEL];
            exponentials(cpu, scores, &mut shares);
            for (panel, values) in values.chunks_exact(tokens).enumerate() {
                let columns = panel * PANEL..width.min((panel + 1) * PANEL);
                let sums = &mut sums.0[..count];
                tiles::multiply_turned_f32(cpu, scores, values, sums);
                for ((row, sums), share) in (first..).zip(&*sums).zip(shares) {
                    let out = &mut out.row(row)[place * width..][columns.clone()];
                    out.iter_mut().zip(sums).for_each(|(out, sum)| *out = *sum * share);
                }
            }
        }
    }
}

/// What all attention asks of its arguments.
fn check(heads: Heads, which: &Range<usize>, qkv: &[f32], tokens: usize, out: &Block<'_, f32>) {
    assert_eq!(qkv.len(), tokens * 3 * heads.hidden(), "qkv is [tokens, 3 * hidden]");
    assert!(which.end <= heads.heads, "the heads are some of all");
    assert!(out.rows() <= tokens, "the result has no more rows than there are tokens");
    let columns = which.len() * heads.head_width;
    assert_eq!(out.width(), columns, "a row has the columns of the heads");
}

/// Rows of scores on cache lines of their own.
#[repr(align(64))]
struct Rows<T, const N: usize>([[T; PANEL]; N]);

/// The values of one head, `[tokens, width]` somewhere in wider rows, as panels `[tokens, 32]`. Columns past the
/// width are left as they are.
fn pack_values(cpu: Cpu, values: Strided<'_, f32>, panels: &mut [[f32; PANEL]], tokens: usize) {
    #[inline(always)]
    fn body(values: Strided<'_, f32>, panels: &mut [[f32; PANEL]], tokens: usize) {
        for (panel, target) in panels.chunks_exact_mut(tokens).enumerate() {
            let columns = PANEL.min(values.width - panel * PANEL);
            let rows = values.values[panel * PANEL..].chunks(values.stride);
            for (target, row) in target.iter_mut().zip(rows) {
                match row.first_chunk::<PANEL>() {
                    Some(row) if columns == PANEL => *target = *row,
                    _ => target[..columns].copy_from_slice(&row[..columns]),
                }
            }
        }
    }
    per_cpu!(cpu, body(values: Strided<'_, f32>, panels: &mut [[f32; PANEL]], tokens: usize))
}

/// The first `count` rows of `queries` as columns of `turned [width, 32]`; the others are zero.
///
/// Compiled for every processor, as what follows it: wider vectors would scatter what plain stores put in place sooner.
fn turn<T: Copy + Default>(queries: Strided<'_, T>, count: usize, turned: &mut [[T; PANEL]]) {
    if count < PANEL {
        turned.as_flattened_mut().fill(T::default());
    }
    let fours = count - count % 4;
    for first in (0..fours).step_by(4) {
        let rows: [_; 4] = std::array::from_fn(|place| queries.row(first + place).as_chunks::<4>());
        let squares = rows[0].0.iter().zip(rows[1].0).zip(rows[2].0.iter().zip(rows[3].0));
        for (steps, ((a, b), (c, d))) in turned.chunks_exact_mut(4).zip(squares) {
            for (place, step) in steps.iter_mut().enumerate() {
                step[first..first + 4].copy_from_slice(&[a[place], b[place], c[place], d[place]]);
            }
        }
        for (place, (_, rest)) in rows.into_iter().enumerate() {
            let steps = turned.iter_mut().rev().zip(rest.iter().rev());
            steps.for_each(|(step, &query)| step[first + place] = query);
        }
    }
    for column in fours..count {
        turned.iter_mut().zip(queries.row(column)).for_each(|(step, &query)| step[column] = query);
    }
}

/// Replaces the scores of each column by `e^(score - largest)`; `shares` get one over their sums, which are
/// those of [`lanes`](super::lanes) along the column.
fn exponentials(cpu: Cpu, scores: &mut [[f32; PANEL]], shares: &mut [f32; PANEL]) {
    #[inline(always)]
    fn body(scores: &mut [[f32; PANEL]], shares: &mut [f32; PANEL]) {
        let scores = scores.as_flattened_mut();
        let largest = [largest(scores); TOGETHER];
        for scores in scores.chunks_mut(TOGETHER * PANEL) {
            for (score, largest) in scores.iter_mut().zip(largest.as_flattened()) {
                *score = math::exp_below(*score - largest);
            }
        }
        let sums = join_all([[0.0; PANEL]; LANES], scores, |total, term| total + term);
        for (share, sum) in shares.iter_mut().zip(sums) {
            *share = 1.0 / sum;
        }
    }
    per_cpu!(cpu, body(scores: &mut [[f32; PANEL]], shares: &mut [f32; PANEL]))
}

/// The largest score of each column. No score that is a number is passed over: NaN is.
#[inline(always)]
fn largest(scores: &[f32]) -> [f32; PANEL] {
    join_all([[f32::MIN; PANEL]; TOGETHER], scores, f32::max)
}

/// `join` over each column of `scores [_, 32]`: lane `l` of N takes the rows `l`, `l + N`, ... in turn, then the
/// upper half of the lanes is joined to the lower until one is left.
#[inline(always)]
fn join_all<const N: usize>(
    start: [[f32; PANEL]; N],
    scores: &[f32],
    join: impl Fn(f32, f32) -> f32,
) -> [f32; PANEL] {
    let mut lanes = Rows(start);
    let totals = lanes.0.as_flattened_mut();
    let len = totals.len();
    let fours = scores.chunks_exact(4 * len);
    let rest = fours.remainder();
    for four in fours {
        let (halves, more) = four.split_at(2 * len);
        let ((a, b), (c, d)) = (halves.split_at(len), more.split_at(len));
        let terms = a.iter().zip(b).zip(c.iter().zip(d));
        for (total, ((&a, &b), (&c, &d))) in totals.iter_mut().zip(terms) {
            *total = join(join(join(join(*total, a), b), c), d);
        }
    }
    for terms in rest.chunks(len) {
        totals.iter_mut().zip(terms).for_each(|(total, &term)| *total = join(*total, term));
    }
    let mut half = N / 2;
    while half > 0 {
        let (low, high) = lanes.0.split_at_mut(half);
        let pairs = low.as_flattened_mut().iter_mut().zip(high.as_flattened());
        pairs.for_each(|(low, &high)| *low = join(*low, high));
        half /= 2;
    }
    lanes.0[0]
}
