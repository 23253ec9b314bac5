//! Queries, keys, values -> what each token attends to. Keys are transposed and values gathered into
//! panels once; then twelve queries at a time have their scores, which never leave the first-level cache.

use super::cpu::{Cpu, per_cpu};
use super::pack::PANEL;
use super::tiles::{self, Strided, TILE_ROWS, Tile};
use super::{lanes, math};

/// Added to the score of a key that the mask excludes: far below every score, and finite, so that a row
/// whose keys are all excluded attends to all alike.
const EXCLUDED: f32 = -1e30;

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

    /// Tokens whose keys and values are packed together; [`pack_keys_values`] takes rows from a multiple
    /// of it on.
    pub const GROUP: usize = PANEL;

    /// Floats that [`pack_keys_values`] fills for each group of tokens.
    pub fn group_len(self) -> usize {
        self.heads * self.head_len()
    }

    /// Floats that [`pack_keys_values`] fills for `tokens`.
    pub fn packed_len(self, tokens: usize) -> usize {
        tokens.div_ceil(PANEL) * self.group_len()
    }

    /// Floats of scratch that each thread of [`attention`] needs for `tokens`.
    pub fn scratch_len(self, tokens: usize) -> usize {
        (TILE_ROWS + 1) * tokens.next_multiple_of(PANEL)
    }

    /// Floats of one head in a group: keys `[head_width, 32]`, then values `[panels, 32, 32]`.
    fn head_len(self) -> usize {
        self.head_width * PANEL + self.value_panels() * PANEL * PANEL
    }

    fn value_panels(self) -> usize {
        self.head_width.div_ceil(PANEL)
    }
}

/// Rearranges the keys and values of some tokens for [`attention`]. `qkv` is `[rows, 3 * hidden]`, each
/// row the queries, keys and values of one token; its first token is a multiple of [`Heads::GROUP`].
/// `packed` is the part of all `[groups, group_len]` that belongs to these rows, so threads can share the
/// work.
///
/// # Panics
/// When the lengths do not belong together.
pub fn pack_keys_values(cpu: Cpu, heads: Heads, qkv: &[f32], packed: &mut [f32]) {
    let stride = 3 * heads.hidden();
    assert!(qkv.len().is_multiple_of(stride), "qkv is [rows, 3 * hidden]");
    assert_eq!(
        packed.len(),
        heads.packed_len(qkv.len() / stride),
        "the panels are those of the rows"
    );
    #[inline(always)]
    fn body(heads: Heads, qkv: &[f32], packed: &mut [f32]) {
        let (hidden, width) = (heads.hidden(), heads.head_width);
        let groups = qkv.chunks(PANEL * 3 * hidden).zip(packed.chunks_exact_mut(heads.group_len()));
        for (rows, group) in groups {
            for (head, target) in group.chunks_exact_mut(heads.head_len()).enumerate() {
                let (keys, values) = target.split_at_mut(width * PANEL);
                let (first_key, first_value) = (hidden + head * width, 2 * hidden + head * width);
                keys.fill(0.0);
                for (token, row) in rows.chunks_exact(3 * hidden).enumerate() {
                    let key = &row[first_key..][..width];
                    keys.chunks_exact_mut(PANEL)
                        .zip(key)
                        .for_each(|(step, &key)| step[token] = key);
                    let value = row[first_value..][..width].chunks(PANEL);
                    for (panel, value) in values.chunks_exact_mut(PANEL * PANEL).zip(value) {
                        panel[token * PANEL..][..value.len()].copy_from_slice(value);
                    }
                }
            }
        }
    }
    per_cpu!(cpu, body(heads: Heads, qkv: &[f32], packed: &mut [f32]))
}

/// The keys and values that [`attention`] looks at.
#[derive(Clone, Copy, Debug)]
pub struct KeysValues<'a> {
    /// What [`pack_keys_values`] made of every token.
    pub packed: &'a [f32],
    /// `[tokens]`; zero excludes a token from being attended to.
    pub mask: &'a [u8],
}

