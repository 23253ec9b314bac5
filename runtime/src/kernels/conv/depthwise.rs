//! Convolutions in which each channel stands alone: sums over the taps, many channels at once.

use std::ops::Range;

use super::super::cpu::{Cpu, per_cpu};
use super::super::quantize::RowScale;
use super::super::window::{Slide, Window};
#[cfg(target_arch = "aarch64")]
use super::aarch64;
use super::finish::{Sums, WIDEST};
use super::sums::{PLACES, Sides, Spot, Terms, each, of_channels, sums};
use super::{Finish, Target};

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
    let channels = check(x, kernel.weights, kernel.bias, slide);
    let sides = Sides { x, weights: kernel.weights };
    for_each_spot(cpu, slide, channels, places, finish, out, |spot, out, stride| {
        sums_of_floats(cpu, sides, spot, Floats { bias: kernel.bias }, out, stride);
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
    let channels = check(x, kernel.weights, kernel.bias, slide);
    let DepthwiseI8 { weights, range, scales, bias } = kernel;
    assert_eq!(scales.len(), channels, "a scale a channel");
    let sides = Sides { x, weights };
    let ends = Ends { range, scales, bias };
    for_each_spot(
        cpu,
        slide,
        channels,
        places,
        finish,
        out,
        |spot, out, stride| match is_for_floats(slide.window()) {
            true => sums_in_floats(cpu, sides, spot, InFloats(ends), out, stride),
            false => sums_of_integers(cpu, sides, spot, Integers(ends), out, stride),
        },
    );
}

/// The channels, which all lengths must agree with.
fn check<X, W>(x: &[X], weights: &[W], bias: &[f32], slide: &Slide) -> usize {
    let channels = bias.len();
    assert_eq!(x.len(), slide.cells() * channels, "the image is [rows, columns, channels]");
    assert_eq!(weights.len(), slide.window().taps() * channels, "weights are [taps, channels]");
    channels
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
    let mut tile = [0.0; PLACES * WIDEST];
    let (columns, inside) = (slide.places()[1], slide.inside(1));
    let mut place = places.start;
    while place < places.end {
        // The part of a row that is asked for.
        let (line, first) = (place / columns, place % columns);
        let end = columns.min(first + places.end - place);
        let down = &slide.taps(0, line);
        let mut next = first;
        while next < end {
            // The last places are summed together with some before them, which come out the same again.
            let column = next.min(end.saturating_sub(PLACES).max(first));
            let count = PLACES.min(end - column);
            let whole = count == PLACES && inside.start <= column && column + count <= inside.end;
            let spot = Spot {
                slide,
                down,
                whole,
                column,
                places: count,
                channels,
                first: 0,
                count: channels,
            };
            let row = place + column - first - places.start;
            spot_rows(cpu, spot, row, finish, (&mut out, &mut tile), &sums);
            next = column + count;
        }
        place += end - first;
    }
}

/// The rows of `out` from `row` on that are the places of `spot`; by way of `tile` where they are rounded.
#[inline(always)]
fn spot_rows(
    cpu: Cpu,
    spot: Spot<'_>,
    row: usize,
    finish: Finish<'_>,
    (out, tile): (&mut Target<'_>, &mut [f32]),
    sums: impl Fn(Spot<'_>, &mut [f32], usize),
) {
    let (channels, count) = (spot.channels, spot.places);
    if let Target::F32(out) = out {
        let rows = &mut out[row * channels..(row + count) * channels];
        sums(spot, rows, channels);
        finish.rows(cpu, row, rows);
        return;
    }
    let widest = finish.widest();
    for first in (0..channels).step_by(widest) {
        let columns = widest.min(channels - first);
        sums(Spot { first, count: columns, ..spot }, tile, Sums::width_of(columns));
        let tile = Sums::new(tile, count, columns);
        finish.store(cpu, tile, (first, columns), row, out);
    }
}

/// A function that sums a spot in such terms, compiled for each class of processors.
macro_rules! spot_sums {
    ($name:ident, $terms:ident, $x:ty, $weight:ty) => {
        fn $name(
            cpu: Cpu,
            sides: Sides<'_, $x, $weight>,
            spot: Spot<'_>,
            terms: $terms<'_>,
            out: &mut [f32],
            stride: usize,
        ) {
            #[inline(always)]
            fn body<const LANES: usize>(
                sides: Sides<'_, $x, $weight>,
                spot: Spot<'_>,
                terms: $terms<'_>,
                out: &mut [f32],
                stride: usize,
            ) {
                sums::<LANES, _>(sides, spot, terms, out, stride);
            }
            per_cpu!(cpu, body::<LANES>(
                sides: Sides<'_, $x, $weight>,
                spot: Spot<'_>,
                terms: $terms<'_>,
                out: &mut [f32],
                stride: usize,
            ));
        }
    };
}

spot_sums!(sums_of_floats, Floats, f32, f32);
spot_sums!(sums_of_integers, Integers, u8, i8);
spot_sums!(sums_in_floats, InFloats, u8, i8);

/// f32, summed from the bias on.
#[derive(Clone, Copy)]
struct Floats<'a> {
    bias: &'a [f32],
}

impl Terms for Floats<'_> {
    type X = f32;
    type Cell = f32;
    type Weight = f32;
    type Tap = f32;
    type Sum = f32;

    #[inline(always)]
    fn start<const L: usize>(self, first: usize) -> [f32; L] {
        *of_channels(self.bias, first)
    }

    #[inline(always)]
    fn cells<const L: usize>(self, x: &[f32; L]) -> [f32; L] {
        *x
    }

    #[inline(always)]
    fn taps<const L: usize>(self, weights: &[f32; L]) -> [f32; L] {
        *weights
    }

    #[inline(always)]
    fn add<const L: usize>(self, sums: &mut [f32; L], cells: &[f32; L], taps: &[f32; L]) {
        add_floats(sums, cells, taps);
    }

    #[inline(always)]
    fn ends<const L: usize>(self, _first: usize) -> [[f32; L]; 2] {
        [[0.0; L]; 2]
    }

    #[inline(always)]
    fn end<const L: usize>(self, _ends: &[[f32; L]; 2], sums: &[f32; L]) -> [f32; L] {
        *sums
    }
}

/// What exact sums of products become.
#[derive(Clone, Copy)]
struct Ends<'a> {
    range: RowScale,
    scales: &'a [f32],
    bias: &'a [f32],
}

