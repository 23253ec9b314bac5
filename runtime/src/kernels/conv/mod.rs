//! Convolutions of images `[rows, columns, channels]`: each place of a window is a row of a product, whose
//! right side is the weights in the panels of a linear layer.

use super::block::Strided;
use super::cpu::{Cpu, per_cpu};
use super::pack::{PANEL, PackedF32, PackedI8, quantized_width};
use super::quantize::RowScale;
use super::tiles::{self, Part, Share, TILE_ROWS, Tile};
pub use depthwise::{DepthwiseF32, DepthwiseI8, depthwise_f32, depthwise_i8};
use finish::Sums;
pub use finish::{Finish, Residual, Target};
pub use gather::{View, patch_len};
use std::ops::Range;

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod depthwise;
mod finish;
mod gather;
mod runs;
mod sums;
#[cfg(test)]
mod tests;

/// `out [places, finish.width]`, columns from `finish.first` on: the sums under the window of `view`, in the
/// panels' order of rows, columns and channels, plus bias.
///
/// Each sum starts from the bias and takes one fused multiply-add a term, in order; a term under no cell is
/// zero. `scratch` is [`patch_len`] of the view's width long.
///
/// # Panics
/// When the lengths do not belong together.
pub fn conv_f32(
    cpu: Cpu,
    view: &View<'_, f32>,
    weights: &PackedF32<'_>,
    finish: Finish<'_>,
    scratch: &mut [f32],
    mut out: Target<'_>,
) {
    let width = view.width();
    assert_eq!(weights.k(), width, "a weight for each element under the window");
    assert_eq!(out.len(), view.places.len() * finish.width, "a row of the result for each place");
    let mut sums = Tile([[0.0; PANEL]; TILE_ROWS]);
    view.blocks(width, 0.0, scratch, |first, rows, left| {
        for_each_tile(rows, weights.n(), |rows, panel, columns, share| {
            let sums = sums.0.as_flattened_mut();
            let left = Strided { values: &left.values[rows.start * left.stride..], ..left };
            let (panels, bias) = (weights.panel(panel), weights.bias(panel));
            let part = Part { columns, ahead: share.after(panels) };
            let stride = tiles::least_stride(columns);
            tiles::multiply_f32(cpu, rows.len(), left, panels, bias, (&mut *sums, stride), part);
            let sums = Sums::of_rows(sums, stride, rows.len(), columns);
            finish.store(cpu, sums, (panel * PANEL, columns), first + rows.start, &mut out);
        });
    });
}

/// As [`conv_f32`] of an image that was rounded in `range`, in which a term under no cell is the zero point.
///
/// Products are summed exactly; a sum becomes a float by one fused multiply-add,
/// `sum * (range's scale * column scale) + bias`. `scratch` is [`patch_len`] of the view's width in whole
/// quads long.
///
/// # Panics
/// When the lengths do not belong together.
pub fn conv_i8(
    cpu: Cpu,
    view: &View<'_, u8>,
    range: RowScale,
    weights: &PackedI8<'_>,
    finish: Finish<'_>,
    scratch: &mut [u8],
    mut out: Target<'_>,
) {
    assert_eq!(weights.k(), view.width(), "a weight for each element under the window");
    assert_eq!(out.len(), view.places.len() * finish.width, "a row of the result for each place");
    let factor = tiles::i8_offset(cpu) - i32::from(range.zero_point);
    let mut products = Tile([[0; PANEL]; TILE_ROWS]);
    let mut sums = Tile([[0.0; PANEL]; TILE_ROWS]);
    view.blocks(quantized_width(view.width()), range.zero_point, scratch, |first, rows, left| {
        for_each_tile(rows, weights.n(), |rows, panel, columns, share| {
            let products = &mut products.0[..rows.len()];
            let left = Strided { values: &left.values[rows.start * left.stride..], ..left };
            let panels = weights.panel(panel);
            let part = Part { columns, ahead: share.after(panels) };
            tiles::multiply_i8(cpu, left, panels, products, part);
            let column = Column {
                sums: weights.column_sums(panel),
                factor,
                scales: weights.scales(panel),
                scale: range.scale,
                bias: weights.bias(panel),
            };
            let mut sums = Sums::new(sums.0.as_flattened_mut(), rows.len(), columns);
            floats(cpu, products, column, &mut sums);
            finish.store(cpu, sums, (panel * PANEL, columns), first + rows.start, &mut out);
        });
    });
}

/// What makes sums of floats of the products of a panel's columns.
#[derive(Clone, Copy)]
struct Column<'a> {
    sums: &'a [i32; PANEL],
    factor: i32,
    scales: &'a [f32; PANEL],
    scale: f32,
    bias: &'a [f32; PANEL],
}

fn floats(cpu: Cpu, products: &[[i32; PANEL]], column: Column<'_>, sums: &mut Sums<'_>) {
    let (sums, width) = sums.values();
    #[cfg(target_arch = "aarch64")]
    if cpu != Cpu::scalar() {
        return aarch64::floats(products, column, sums, width);
    }
    #[inline(always)]
    fn body(products: &[[i32; PANEL]], column: Column<'_>, sums: &mut [f32], width: usize) {
        for (sums, products) in sums.chunks_exact_mut(width).zip(products) {
            match sums.first_chunk_mut::<PANEL>() {
                // Of a length that the compiler knows.
                Some(sums) => floats_of_row(products, column, sums),
                None => floats_of_row(products, column, sums),
            }
        }
    }
    per_cpu!(cpu, body(
        products: &[[i32; PANEL]],
        column: Column<'_>,
        sums: &mut [f32],
        width: usize,
    ))
}

#[inline(always)]
fn floats_of_row(products: &[i32; PANEL], column: Column<'_>, sums: &mut [f32]) {
    for (at, sum) in sums.iter_mut().enumerate().take(PANEL) {
        let less = column.sums[at].wrapping_mul(column.factor);
        let exact = products[at].wrapping_add(less) as f32;
        *sum = exact.mul_add(column.scale * column.scales[at], column.bias[at]);
    }
}

/// Calls `tile(rows, panel, columns, share)` for at most twelve rows at a time, panels outermost.
#[inline(always)]
fn for_each_tile(rows: usize, n: usize, mut tile: impl FnMut(Range<usize>, usize, usize, Share)) {
    tiles::for_each_of_panels(0..rows, n, |rows, panel, share| {
        tile(rows, panel, PANEL.min(n - panel * PANEL), share);
    });
}
