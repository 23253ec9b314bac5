//! Pooling of images `[rows, columns, channels]`: the largest or the mean of the cells under a window,
//! channel by channel.

use std::ops::Range;

use super::cpu::{Cpu, per_cpu};
use super::window::Slide;

/// What becomes of the cells under a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pooling {
    /// The largest; NaN is passed over.
    Max,
    /// The sum of the cells on the grid over their number.
    Mean,
    /// The sum of the cells on the grid over the number of taps (ONNX: `count_include_pad`).
    MeanOfAll,
}

/// `out [places, channels]` of an image `x [rows, columns, channels]`: what `pooling` makes of the cells under
/// the window at each of `places`, which are added row by row.
///
/// A window over no cell gives minus infinity or, of a mean, zero.
///
/// # Panics
/// When the lengths do not belong together.
pub fn pool(
    cpu: Cpu,
    pooling: Pooling,
    x: &[f32],
    slide: &Slide,
    channels: usize,
    places: Range<usize>,
    out: &mut [f32],
) {
    assert_eq!(x.len(), slide.cells() * channels, "the image is [rows, columns, channels]");
    assert_eq!(out.len(), places.len() * channels, "a row of the result for each place");
    for (place, out) in places.zip(out.chunks_exact_mut(channels)) {
        pool_place(cpu, pooling, x, slide, place, out);
    }
}

fn pool_place(cpu: Cpu, pooling: Pooling, x: &[f32], slide: &Slide, place: usize, out: &mut [f32]) {
    #[inline(always)]
    fn body(pooling: Pooling, x: &[f32], slide: &Slide, place: usize, out: &mut [f32]) {
        let columns = slide.places()[1];
        let (down, across) = (slide.taps(0, place / columns), slide.taps(1, place % columns));
        let (channels, window) = (out.len(), slide.window());
        let cell = |tap: usize| {
            let (row, column) = (tap / across.taps.len(), tap % across.taps.len());
            let line = (down.cell + row * window.dilations[0]) * slide.grid()[1];
            line + across.cell + column * window.dilations[1]
        };
        let cells = (0..down.taps.len() * across.taps.len()).map(cell);
        if pooling == Pooling::Max {
            out.fill(f32::NEG_INFINITY);
            for cell in cells {
                larger(out, &x[cell * channels..][..channels]);
            }
            return;
        }
        out.fill(0.0);
        for cell in cells {
            for (sum, x) in out.iter_mut().zip(&x[cell * channels..][..channels]) {
                *sum += x;
            }
        }
        let count = match pooling {
            Pooling::MeanOfAll => window.taps(),
            _ => (down.taps.len() * across.taps.len()).max(1),
        };
        let count = count as f32;
        for sum in out {
            *sum /= count;
        }
    }
    per_cpu!(cpu, body(pooling: Pooling, x: &[f32], slide: &Slide, place: usize, out: &mut [f32]))
}

#[inline(always)]
fn larger(out: &mut [f32], cell: &[f32]) {
    for (most, &x) in out.iter_mut().zip(cell) {
        *most = if x > *most { x } else { *most };
    }
}