impl Ends<'_> {
    /// The scales of channels and their biases.
    #[inline(always)]
    fn of<const L: usize>(self, first: usize) -> [[f32; L]; 2] {
        let scales = of_channels::<L>(self.scales, first);
        [each(scales, |scale| self.range.scale * scale), *of_channels::<L>(self.bias, first)]
    }
}

#[inline(always)]
fn ended<const L: usize>([scales, bias]: &[[f32; L]; 2], sums: &[f32; L]) -> [f32; L] {
    let mut floats = *sums;
    for lane in 0..L {
        floats[lane] = sums[lane].mul_add(scales[lane], bias[lane]);
    }
    floats
}

/// Rounded numbers, summed in 32 bits.
#[derive(Clone, Copy)]
struct Integers<'a>(Ends<'a>);

impl Terms for Integers<'_> {
    type X = u8;
    type Cell = i16;
    type Weight = i8;
    type Tap = i16;
    type Sum = i32;

    #[inline(always)]
    fn start<const L: usize>(self, _first: usize) -> [i32; L] {
        [0; L]
    }

    #[inline(always)]
    fn cells<const L: usize>(self, x: &[u8; L]) -> [i16; L] {
        #[cfg(target_arch = "aarch64")]
        if let Some(cells) = aarch64::cells(x, self.0.range.zero_point) {
            return cells;
        }
        each(x, |x| i16::from(x) - i16::from(self.0.range.zero_point))
    }

    #[inline(always)]
    fn taps<const L: usize>(self, weights: &[i8; L]) -> [i16; L] {
        #[cfg(target_arch = "aarch64")]
        if let Some(taps) = aarch64::taps(weights) {
            return taps;
        }
        each(weights, i16::from)
    }

    #[inline(always)]
    fn add<const L: usize>(self, sums: &mut [i32; L], cells: &[i16; L], taps: &[i16; L]) {
        #[cfg(target_arch = "aarch64")]
        if aarch64::add(sums, cells, taps) {
            return;
        }
        for lane in 0..L {
            sums[lane] = sums[lane].wrapping_add(i32::from(cells[lane]) * i32::from(taps[lane]));
        }
    }

    #[inline(always)]
    fn ends<const L: usize>(self, first: usize) -> [[f32; L]; 2] {
        self.0.of(first)
    }

    #[inline(always)]
    fn end<const L: usize>(self, ends: &[[f32; L]; 2], sums: &[i32; L]) -> [f32; L] {
        ended(ends, &each(sums, |sum| sum as f32))
    }
}

/// The same in f32, in which a sum of few products is exact too: x86-64 multiplies and adds in one instruction there,
/// where it takes four for as many products of 16 bits.
#[derive(Clone, Copy)]
struct InFloats<'a>(Ends<'a>);

/// Whether to take [`InFloats`]: where it is exact, and takes fewer instructions. The compiler finds the products of 16 bits
/// of 64-bit ARM, and not those of 32-bit ARM, which widens each cell once for all places under these windows, but for each tap
/// under others.
fn is_for_floats(window: &Window) -> bool {
    let once = matches!(window.kernel[1], 3 | 5);
    let faster = cfg!(target_arch = "x86_64") || cfg!(target_arch = "arm") && once;
    faster && window.taps() <= MOST_TAPS_IN_FLOATS
}

/// Taps that [`InFloats`] sums exactly: products of at most 255 * 127, below 2^24 together.
const MOST_TAPS_IN_FLOATS: usize = (1 << 24) / (255 * 127);

impl Terms for InFloats<'_> {
    type X = u8;
    type Cell = f32;
    type Weight = i8;
    type Tap = f32;
    type Sum = f32;

    #[inline(always)]
    fn start<const L: usize>(self, _first: usize) -> [f32; L] {
        [0.0; L]
    }

    #[inline(always)]
    fn cells<const L: usize>(self, x: &[u8; L]) -> [f32; L] {
        each(x, |x| (i32::from(x) - i32::from(self.0.range.zero_point)) as f32)
    }

    #[inline(always)]
    fn taps<const L: usize>(self, weights: &[i8; L]) -> [f32; L] {
        each(weights, f32::from)
    }

    #[inline(always)]
    fn add<const L: usize>(self, sums: &mut [f32; L], cells: &[f32; L], taps: &[f32; L]) {
        add_floats(sums, cells, taps);
    }

    #[inline(always)]
    fn ends<const L: usize>(self, first: usize) -> [[f32; L]; 2] {
        self.0.of(first)
    }

    #[inline(always)]
    fn end<const L: usize>(self, ends: &[[f32; L]; 2], sums: &[f32; L]) -> [f32; L] {
        ended(ends, sums)
    }
}

#[inline(always)]
fn add_floats<const L: usize>(sums: &mut [f32; L], cells: &[f32; L], taps: &[f32; L]) {
    #[cfg(target_arch = "aarch64")]
    if aarch64::add_floats(sums, cells, taps) {
        return;
    }
    for lane in 0..L {
        sums[lane] = cells[lane].mul_add(taps[lane], sums[lane]);
    }
}
