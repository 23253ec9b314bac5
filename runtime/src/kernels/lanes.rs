//! Reductions in one fixed order: sixteen strided lanes, then a tree. An order that every vector width
//! can follow is what makes sums of floats the same bits on every CPU.

const LANES: usize = 16;

/// Sum of `term(value)`: lane `l` adds the values `l`, `l + 16`, ... in turn, then the upper half of the
/// lanes is added to the lower until one is left.
#[inline(always)]
pub(super) fn sum(values: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    reduce(values, 0.0, |total, value| total + term(value), |a, b| a + b)
}

/// The largest value; `start` when there is none larger. NaN is passed over.
#[inline(always)]
pub(super) fn max(values: &[f32], start: f32) -> f32 {
    // Written as a choice because it is one instruction everywhere, which `f32::max` is not.
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    reduce(values, start, larger, larger)
}

/// The smallest value; `start` when there is none smaller. NaN is passed over.
#[inline(always)]
pub(super) fn min(values: &[f32], start: f32) -> f32 {
    let smaller = |a: f32, b: f32| if b < a { b } else { a };
    reduce(values, start, smaller, smaller)
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
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = step(*lane, value);
    }
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] = join(lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}
