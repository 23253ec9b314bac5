//! Linear layers: `out = activation(x . weights + bias) + residual`, in f32 and in int8.

use super::block::{Block, Strided};
use super::cpu::{Cpu, per_cpu};
use super::math;
use super::pack::{PANEL, PackedF32, PackedI8, quantized_width};
use super::quantize::RowScale;
use super::tiles::{self, Ahead, TILE_ROWS, Tile};
use std::ops::Range;

/// The most rows of the left side that are gone through panel by panel before the next ones. A block reads
/// all panels once, and for each panel itself once: panels come from further away, so blocks are large.
const ROW_BLOCK: usize = 24 * TILE_ROWS;

/// What a linear layer applies to its sums before it stores them.
#[derive(Clone, Copy, Default, Debug)]
pub struct Epilogue<'a> {
    /// The function that each sum passes through.
    pub activation: Activation,
    /// Added last; of the shape of the result.
    pub residual: Option<Strided<'a, f32>>,
}

/// A function of one number, fused into a linear layer.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Activation {
    /// The number itself.
    #[default]
    None,
    /// Zero for what is negative.
    Relu,
    /// As [`gelu`](super::gelu).
    Gelu,
    /// As [`tanh`](super::tanh).
    Tanh,
}

/// `out [m, n] = activation(x [m, k] . weights [k, n] + bias [n]) + residual [m, n]`. Of a wider result, some columns are
/// those of the weights that [`PackedF32::columns`] chooses.
///
/// Each sum starts from the bias and takes one fused multiply-add for each of its `k` terms, in order.
///
/// # Panics
/// When the lengths do not belong together.
pub fn linear_f32(
    cpu: Cpu,
    x: &[f32],
    weights: &PackedF32<'_>,
    epilogue: Epilogue<'_>,
    mut out: Block<'_, f32>,
) {
    let (k, n) = (weights.k(), weights.n());
    let m = rows_of(&out, n, epilogue);
    assert_eq!(x.len(), m * k, "x is [m, k]");
    let mut sums = Tile([[0.0; PANEL]; TILE_ROWS]);
    for_each_block(m, n, |rows, panel, share| {
        let sums = &mut sums.0[..rows.len()];
        let left = Strided { values: &x[rows.start * k..], stride: k, width: k };
        let (panels, bias) = (weights.panel(panel), weights.bias(panel));
        let (target, ahead) = ((sums.as_flattened_mut(), PANEL), share.after(panels));
        tiles::multiply_f32(cpu, rows.len(), left, panels, bias, target, ahead);
        store_f32(cpu, sums, epilogue, Place { row: rows.start, panel }, &mut out);
    });
}

/// As [`linear_f32`] on rows that [`quantize_rows`](super::quantize_rows) or
/// [`quantize_with`](super::quantize_with) gave: `x` is `[m, quantized_width(k)]`, `rows` `[m]`.
///
/// The products are summed exactly; a sum becomes a float by one fused multiply-add,
/// `sum * (row scale * column scale) + bias`.
///
/// # Panics
/// When the lengths do not belong together.
pub fn linear_i8(
    cpu: Cpu,
    x: &[u8],
    rows: &[RowScale],
    weights: &PackedI8<'_>,
    epilogue: Epilogue<'_>,
    mut out: Block<'_, f32>,
) {
    let (width, n) = (quantized_width(weights.k()), weights.n());
    let m = rows_of(&out, n, epilogue);
    assert_eq!(
        (x.len(), rows.len()),
        (m * width, m),
        "x is [m, quantized_width(k)] and has a scale a row"
    );
    let mut sums = Tile([[0; PANEL]; TILE_ROWS]);
    for_each_block(m, n, |block, panel, share| {
        let left = Strided { values: &x[block.start * width..], stride: width, width };
        let (products, panels) = (&mut sums.0[..block.len()], weights.panel(panel));
        tiles::multiply_i8(cpu, left, panels, products, share.after(panels));
        let sums = Sums {
            products: &sums.0[..block.len()],
            rows: &rows[block.clone()],
            offset: tiles::i8_offset(cpu),
            column_sums: weights.column_sums(panel),
            scales: weights.scales(panel),
            bias: weights.bias(panel),
        };
        store_i8(cpu, sums, epilogue, Place { row: block.start, panel }, &mut out);
    });
}

/// The number of rows of `out`, which a residual must share.
fn rows_of(out: &Block<'_, f32>, n: usize, epilogue: Epilogue<'_>) -> usize {
    assert_eq!(out.width(), n, "the result is [m, n]");
    let fits = |terms: Strided<'_, f32>| terms.width == n && terms.holds(out.rows());
    assert!(epilogue.residual.is_none_or(fits), "a residual is [m, n]");
    out.rows()
}

/// Calls `block(rows, panel, share)` for at most twelve rows at a time, panels outermost within a row block.
fn for_each_block(m: usize, n: usize, mut block: impl FnMut(Range<usize>, usize, Share)) {
    for first in (0..m).step_by(ROW_BLOCK) {
        let end = m.min(first + ROW_BLOCK);
        let tiles = (end - first).div_ceil(TILE_ROWS);
        for panel in 0..n.div_ceil(PANEL) {
            let mut row = first;
            for tile in 0..tiles {
                let next = row + (end - row).div_ceil(tiles - tile);
                block(row..next, panel, Share { tile, tiles });
                row = next;
            }
        }
    }
}