/// `out [rows, hidden]`: for each head, `softmax(q . keys) . values`. `qkv` is `[rows, 3 * hidden]`, of which
/// the queries are read; they are scaled already. `scratch` is [`Heads::scratch_len`] long.
///
/// A query whose keys are all excluded attends to all tokens alike.
///
/// # Panics
/// When the lengths do not belong together.
pub fn attention(
    cpu: Cpu,
    heads: Heads,
    qkv: &[f32],
    keys_values: KeysValues<'_>,
    scratch: &mut [f32],
    out: &mut [f32],
) {
    let (hidden, tokens) = (heads.hidden(), keys_values.mask.len());
    assert_eq!(qkv.len(), 3 * out.len(), "qkv is [rows, 3 * hidden], the result [rows, hidden]");
    assert!(out.len().is_multiple_of(hidden), "the result holds whole rows");
    assert_eq!(
        keys_values.packed.len(),
        heads.packed_len(tokens),
        "there are panels for every token"
    );
    assert_eq!(scratch.len(), heads.scratch_len(tokens), "the scratch is that of the tokens");
    let (bias, scores) = scratch.split_at_mut(tokens.next_multiple_of(PANEL));
    bias.fill(0.0);
    for (bias, _) in bias.iter_mut().zip(keys_values.mask).filter(|(_, keep)| **keep == 0) {
        *bias = EXCLUDED;
    }
    // Heads outermost: the panels of one head stay in the cache for all of its queries.
    for head in 0..heads.heads {
        let blocks = qkv.chunks(TILE_ROWS * 3 * hidden).zip(out.chunks_mut(TILE_ROWS * hidden));
        for (queries, out) in blocks {
            let queries = Strided {
                values: &queries[head * heads.head_width..],
                stride: 3 * hidden,
                width: heads.head_width,
            };
            let block = Block { cpu, heads, head, rows: out.len() / hidden, tokens };
            block.attend(queries, keys_values.packed, bias, scores, out);
        }
    }
}

/// At most twelve queries of one head.
struct Block {
    cpu: Cpu,
    heads: Heads,
    head: usize,
    rows: usize,
    tokens: usize,
}

impl Block {
    fn attend(
        &self,
        queries: Strided<'_, f32>,
        packed: &[f32],
        bias: &[f32],
        scores: &mut [f32],
        out: &mut [f32],
    ) {
        let stride = bias.len();
        scores.chunks_exact_mut(stride).take(self.rows).for_each(|row| row.copy_from_slice(bias));
        for (group, keys_values) in packed.chunks_exact(self.heads.group_len()).enumerate() {
            let keys = &keys_values[self.head * self.heads.head_len()..];
            let scores = &mut scores[group * PANEL..];
            tiles::multiply_f32(self.cpu, self.rows, queries, keys, scores, stride, &[]);
        }
        let mut shares = [1.0; TILE_ROWS];
        exponentials(self.cpu, &mut scores[..self.rows * stride], stride, self.tokens, &mut shares);
        let mut sums = Tile([[0.0; PANEL]; TILE_ROWS]);
        for panel in 0..self.heads.value_panels() {
            self.weigh_values(scores, stride, packed, panel, &mut sums);
            self.store(&sums.0, &shares, panel, out);
        }
    }

    /// `sums = scores [rows, tokens] x values [tokens, 32]`, the values of one panel of columns.
    fn weigh_values(
        &self,
        scores: &[f32],
        stride: usize,
        packed: &[f32],
        panel: usize,
        sums: &mut Tile<f32>,
    ) {
        let sums = sums.0.as_flattened_mut();
        sums.fill(0.0);
        let before =
            self.head * self.heads.head_len() + (self.heads.head_width + panel * PANEL) * PANEL;
        for (group, keys_values) in packed.chunks_exact(self.heads.group_len()).enumerate() {
            let first = group * PANEL;
            let width = PANEL.min(self.tokens - first);
            let left = Strided { values: &scores[first..], stride, width };
            tiles::multiply_f32(
                self.cpu,
                self.rows,
                left,
                &keys_values[before..],
                sums,
                PANEL,
                &[],
            );
        }
    }

    fn store(&self, sums: &[[f32; PANEL]], shares: &[f32], panel: usize, out: &mut [f32]) {
        let columns = PANEL.min(self.heads.head_width - panel * PANEL);
        let first = self.head * self.heads.head_width + panel * PANEL;
        let rows = out.chunks_exact_mut(self.heads.hidden());
        for ((row, sums), share) in rows.zip(sums).zip(shares) {
            for (out, sum) in row[first..][..columns].iter_mut().zip(sums) {
                *out = sum * share;
            }
        }
    }
}

/// Replaces the first `tokens` scores of each row by `e^(score - largest)`; `shares` get one over their sums.
///
/// A pass over all rows for each step, where [`softmax`](super::softmax) takes a row at a time: the steps of one row
/// wait for each other, those of twelve do not.
fn exponentials(cpu: Cpu, scores: &mut [f32], stride: usize, tokens: usize, shares: &mut [f32]) {
    #[inline(always)]
    fn body(scores: &mut [f32], stride: usize, tokens: usize, shares: &mut [f32]) {
        for (row, largest) in scores.chunks_exact(stride).zip(&mut *shares) {
            *largest = lanes::max(&row[..tokens], f32::MIN);
        }
        for (row, largest) in scores.chunks_exact_mut(stride).zip(&mut *shares) {
            row[..tokens].iter_mut().for_each(|score| *score = math::exp_of(*score - *largest));
        }
        for (row, share) in scores.chunks_exact(stride).zip(shares) {
            *share = 1.0 / lanes::sum(&row[..tokens], |value| value);
        }
    }
    per_cpu!(cpu, body(scores: &mut [f32], stride: usize, tokens: usize, shares: &mut [f32]))
}
