//! Sums under a window that slides over one channel at a time, many channels at once. Neighbouring places are summed
//! together: each cell is read, and each weight too, once for all of them that it meets.

use super::super::window::{Slide, Taps, Window};
use super::runs::{Runs, RunsMut};

/// Neighbouring places of a row that are summed together.
pub(super) const PLACES: usize = 8;

/// The numbers that are summed, and how. Each sum takes one step a tap on the grid, row by row.
pub(super) trait Terms: Copy {
    /// An element of the image, as it lies and as it is multiplied.
    type X: Copy;
    type Cell: Copy + Default;
    /// A weight, as it lies and as it is multiplied.
    type Weight: Copy;
    type Tap: Copy + Default;
    type Sum: Copy;

    /// What the sums of `L` channels from `first` on start from.
    fn start<const L: usize>(self, first: usize) -> [Self::Sum; L];
    /// The two numbers of each of these channels that [`Terms::end`] asks for.
    fn ends<const L: usize>(self, first: usize) -> [[f32; L]; 2];
    /// What sums become.
    fn end<const L: usize>(self, ends: &[[f32; L]; 2], sums: &[Self::Sum; L]) -> [f32; L];
    fn cells<const L: usize>(self, x: &[Self::X; L]) -> [Self::Cell; L];
    fn taps<const L: usize>(self, weights: &[Self::Weight; L]) -> [Self::Tap; L];
    /// `sums + cells * taps`, each by itself.
    fn add<const L: usize>(
        self,
        sums: &mut [Self::Sum; L],
        cells: &[Self::Cell; L],
        taps: &[Self::Tap; L],
    );
}

/// Neighbouring places of a row, and some channels.
#[derive(Clone, Copy)]
pub(super) struct Spot<'a> {
    pub(super) slide: &'a Slide,
    /// The taps on the grid in their row.
    pub(super) down: &'a Taps,
    /// Whether there are [`PLACES`], and none of them reaches over the edge of its row.
    pub(super) whole: bool,
    /// The column of the first of the places, and how many they are, [`PLACES`] at most.
    pub(super) column: usize,
    pub(super) places: usize,
    /// Channels of the image, and those that are summed.
    pub(super) channels: usize,
    pub(super) first: usize,
    pub(super) count: usize,
}

/// What is multiplied.
#[derive(Clone, Copy)]
pub(super) struct Sides<'a, X, W> {
    /// The image, `[rows, columns, channels]`.
    pub(super) x: &'a [X],
    /// `[taps, channels]`.
    pub(super) weights: &'a [W],
}

/// The sums of the spot's channels into rows of `out`, which lie `stride` apart; of `L` channels at a time, as many as
/// there are lanes in a vector.
#[inline(always)]
pub(super) fn sums<const L: usize, T: Terms>(
    sides: Sides<'_, T::X, T::Weight>,
    spot: Spot<'_>,
    terms: T,
    out: &mut [f32],
    stride: usize,
) {
    let (count, mut at) = (spot.count, 0);
    while at < count {
        // The last lanes begin further back: what they repeat comes out the same.
        at += if count >= L {
            lanes::<L, T>(sides, spot, at.min(count - L), terms, out, stride)
        } else if count >= 8 {
            lanes::<8, T>(sides, spot, at.min(count - 8), terms, out, stride)
        } else {
            lanes::<1, T>(sides, spot, at, terms, out, stride)
        };
    }
}

/// The sums of `L` channels, from the one `at` of the spot on; returns `L`.
#[inline(always)]
fn lanes<const L: usize, T: Terms>(
    sides: Sides<'_, T::X, T::Weight>,
    spot: Spot<'_>,
    at: usize,
    terms: T,
    out: &mut [f32],
    stride: usize,
) -> usize {
    let Window { kernel, strides, dilations, .. } = *spot.slide.window();
    let first = spot.first + at;
    let out = &mut out[at..];
    macro_rules! together {
        ($kernel:literal, $step:literal) => {
            match spot.whole {
                true => {
                    together::<L, $kernel, $step, true, T>(sides, spot, first, terms, out, stride)
                }
                false => {
                    together::<L, $kernel, $step, false, T>(sides, spot, first, terms, out, stride)
                }
            }
        };
    }
    match (kernel[1], strides[1], dilations[1]) {
        (3, 1, 1) if L > 1 => together!(3, 1),
        (3, 2, 1) if L > 1 => together!(3, 2),
        (5, 1, 1) if L > 1 => together!(5, 1),
        (5, 2, 1) if L > 1 => together!(5, 2),
        _ if spot.whole => {
            for place in (0..PLACES).step_by(4) {
                tap_by_tap::<L, 4, T>(sides, spot, (place, first), terms, out, stride);
            }
        }
        _ => {
            for place in 0..spot.places {
                tap_by_tap::<L, 1, T>(sides, spot, (place, first), terms, out, stride);
            }
        }
    }
    L
}

