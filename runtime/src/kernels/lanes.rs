//! Reductions in one fixed order: thirty-two strided lanes, then a tree. An order that every vector width
//! can follow is what makes sums of floats the same bits on every CPU.

const LANES: usize = 32;

/// Sum of `term(value)`: lane `l` adds the values `l`, `l + 32`, ... in turn, then the upper half of the
/// lanes is added to the lower until one is left.
#[inline(always)]
pub(super) fn sum(values: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    reduce(values, 0.0, |total, value| total + term(value), join_by_sum)
}

/// The largest value; `start` when there is none larger. NaN is passed over.
#[inline(always)]
pub(super) fn max(values: &[f32], start: f32) -> f32 {
    reduce(values, start, larger, join_by_max)
}

/// The smallest value; `start` when there is none smaller. NaN is passed over.
#[inline(always)]
pub(super) fn min(values: &[f32], start: f32) -> f32 {
    reduce(values, start, smaller, join_by_min)
}

#[inline(always)]
fn reduce(
    values: &[f32],
    start: f32,
    step: impl Fn(f32, f32) -> f32,
    join: fn(&[f32; LANES]) -> f32,
) -> f32 {
    let mut wide = [start; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in wide.iter_mut().zip(chunk) {
            *lane = step(*lane, value);
        }
    }
    // A second array: the compiler keeps the first in vector registers only while every index is fixed.
    let mut lanes = wide;
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = step(*lane, value);
    }
    join(&lanes)
}

#[inline(always)]
fn tree(lanes: &[f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = *lanes;
    for half in [16, 8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] = join(lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}

// Never inlined: beside the tree the compiler would split the lanes of the loop into narrow vectors.
#[inline(never)]
fn join_by_sum(lanes: &[f32; LANES]) -> f32 {
    tree(lanes, |a, b| a + b)
}

#[inline(never)]
fn join_by_max(lanes: &[f32; LANES]) -> f32 {
    tree(lanes, larger)
}

#[inline(never)]
fn join_by_min(lanes: &[f32; LANES]) -> f32 {
    tree(lanes, smaller)
}

// Written as choices because those are one instruction everywhere, which `f32::max` is not.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if b < a { b } else { a }
}
