//! Linear layers: `out = activation(x . weights + bias) + residual`, in f32 and in int8.

use super::block::{Block, Strided};
use super::cpu::{Cpu, per_cpu};
use super::math;
use super::pack::{PANEL, PackedF32, PackedI8, quantized_width};
use super::quantize::RowScale;
use super::tiles::{self, Share, TILE_ROWS, Tile};
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
    /// As [`gelu_polynomial`](super::gelu_polynomial).
    GeluPolynomial,
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
    for_each_tile(m, n, |rows, panel, share| {
        let sums = &mut sums.0[..rows.len()];
        let left = Strided { values: &x[rows.start * k..], stride: k, width: k };
        let (panels, bias) = (weights.panel(panel), weights.bias(panel));
        let (target, ahead) = ((sums.as_flattened_mut(), PANEL), share.after(panels));
        tiles::multiply_f32(cpu, rows.len(), left, panels, bias, target, ahead);
        finish_f32(cpu, sums, epilogue, Place { row: rows.start, panel }, &mut out);
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
    let mut products = Tile([[0; PANEL]; TILE_ROWS]);
    let mut values = Tile([[0.0; PANEL]; TILE_ROWS]);
    for_each_tile(m, n, |tile, panel, share| {
        let left = Strided { values: &x[tile.start * width..], stride: width, width };
        let (products, panels) = (&mut products.0[..tile.len()], weights.panel(panel));
        tiles::multiply_i8(cpu, left, panels, products, share.after(panels));
        let sums = Sums {
            products,
            rows: &rows[tile.clone()],
            offset: tiles::i8_offset(cpu),
            column_sums: weights.column_sums(panel),
            scales: weights.scales(panel),
            bias: weights.bias(panel),
        };
        let values = &mut values.0[..tile.len()];
        finish_i8(cpu, sums, values, epilogue, Place { row: tile.start, panel }, &mut out);
    });
}

/// The number of rows of `out`, which a residual must share.
fn rows_of(out: &Block<'_, f32>, n: usize, epilogue: Epilogue<'_>) -> usize {
    assert_eq!(out.width(), n, "the result is [m, n]");
    let fits = |terms: Strided<'_, f32>| terms.width == n && terms.holds(out.rows());
    assert!(epilogue.residual.is_none_or(fits), "a residual is [m, n]");
    out.rows()
}

/// Calls `tile(rows, panel, share)` for at most twelve of `m` rows at a time, panels outermost within a row block.
fn for_each_tile(m: usize, n: usize, mut tile: impl FnMut(Range<usize>, usize, Share)) {
    for first in (0..m).step_by(ROW_BLOCK) {
        tiles::for_each_of_panels(first..m.min(first + ROW_BLOCK), n, &mut tile);
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

impl Sums<'_> {
    /// `(products - zero_point * column_sums) * (row scale * column scale) + bias`.
    #[inline(always)]
    fn write_to(self, values: &mut [[f32; PANEL]]) {
        // Copies, which no row that is written could change: they stay in registers.
        let (column_sums, scales, bias) = (*self.column_sums, *self.scales, *self.bias);
        for ((values, products), row) in values.iter_mut().zip(self.products).zip(self.rows) {
            let factor = self.offset - i32::from(row.zero_point);
            for column in 0..PANEL {
                let zeros = column_sums[column].wrapping_mul(factor);
                let exact = products[column].wrapping_add(zeros) as f32;
                values[column] = exact.mul_add(row.scale * scales[column], bias[column]);
            }
        }
    }
}

fn finish_f32(
    cpu: Cpu,
    sums: &mut [[f32; PANEL]],
    epilogue: Epilogue<'_>,
    place: Place,
    out: &mut Block<'_, f32>,
) {
    per_cpu!(cpu, finish(
        sums: &mut [[f32; PANEL]],
        epilogue: Epilogue<'_>,
        place: Place,
        out: &mut Block<'_, f32>,
    ))
}

/// By way of `values`, which is as large as the tile.
fn finish_i8(
    cpu: Cpu,
    sums: Sums<'_>,
    values: &mut [[f32; PANEL]],
    epilogue: Epilogue<'_>,
    place: Place,
    out: &mut Block<'_, f32>,
) {
    #[inline(always)]
    fn body(
        sums: Sums<'_>,
        values: &mut [[f32; PANEL]],
        epilogue: Epilogue<'_>,
        place: Place,
        out: &mut Block<'_, f32>,
    ) {
        sums.write_to(values);
        finish(values, epilogue, place, out);
    }
    per_cpu!(cpu, body(
        sums: Sums<'_>,
        values: &mut [[f32; PANEL]],
        epilogue: Epilogue<'_>,
        place: Place,
        out: &mut Block<'_, f32>,
    ))
}

/// Stores `values` as the epilogue wants them.
#[inline(always)]
fn finish(
    values: &mut [[f32; PANEL]],
    epilogue: Epilogue<'_>,
    place: Place,
    out: &mut Block<'_, f32>,
) {
    match epilogue.activation {
        Activation::None => {}
        Activation::Relu => each(values, math::relu_of),
        Activation::Gelu => each(values, math::gelu_of),
        Activation::GeluPolynomial => each(values, math::gelu_polynomial_of),
        Activation::Tanh => each(values, math::tanh_of),
    }
    let first = place.panel * PANEL;
    // Only the last panel of a layer is ragged; the others have a width that the compiler knows.
    if first + PANEL <= out.width() {
        store(values, epilogue.residual, place.row, first..first + PANEL, out);
    } else {
        store(values, epilogue.residual, place.row, first..out.width(), out);
    }
}

/// A whole tile at a time: the constants of a function are loaded once, and no value waits for the one before.
#[inline(always)]
fn each(values: &mut [[f32; PANEL]], function: impl Fn(f32) -> f32) {
    for value in values.as_flattened_mut() {
        *value = function(*value);
    }
}

#[inline(always)]
fn store(
    values: &[[f32; PANEL]],
    residual: Option<Strided<'_, f32>>,
    first: usize,
    columns: Range<usize>,
    out: &mut Block<'_, f32>,
) {
    for (row, values) in (first..).zip(values) {
        let (out, values) = (&mut out.row(row)[columns.clone()], &values[..columns.len()]);
        match residual {
            None => out.copy_from_slice(values),
            Some(terms) => add(out, values, &terms.row(row)[columns.clone()]),
        }
    }
}

// `out` is an argument: only as one does the compiler know that nothing else overlaps it.
#[inline(always)]
fn add(out: &mut [f32], values: &[f32], terms: &[f32]) {
    for ((out, value), term) in out.iter_mut().zip(values).zip(terms) {
        *out = value + term;
    }
}
