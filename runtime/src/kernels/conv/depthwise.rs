//! Convolutions in which each channel stands alone: sums over the taps, many channels at once.

use std::ops::Range;

use super::super::cpu::{Cpu, per_cpu};
use super::super::pack::PANEL;
use super::super::quantize::RowScale;
use super::super::window::{Slide, Taps};
use super::{Finish, Target};

/// Neighbouring places that are summed together.
const PLACES: usize = 4;

/// The weights of a depthwise convolution in f32.
#[derive(Clone, Copy, Debug)]
pub struct DepthwiseF32<'a> {
    /// `[taps, channels]`, taps row by row.
    pub weights: &'a [f32],
    /// `[channels]`.
    pub bias: &'a [f32],
}

/// The weights of a depthwise convolution in int8.
#[derive(Clone, Copy, Debug)]
pub struct DepthwiseI8<'a> {
    /// `[taps, channels]` within ±127, taps row by row.
    pub weights: &'a [i8],
    /// How the image was rounded.
    pub range: RowScale,
    /// `[channels]`.
    pub scales: &'a [f32],
    /// `[channels]`.
    pub bias: &'a [f32],
}

/// `out [places, channels]` of an image `x [rows, columns, channels]`: the sums under the window at each of
/// `places`, channel by channel, plus bias; `finish` covers all channels.
///
/// Each sum starts from the bias and takes one fused multiply-add for each tap on the grid, row by row.
///
/// # Panics
/// When the lengths do not belong together.
pub fn depthwise_f32(
    cpu: Cpu,
    x: &[f32],
    slide: &Slide,
    kernel: DepthwiseF32<'_>,
    places: Range<usize>,
    finish: Finish<'_>,
    out: Target<'_>,
) {
    #[inline(always)]
    fn body(x: &[f32], spot: Spot<'_>, kernel: DepthwiseF32<'_>, out: &mut [f32], stride: usize) {
        let start = |channel| kernel.bias[channel];
        let add = |sum: f32, x: f32, weight: f32| x.mul_add(weight, sum);
        sums(x, kernel.weights, spot, start, add, |_, sum| sum, (out, stride));
    }
    let channels = check(x, kernel.weights, kernel.bias, slide);
    for_each_spot(cpu, slide, channels, places, finish, out, |spot, out, stride| {
        per_cpu!(cpu, body(
            x: &[f32],
            spot: Spot<'_>,
            kernel: DepthwiseF32<'_>,
            out: &mut [f32],
            stride: usize,
        ));
    });
}

/// As [`depthwise_f32`] of a rounded image.
///
/// Products are summed exactly; a sum becomes a float by one fused multiply-add,
/// `sum * (range's scale * channel's scale) + bias`.
///
/// # Panics
/// When the lengths do not belong together.
pub fn depthwise_i8(
    cpu: Cpu,
    x: &[u8],
    slide: &Slide,
    kernel: DepthwiseI8<'_>,
    places: Range<usize>,
    finish: Finish<'_>,
    out: Target<'_>,
) {
    #[inline(always)]
    fn body(x: &[u8], spot: Spot<'_>, kernel: DepthwiseI8<'_>, out: &mut [f32], stride: usize) {
        let range = kernel.range;
        let zero_point = i16::from(range.zero_point);
        // At most 255 * 127 = 32,385: a product fits 16 bits.
        let add = |sum: i32, x: u8, weight: i8| {
            sum.wrapping_add(i32::from((i16::from(x) - zero_point).wrapping_mul(i16::from(weight))))
        };
        let float = |channel: usize, sum: i32| {
            (sum as f32).mul_add(range.scale * kernel.scales[channel], kernel.bias[channel])
        };
        sums(x, kernel.weights, spot, |_| 0, add, float, (out, stride));
    }
    let channels = check(x, kernel.weights, kernel.bias, slide);
    assert_eq!(kernel.scales.len(), channels, "a scale a channel");
    for_each_spot(cpu, slide, channels, places, finish, out, |spot, out, stride| {
        per_cpu!(cpu, body(
            x: &[u8],
            spot: Spot<'_>,
            kernel: DepthwiseI8<'_>,
            out: &mut [f32],
            stride: usize,
        ));
    });
}

/// The channels, which all lengths must agree with.
fn check<X, W>(x: &[X], weights: &[W], bias: &[f32], slide: &Slide) -> usize {
    let channels = bias.len();
    assert_eq!(x.len(), slide.cells() * channels, "the image is [rows, columns, channels]");
    assert_eq!(weights.len(), slide.window().taps() * channels, "weights are [taps, channels]");
    channels
}

/// One place or several neighbouring ones that have the same taps on the grid, and some channels.
#[derive(Clone, Copy)]
struct Spot<'a> {
    slide: &'a Slide,
    down: &'a Taps,
    across: &'a Taps,
    places: usize,
    channels: usize,
    first: usize,
    count: usize,
}

