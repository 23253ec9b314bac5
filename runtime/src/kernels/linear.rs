//! Linear layers: `out = activation(x . weights + bias) + residual`, in f32 and in int8.

use super::cpu::{Cpu, per_cpu};
use super::math;
use super::pack::{PANEL, PackedF32, PackedI8, quantized_width};
use super::quantize::RowScale;
use super::tiles::{self, Strided, TILE_ROWS, Tile};
use std::ops::Range;

/// The most rows of the left side that are gone through panel by panel before the next ones. A block reads
/// all panels once, and for each panel itself once: panels come from further away, so blocks are large.
const ROW_BLOCK: usize = 24 * TILE_ROWS;

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
    let mut sums = Tile([[0.0; PANEL]; TILE_ROWS]);
    for_each_block(m, n, |rows, panel, next| {
        let ahead = next.of(weights.panel(next.panel));
        let sums = &mut sums.0[..rows.len()];
        sums.fill(*weights.bias(panel));
        let left = Strided { values: &x[rows.start * k..], stride: k, width: k };
        let panels = weights.panel(panel);
        tiles::multiply_f32(cpu, rows.len(), left, panels, sums.as_flattened_mut(), PANEL, ahead);
        let window = Window::new(n, rows.start, panel);
        store_f32(cpu, sums, window.epilogue(epilogue), window, &mut out[window.start..]);
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
    let mut sums = Tile([[0; PANEL]; TILE_ROWS]);
    for_each_block(m, n, |block, panel, _| {
        let left = Strided { values: &x[block.start * width..], stride: width, width };
        tiles::multiply_i8(cpu, left, weights.panel(panel), &mut sums.0[..block.len()]);
        let sums = Sums {
            products: &sums.0[..block.len()],
            rows: &rows[block.clone()],
            offset: tiles::i8_offset(cpu),
            column_sums: weights.column_sums(panel),
            scales: weights.scales(panel),
            bias: weights.bias(panel),
        };
        let window = Window::new(n, block.start, panel);
        store_i8(cpu, sums, window.epilogue(epilogue), window, &mut out[window.start..]);
    });
}

/// The number of rows of `out`, which a residual must share.
fn rows_of(out: &[f32], n: usize, epilogue: Epilogue<'_>) -> usize {
    assert!(out.len().is_multiple_of(n), "the result holds whole rows of n");
    assert!(epilogue.residual.is_none_or(|terms| terms.len() == out.len()), "a residual is [m, n]");
    out.len() / n
}

/// Calls `block(rows, panel, next)` for at most twelve rows at a time, panels outermost within a row block;
/// the `next` of all tiles of a panel are together the panel that comes after it.
fn for_each_block(m: usize, n: usize, mut block: impl FnMut(Range<usize>, usize, Share)) {
    let panels = n.div_ceil(PANEL);
    for first in (0..m).step_by(ROW_BLOCK) {
        let end = m.min(first + ROW_BLOCK);
        let tiles = (end - first).div_ceil(TILE_ROWS);
        for panel in 0..panels {
            let mut row = first;
            for tile in 0..tiles {
                let next = row + (end - row).div_ceil(tiles - tile);
                block(row..next, panel, Share { panel: (panel + 1) % panels, tile, tiles });
                row = next;
            }
        }
    }
}

/// The part of a panel that one of `tiles` tiles of the panel before brings nearer while it computes: the
/// first tile of a panel would otherwise wait for all of it.
#[derive(Clone, Copy)]
struct Share {
    panel: usize,
    tile: usize,
    tiles: usize,
}

impl Share {
    fn of<T>(self, panel: &[T]) -> &[T] {
        let cut = |tile: usize| panel.len() * tile / self.tiles;
        &panel[cut(self.tile)..cut(self.tile + 1)]
    }
}

/// The columns of one panel, in rows of `n`, from the element `start` on.
#[derive(Clone, Copy)]
struct Window {
    start: usize,
    n: usize,
    columns: usize,
}

impl Window {
    fn new(n: usize, row: usize, panel: usize) -> Window {
        Window { start: row * n + panel * PANEL, n, columns: PANEL.min(n - panel * PANEL) }
    }

    /// The epilogue of a layer, for what starts with this window.
    fn epilogue(self, whole: Epilogue<'_>) -> Epilogue<'_> {
        Epilogue { residual: whole.residual.map(|terms| &terms[self.start..]), ..whole }
    }
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

// `out` is an argument of its own: only as one does the compiler know that nothing else overlaps it.
fn store_f32(
    cpu: Cpu,
    sums: &[[f32; PANEL]],
    epilogue: Epilogue<'_>,
    window: Window,
    out: &mut [f32],
) {
    #[inline(always)]
    fn body(sums: &[[f32; PANEL]], epilogue: Epilogue<'_>, window: Window, out: &mut [f32]) {
        finish(sums.len(), |row| sums[row].iter().copied(), epilogue, window, out);
    }
    per_cpu!(cpu, body(
        sums: &[[f32; PANEL]],
        epilogue: Epilogue<'_>,
        window: Window,
        out: &mut [f32],
    ))
}

fn store_i8(cpu: Cpu, sums: Sums<'_>, epilogue: Epilogue<'_>, window: Window, out: &mut [f32]) {
    #[inline(always)]
    fn body(sums: Sums<'_>, epilogue: Epilogue<'_>, window: Window, out: &mut [f32]) {
        finish(sums.rows.len(), |row| sums.row(row), epilogue, window, out);
    }
    per_cpu!(cpu, body(sums: Sums<'_>, epilogue: Epilogue<'_>, window: Window, out: &mut [f32]))
}

/// Stores `values(row)` as the epilogue wants it.
#[inline(always)]
fn finish<V: Iterator<Item = f32>>(
    rows: usize,
    values: impl Fn(usize) -> V,
    epilogue: Epilogue<'_>,
    window: Window,
    out: &mut [f32],
) {
    let terms = epilogue.residual;
    match epilogue.activation {
        Activation::None => store(rows, values, terms, window, out),
        Activation::Relu => store(rows, |row| values(row).map(math::relu_of), terms, window, out),
        Activation::Gelu => store(rows, |row| values(row).map(math::gelu_of), terms, window, out),
        Activation::Tanh => store(rows, |row| values(row).map(math::tanh_of), terms, window, out),
    }
}

#[inline(always)]
fn store<V: Iterator<Item = f32>>(
    rows: usize,
    values: impl Fn(usize) -> V,
    terms: Option<&[f32]>,
    window: Window,
    out: &mut [f32],
) {
    for row in 0..rows {
        let range = row * window.n..row * window.n + window.columns;
        let terms = terms.map(|terms| &terms[range.clone()]);
        let out = &mut out[range];
        // Only the last panel of a layer is ragged; the others have a length that the compiler knows.
        if out.len() == PANEL {
            store_row(&mut out[..PANEL], values(row), terms);
        } else {
            store_row(out, values(row), terms);
        }
    }
}

#[inline(always)]
fn store_row(out: &mut [f32], values: impl Iterator<Item = f32>, terms: Option<&[f32]>) {
    let pairs = out.iter_mut().zip(values);
    match terms {
        None => pairs.for_each(|(out, value)| *out = value),
        Some(terms) => pairs.zip(terms).for_each(|((out, value), term)| *out = value + term),
    }
}