/// Which of the tiles of a panel a tile is.
#[derive(Clone, Copy)]
struct Share {
    tile: usize,
    tiles: usize,
}

impl Share {
    /// Its part of the panel after `panel`; a bundle keeps the layers in the order in which they run.
    fn after<T>(self, panel: &[T]) -> Ahead {
        Ahead::after(panel, self.tile, self.tiles)
    }
}

/// Where a tile lies in the result: its first row, and the panel of its columns.
#[derive(Clone, Copy)]
struct Place {
    row: usize,
    panel: usize,
}

/// The products of a tile, and what makes sums of floats of them.
#[derive(Clone, Copy)]
struct Sums<'a> {
    products: &'a [[i32; PANEL]],
    rows: &'a [RowScale],
    offset: i32,
    column_sums: &'a [i32; PANEL],
    scales: &'a [f32; PANEL],
    bias: &'a [f32; PANEL],
}

impl<'a> Sums<'a> {
    /// `(products - zero_point * column_sums) * (row scale * column scale) + bias` of one row.
    #[inline(always)]
    fn row(self, row: usize) -> impl Iterator<Item = f32> + 'a {
        let RowScale { scale, zero_point } = self.rows[row];
        let factor = self.offset - i32::from(zero_point);
        let columns = self.column_sums.iter().zip(self.scales).zip(self.bias);
        self.products[row].iter().zip(columns).map(move |(product, ((sum, column), &bias))| {
            let exact = product.wrapping_add(sum.wrapping_mul(factor));
            (exact as f32).mul_add(scale * column, bias)
        })
    }
}

fn store_f32(
    cpu: Cpu,
    sums: &[[f32; PANEL]],
    epilogue: Epilogue<'_>,
    place: Place,
    out: &mut Block<'_, f32>,
) {
    #[inline(always)]
    fn body(sums: &[[f32; PANEL]], epilogue: Epilogue<'_>, place: Place, out: &mut Block<'_, f32>) {
        finish(sums.len(), |row| sums[row].iter().copied(), epilogue, place, out);
    }
    per_cpu!(cpu, body(
        sums: &[[f32; PANEL]],
        epilogue: Epilogue<'_>,
        place: Place,
        out: &mut Block<'_, f32>,
    ))
}

fn store_i8(
    cpu: Cpu,
    sums: Sums<'_>,
    epilogue: Epilogue<'_>,
    place: Place,
    out: &mut Block<'_, f32>,
) {
    #[inline(always)]
    fn body(sums: Sums<'_>, epilogue: Epilogue<'_>, place: Place, out: &mut Block<'_, f32>) {
        finish(sums.rows.len(), |row| sums.row(row), epilogue, place, out);
    }
    per_cpu!(cpu, body(sums: Sums<'_>, epilogue: Epilogue<'_>, place: Place, out: &mut Block<'_, f32>))
}

/// Stores `values(row)` as the epilogue wants it.
#[inline(always)]
fn finish<V: Iterator<Item = f32>>(
    rows: usize,
    values: impl Fn(usize) -> V,
    epilogue: Epilogue<'_>,
    place: Place,
    out: &mut Block<'_, f32>,
) {
    let terms = epilogue.residual;
    match epilogue.activation {
        Activation::None => store(rows, values, terms, place, out),
        Activation::Relu => store(rows, |row| values(row).map(math::relu_of), terms, place, out),
        Activation::Gelu => store(rows, |row| values(row).map(math::gelu_of), terms, place, out),
        Activation::Tanh => store(rows, |row| values(row).map(math::tanh_of), terms, place, out),
    }
}

#[inline(always)]
fn store<V: Iterator<Item = f32>>(
    rows: usize,
    values: impl Fn(usize) -> V,
    terms: Option<Strided<'_, f32>>,
    place: Place,
    out: &mut Block<'_, f32>,
) {
    let first = place.panel * PANEL;
    let columns = first..out.width().min(first + PANEL);
    for row in 0..rows {
        let terms = terms.map(|terms| &terms.row(place.row + row)[columns.clone()]);
        let out = &mut out.row(place.row + row)[columns.clone()];
        // Only the last panel of a layer is ragged; the others have a length that the compiler knows.
        if out.len() == PANEL {
            store_row(&mut out[..PANEL], values(row), terms);
        } else {
            store_row(out, values(row), terms);
        }
    }
}

// `out` is an argument of its own: only as one does the compiler know that nothing else overlaps it.
#[inline(always)]
fn store_row(out: &mut [f32], values: impl Iterator<Item = f32>, terms: Option<&[f32]>) {
    let pairs = out.iter_mut().zip(values);
    match terms {
        None => pairs.for_each(|(out, value)| *out = value),
        Some(terms) => pairs.zip(terms).for_each(|((out, value), term)| *out = value + term),
    }
}