/// The sums of `L` channels at all places of the spot, under a window of `K` columns that moves by `STEP`; `WHOLE`
/// where there are [`PLACES`], and none of them reaches over the edge.
#[inline(always)]
fn together<const L: usize, const K: usize, const STEP: usize, const WHOLE: bool, T: Terms>(
    sides: Sides<'_, T::X, T::Weight>,
    spot: Spot<'_>,
    first: usize,
    terms: T,
    out: &mut [f32],
    stride: usize,
) {
    let (window, width, channels) = (spot.slide.window(), spot.slide.grid()[1], spot.channels);
    let met = (PLACES - 1) * STEP + K;
    // The cells that the places meet, counted from the first tap of the first; and those of them on the grid.
    let (left, before) = (spot.column * STEP, spot.slide.before(1));
    let (from, to) = match WHOLE {
        true => (0, met),
        false => (before.saturating_sub(left), met.min((width + before).saturating_sub(left))),
    };
    // Each in a variable of its own, and all loops over them written out, so that the compiler keeps them in registers.
    let start = terms.start::<L>(first);
    let (mut a, mut b, mut c, mut d) = (start, start, start, start);
    let (mut e, mut f, mut g, mut h) = (start, start, start, start);
    // None, where all of them lie beyond the grid.
    let lines = if from < to { spot.down.taps.clone() } else { 0..0 };
    for (index, down) in lines.enumerate() {
        let line = (spot.down.cell + index * window.dilations[0]) * width;
        let taps = Runs::<_, L>::new(&sides.weights[down * K * channels + first..], channels, K);
        let tap = |tap: usize| match tap < K {
            true => terms.taps(taps.get(tap)),
            false => [T::Tap::default(); L],
        };
        let taps = [tap(0), tap(1), tap(2), tap(3), tap(4)];
        let cells = &sides.x[(line + left + from - before) * channels + first..];
        let cells = Runs::<_, L>::new(cells, channels, to - from);
        macro_rules! meet {
            ($($cell:literal)*) => { $(
                if $cell < met && $cell >= from && $cell < to {
                    let cell = terms.cells(cells.get($cell - from));
                    meet::<L, K, STEP, T>(&mut a, 0, $cell, &cell, &taps, terms);
                    meet::<L, K, STEP, T>(&mut b, 1, $cell, &cell, &taps, terms);
                    meet::<L, K, STEP, T>(&mut c, 2, $cell, &cell, &taps, terms);
                    meet::<L, K, STEP, T>(&mut d, 3, $cell, &cell, &taps, terms);
                    meet::<L, K, STEP, T>(&mut e, 4, $cell, &cell, &taps, terms);
                    meet::<L, K, STEP, T>(&mut f, 5, $cell, &cell, &taps, terms);
                    meet::<L, K, STEP, T>(&mut g, 6, $cell, &cell, &taps, terms);
                    meet::<L, K, STEP, T>(&mut h, 7, $cell, &cell, &taps, terms);
                }
            )* };
        }
        meet!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18);
    }
    let places = if WHOLE { PLACES } else { spot.places };
    let (ends, mut out) = (terms.ends(first), RunsMut::new(out, stride, places));
    macro_rules! store {
        ($($place:literal $sums:ident)*) => { $(
            if $place < places {
                out.set($place, terms.end(&ends, &$sums));
            }
        )* };
    }
    store!(0 a 1 b 2 c 3 d 4 e 5 f 6 g 7 h);
}

/// Adds cell number `cell` to the sums of place number `place`, where that has a tap over it.
#[inline(always)]
fn meet<const L: usize, const K: usize, const STEP: usize, T: Terms>(
    sums: &mut [T::Sum; L],
    place: usize,
    cell: usize,
    cells: &[T::Cell; L],
    taps: &[[T::Tap; L]; 5],
    terms: T,
) {
    if cell >= place * STEP && cell - place * STEP < K {
        terms.add(sums, cells, &taps[cell - place * STEP]);
    }
}

/// The sums of `L` channels at `P` places of the spot, from the one `place` on, under any window; several where none
/// reaches over the edge.
#[inline(always)]
fn tap_by_tap<const L: usize, const P: usize, T: Terms>(
    sides: Sides<'_, T::X, T::Weight>,
    spot: Spot<'_>,
    (place, first): (usize, usize),
    terms: T,
    out: &mut [f32],
    stride: usize,
) {
    let (window, width) = (spot.slide.window(), spot.slide.grid()[1]);
    let across = spot.slide.taps(1, spot.column + place);
    let step = window.strides[1] * spot.channels;
    let start = terms.start::<L>(first);
    let (mut a, mut b, mut c, mut d) = (start, start, start, start);
    for (index, down) in spot.down.taps.clone().enumerate() {
        let line = (spot.down.cell + index * window.dilations[0]) * width + across.cell;
        for (index, tap) in across.taps.clone().enumerate() {
            let weights = (down * window.kernel[1] + tap) * spot.channels + first;
            let weights = sides.weights[weights..].first_chunk().expect("a weight a channel");
            let tap = terms.taps::<L>(weights);
            let cells = (line + index * window.dilations[1]) * spot.channels + first;
            let cells = Runs::<_, L>::new(&sides.x[cells..], step, P);
            terms.add(&mut a, &terms.cells(cells.get(0)), &tap);
            if P == 4 {
                terms.add(&mut b, &terms.cells(cells.get(1)), &tap);
                terms.add(&mut c, &terms.cells(cells.get(2)), &tap);
                terms.add(&mut d, &terms.cells(cells.get(3)), &tap);
            }
        }
    }
    let (ends, out) = (terms.ends(first), &mut out[place * stride..]);
    let mut out = RunsMut::new(out, stride, P);
    for (index, sums) in [a, b, c, d].iter().take(P).enumerate() {
        out.set(index, terms.end(&ends, sums));
    }
}

/// What `convert` makes of each. Not `map`, which may become a function of its own, compiled for any processor.
#[inline(always)]
pub(super) fn each<const L: usize, A: Copy, B: Copy + Default>(
    from: &[A; L],
    convert: impl Fn(A) -> B,
) -> [B; L] {
    let mut to = [B::default(); L];
    for lane in 0..L {
        to[lane] = convert(from[lane]);
    }
    to
}

/// `L` of what each channel has, from the one `first` on.
#[inline(always)]
pub(super) fn of_channels<const L: usize>(values: &[f32], first: usize) -> &[f32; L] {
    values[first..].first_chunk().expect("one a channel")
}