/// Calls `sums(spot, out, stride)` for all of `places` and all channels: it is to write the sums of the spot's
/// channels into rows of `out`, `stride` apart. They are finished there, or on their way to a rounded `out`.
fn for_each_spot(
    cpu: Cpu,
    slide: &Slide,
    channels: usize,
    places: Range<usize>,
    finish: Finish<'_>,
    mut out: Target<'_>,
    sums: impl Fn(Spot<'_>, &mut [f32], usize),
) {
    assert_eq!(out.len(), places.len() * channels, "a row of the result for each place");
    let (columns, inside) = (slide.places()[1], slide.inside(1));
    let mut place = places.start;
    while place < places.end {
        let (row, column) = (place / columns, place % columns);
        let (down, across) = (&slide.taps(0, row), &slide.taps(1, column));
        let end = columns.min(column + places.end - place);
        // Several are summed together where none of them reaches over the edge.
        let several = column + PLACES <= end
            && inside.contains(&column)
            && inside.contains(&(column + PLACES - 1));
        let count = if several { PLACES } else { 1 };
        let row = place - places.start;
        let spot = Spot { slide, down, across, places: count, channels, first: 0, count: channels };
        if let Target::F32(out) = &mut out {
            let rows = &mut out[row * channels..(row + count) * channels];
            sums(spot, rows, channels);
            finish.rows(cpu, row, rows);
        } else {
            for first in (0..channels).step_by(PANEL) {
                let mut tile = [[0.0; PANEL]; PLACES];
                let tile = &mut tile[..count];
                let spot = Spot { first, count: PANEL.min(channels - first), ..spot };
                sums(spot, tile.as_flattened_mut(), PANEL);
                finish.store(cpu, tile, (first / PANEL, spot.count), row, &mut out);
            }
        }
        place += count;
    }
}

/// The sums of a spot: each starts from `start(channel)`, takes `add(sum, x, weight)` for each tap, and becomes
/// `float(channel, sum)`, in rows of `out.0` that lie `out.1` apart.
#[inline(always)]
fn sums<X: Copy, W: Copy, S: Copy>(
    x: &[X],
    weights: &[W],
    spot: Spot<'_>,
    start: impl Fn(usize) -> S + Copy,
    add: impl Fn(S, X, W) -> S + Copy,
    float: impl Fn(usize, S) -> f32 + Copy,
    out: (&mut [f32], usize),
) {
    let (out, stride) = out;
    let mut at = 0;
    while at < spot.count {
        let out = (&mut out[at..], stride);
        at += match (spot.places, spot.count - at) {
            (PLACES, 32..) => lanes::<4, 32, _, _, _>(x, weights, spot, at, start, add, float, out),
            (PLACES, 16..) => lanes::<4, 16, _, _, _>(x, weights, spot, at, start, add, float, out),
            (PLACES, 8..) => lanes::<4, 8, _, _, _>(x, weights, spot, at, start, add, float, out),
            (PLACES, _) => lanes::<4, 1, _, _, _>(x, weights, spot, at, start, add, float, out),
            (_, 32..) => lanes::<1, 32, _, _, _>(x, weights, spot, at, start, add, float, out),
            (_, 8..) => lanes::<1, 8, _, _, _>(x, weights, spot, at, start, add, float, out),
            _ => lanes::<1, 1, _, _, _>(x, weights, spot, at, start, add, float, out),
        };
    }
}

/// The sums of L channels, from the one `at` of the spot on, at P places; returns L.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one loop for two kinds of numbers")]
fn lanes<const P: usize, const L: usize, X: Copy, W: Copy, S: Copy>(
    x: &[X],
    weights: &[W],
    spot: Spot<'_>,
    at: usize,
    start: impl Fn(usize) -> S + Copy,
    add: impl Fn(S, X, W) -> S + Copy,
    float: impl Fn(usize, S) -> f32 + Copy,
    (out, stride): (&mut [f32], usize),
) -> usize {
    let (window, channels, first) = (spot.slide.window(), spot.channels, spot.first + at);
    let (width, step) = (spot.slide.grid()[1], window.strides[1] * channels);
    let mut first_sums = [start(first); L];
    for (lane, sum) in first_sums.iter_mut().enumerate() {
        *sum = start(first + lane);
    }
    // Each in a variable of its own, so that the compiler keeps them in registers.
    let (mut a, mut b, mut c, mut d) = (first_sums, first_sums, first_sums, first_sums);
    for (index, down) in spot.down.taps.clone().enumerate() {
        let line = (spot.down.cell + index * window.dilations[0]) * width;
        for (index, across) in spot.across.taps.clone().enumerate() {
            let tap = (down * window.kernel[1] + across) * channels + first;
            let weights: &[W; L] = weights[tap..].first_chunk().expect("a weight a channel");
            let cell = line + spot.across.cell + index * window.dilations[1];
            let cells = &x[cell * channels + first..];
            add_taps(&mut a, cells, weights, add);
            if P == PLACES {
                add_taps(&mut b, &cells[step..], weights, add);
                add_taps(&mut c, &cells[2 * step..], weights, add);
                add_taps(&mut d, &cells[3 * step..], weights, add);
            }
        }
    }
    for (place, sums) in [a, b, c, d].iter().take(P).enumerate() {
        let out: &mut [f32; L] = out[place * stride..].first_chunk_mut().expect("a row a place");
        for lane in 0..L {
            out[lane] = float(first + lane, sums[lane]);
        }
    }
    L
}

#[inline(always)]
fn add_taps<const L: usize, X: Copy, W: Copy, S: Copy>(
    sums: &mut [S; L],
    cells: &[X],
    weights: &[W; L],
    add: impl Fn(S, X, W) -> S,
) {
    let cells: &[X; L] = cells.first_chunk().expect("the cell is on the grid");
    for lane in 0..L {
        sums[lane] = add(sums[lane], cells[lane], weights[lane]);
    }
}
