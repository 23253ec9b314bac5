//! Reductions in one fixed order: thirty-two strided lanes, then a tree. An order that every vector width
//! can follow is what makes sums of floats the same bits on every CPU.

use std::hint::black_box;

pub(super) const LANES: usize = 32;

/// Lanes on cache lines of their own, so that what is stored wide can be loaded narrow at once.
#[repr(align(64))]
struct Aligned([f32; LANES]);

/// Sum of `term(value)`: lane `l` adds the values `l`, `l + 32`, ... in turn, then the upper half of the
/// lanes is added to the lower until one is left.
#[inline(always)]
pub(super) fn sum(values: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    reduce(values, 0.0, |total, value| total + term(value), |a, b| a + b)
}

/// The largest value; `start` when there is none larger. NaN is passed over.
#[inline(always)]
pub(super) fn max(values: &[f32], start: f32) -> f32 {
    // Written as a choice because that is one instruction everywhere, which `f32::max` is not.
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    reduce(values, start, larger, larger)
}

/// The smallest and the largest value; `start` where none is beyond it. NaN is passed over.
#[inline(always)]
pub(super) fn range(values: &[f32], start: f32) -> (f32, f32) {
    let smaller = |a: f32, b: f32| if b < a { b } else { a };
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (mut least, mut most) = ([start; LANES], [start; LANES]);
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for ((least, most), &value) in least.iter_mut().zip(&mut most).zip(chunk) {
            *least = smaller(*least, value);
            *most = larger(*most, value);
        }
    }
    (finish(least, rest, smaller, smaller), finish(most, rest, larger, larger))
}

#[inline(always)]
fn reduce(
    values: &[f32],
    start: f32,
    step: impl Fn(f32, f32) -> f32,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut lanes = [start; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = step(*lane, value);
        }
    }
    finish(lanes, rest, step, join)
}

/// The lanes after all whole chunks, and the values after those, as one.
#[inline(always)]
fn finish(
    lanes: [f32; LANES],
    rest: &[f32],
    step: impl Fn(f32, f32) -> f32,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    // Seen together with the tree, the lanes of the loop would be split into narrow vectors.
    let Aligned(mut lanes) = black_box(Aligned(lanes));
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = step(*lane, value);
    }
    for half in [16, 8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] = join(lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}
