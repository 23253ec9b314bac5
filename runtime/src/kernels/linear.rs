//! Linear layers: `out = activation(x . weights + bias) + residual`, in f32 and in int8.

use super::cpu::{Cpu, per_cpu};
use super::math;
use super::pack::{PANEL, PackedF32, PackedI8, quantized_width};
use super::quantize::RowScale;
use super::tiles::{self, Strided, TILE_ROWS};
use std::ops::Range;

/// The rows of the left side that are gone through panel by panel before the next ones: they should stay
/// in the second-level cache beside one panel.
const ROW_BLOCK: usize = 8 * TILE_ROWS;

/// What a linear layer applies to its sums before it stores them.
#[derive(Clone, Copy, Default, Debug)]
pub struct Epilogue<'a> {
    /// The function that each sum passes through.
    pub activation: Activation,
    /// Added last; `[m, n]`, as the result.
    pub residual: Option<&'a [f32]>,
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

/// `out [m, n] = activation(x [m, k] . weights [k, n] + bias [n]) + residual [m, n]`.
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
    out: &mut [f32],
) {
    let (k, n) = (weights.k(), weights.n());
    let m = rows_of(out, n, epilogue);
    assert_eq!(x.len(), m * k, "x is [m, k]");
    for_each_block(m, n, |rows, panel| {
        let mut sums = [*weights.bias(panel); TILE_ROWS];
        let left = Strided { values: &x[rows.start * k..], stride: k, width: k };
        let flat = sums.as_flattened_mut();
        tiles::multiply_f32(cpu, rows.len(), left, weights.panel(panel), flat, PANEL);
        store_f32(cpu, &sums[..rows.len()], &epilogue, &mut Window::new(out, n, rows.start, panel));
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
    out: &mut [f32],
) {
    let (width, n) = (quantized_width(weights.k()), weights.n());
    let m = rows_of(out, n, epilogue);
    assert_eq!(
        (x.len(), rows.len()),
        (m * width, m),
        "x is [m, quantized_width(k)] and has a scale a row"
    );
    for_each_block(m, n, |block, panel| {
        let scales = &rows[block.clone()];
        let mut sums = [[0; PANEL]; TILE_ROWS];
        let sums = &mut sums[..scales.len()];
        start_from_zero_points(cpu, scales, weights.column_sums(panel), sums);
        let left = Strided { values: &x[block.start * width..], stride: width, width };
        tiles::multiply_i8(cpu, left, weights.panel(panel), sums);
        let columns = Columns { scales: weights.scales(panel), bias: weights.bias(panel) };
        store_i8(
            cpu,
            sums,
            scales,
            columns,
            &epilogue,
            &mut Window::new(out, n, block.start, panel),
        );
    });
}

/// The number of rows of `out`, which a residual must share.
fn rows_of(out: &[f32], n: usize, epilogue: Epilogue<'_>) -> usize {
    assert!(out.len().is_multiple_of(n), "the result holds whole rows of n");
    assert!(epilogue.residual.is_none_or(|terms| terms.len() == out.len()), "a residual is [m, n]");
    out.len() / n
}

/// Calls `block(rows, panel)` for at most twelve rows at a time, panels outermost within a row block.
fn for_each_block(m: usize, n: usize, mut block: impl FnMut(Range<usize>, usize)) {
    for first in (0..m).step_by(ROW_BLOCK) {
        let end = m.min(first + ROW_BLOCK);
        for panel in 0..n.div_ceil(PANEL) {
            let mut row = first;
            for left in (1..=(end - first).div_ceil(TILE_ROWS)).rev() {
                let next = row + (end - row).div_ceil(left);
                block(row..next, panel);
                row = next;
            }
        }
    }
}

/// The columns of one panel in the rows of a result from `start` on.
struct Window<'a> {
    out: &'a mut [f32],
    n: usize,
    start: usize,
    columns: usize,
}

impl<'a> Window<'a> {
    fn new(out: &'a mut [f32], n: usize, row: usize, panel: usize) -> Window<'a> {
        Window { out, n, start: row * n + panel * PANEL, columns: PANEL.min(n - panel * PANEL) }
    }

    #[inline(always)]
    fn row(&self, row: usize) -> Range<usize> {
        let start = self.start + row * self.n;
        start..start + self.columns
    }
}

struct Columns<'a> {
    scales: &'a [f32; PANEL],
    bias: &'a [f32; PANEL],
}

fn start_from_zero_points(
    cpu: Cpu,
    rows: &[RowScale],
    column_sums: &[i32; PANEL],
    sums: &mut [[i32; PANEL]],
) {
    let offset = tiles::i8_offset(cpu);
    for (row, sums) in rows.iter().zip(sums) {
        let factor = offset - i32::from(row.zero_point);
        for (sum, &column) in sums.iter_mut().zip(column_sums) {
            *sum = column.wrapping_mul(factor);
        }
    }
}

fn store_f32(cpu: Cpu, sums: &[[f32; PANEL]], epilogue: &Epilogue<'_>, window: &mut Window<'_>) {
    #[inline(always)]
    fn body(sums: &[[f32; PANEL]], epilogue: &Epilogue<'_>, window: &mut Window<'_>) {
        finish(sums.len(), |row| sums[row], epilogue, window);
    }
    per_cpu!(cpu, body(sums: &[[f32; PANEL]], epilogue: &Epilogue<'_>, window: &mut Window<'_>))
}

fn store_i8(
    cpu: Cpu,
    sums: &[[i32; PANEL]],
    rows: &[RowScale],
    columns: Columns<'_>,
    epilogue: &Epilogue<'_>,
    window: &mut Window<'_>,
) {
    #[inline(always)]
    fn body(
        sums: &[[i32; PANEL]],
        rows: &[RowScale],
        columns: Columns<'_>,
        epilogue: &Epilogue<'_>,
        window: &mut Window<'_>,
    ) {
        let dequantized = |row: usize| {
            let (sums, scale) = (&sums[row], rows[row].scale);
            let mut values = *columns.bias;
            for ((value, &sum), column) in values.iter_mut().zip(sums).zip(columns.scales) {
                *value = (sum as f32).mul_add(scale * column, *value);
            }
            values
        };
        finish(sums.len(), dequantized, epilogue, window);
    }
    per_cpu!(cpu, body(
        sums: &[[i32; PANEL]],
        rows: &[RowScale],
        columns: Columns<'_>,
        epilogue: &Epilogue<'_>,
        window: &mut Window<'_>,
    ))
}

#[inline(always)]
fn finish(
    rows: usize,
    values: impl Fn(usize) -> [f32; PANEL],
    epilogue: &Epilogue<'_>,
    window: &mut Window<'_>,
) {
    let terms = epilogue.residual;
    match epilogue.activation {
        Activation::None => store(rows, values, |value| value, terms, window),
        Activation::Relu => {
            store(rows, values, |value| if value < 0.0 { 0.0 } else { value }, terms, window)
        }
        Activation::Gelu => store(rows, values, math::gelu_of, terms, window),
        Activation::Tanh => store(rows, values, math::tanh_of, terms, window),
    }
}

#[inline(always)]
fn store(
    rows: usize,
    values: impl Fn(usize) -> [f32; PANEL],
    activation: impl Fn(f32) -> f32,
    residual: Option<&[f32]>,
    window: &mut Window<'_>,
) {
    for row in 0..rows {
        let mut values = values(row);
        values.iter_mut().for_each(|value| *value = activation(*value));
        let range = window.row(row);
        if let Some(terms) = residual {
            add_terms(&mut values, &terms[range.clone()]);
        }
        copy_columns(&values, &mut window.out[range]);
    }
}

// Only the last panel of a layer can be ragged; the others have a length that the compiler knows.
#[inline(always)]
fn add_terms(values: &mut [f32; PANEL], terms: &[f32]) {
    match terms.as_array::<PANEL>() {
        Some(terms) => values.iter_mut().zip(terms).for_each(|(value, term)| *value += term),
        None => values.iter_mut().zip(terms).for_each(|(value, term)| *value += term),
    }
}

#[inline(always)]
fn copy_columns(values: &[f32; PANEL], out: &mut [f32]) {
    match out.as_mut_array::<PANEL>() {
        Some(out) => *out = *values,
        None => out.copy_from_slice(&values[..out.len()]),
    }
}
