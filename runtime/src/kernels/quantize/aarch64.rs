//! Rows to `u8` by NEON: the steps of the scalar form, whose conversions round half to even and saturate as its
//! comparisons do.
#![allow(unsafe_code)]

use std::arch::aarch64::*;

use super::{LEAST_DIVISOR, MOST_DIVISOR, RowScale, quantize_row, quantized_width, reciprocal_of};

/// Rows whose steps are found together: one to a lane.
const TOGETHER: usize = 4;

/// The fewest numbers of a row that four rows are worth it for.
const FEWEST: usize = 8;

/// As [`super::quantize_rows`]; the caller has checked the lengths.
#[target_feature(enable = "neon")]
pub(super) fn quantize_rows(x: &[f32], k: usize, quantized: &mut [u8], rows: &mut [RowScale]) {
    let width = quantized_width(k);
    let together = if k < FEWEST { 0 } else { rows.len() - rows.len() % TOGETHER };
    for first in (0..together).step_by(TOGETHER) {
        let x = &x[first * k..][..TOGETHER * k];
        let quantized = &mut quantized[first * width..][..TOGETHER * width];
        let rows = &mut rows[first..first + TOGETHER];
        let Some(steps) = Steps::of_four(x, k) else {
            quantize_each(x, k, quantized, rows);
            continue;
        };
        for (at, row) in rows.iter_mut().enumerate() {
            *row = steps.row(at);
            let (values, target) = (&x[at * k..][..k], &mut quantized[at * width..][..width]);
            round_own(values, *row, steps.reciprocals[at], target);
        }
    }
    quantize_each(&x[together * k..], k, &mut quantized[together * width..], &mut rows[together..]);
}

/// As [`quantize_rows`], row by row.
#[target_feature(enable = "neon")]
#[inline(never)]
fn quantize_each(x: &[f32], k: usize, quantized: &mut [u8], rows: &mut [RowScale]) {
    let targets = quantized.chunks_exact_mut(quantized_width(k));
    for ((values, target), row) in x.chunks_exact(k).zip(targets).zip(rows) {
        *row = range_of(values);
        round(values, *row, target);
    }
}

/// The steps of four rows.
struct Steps {
    scales: [f32; TOGETHER],
    reciprocals: [f32; TOGETHER],
    zero_points: [i32; TOGETHER],
}

impl Steps {
    /// As [`RowScale::spanning`] the extremes of each of the rows `x [4, k]`, at least eight numbers long. `None` where
    /// one holds a NaN, or its step has no reciprocal to divide by.
    #[target_feature(enable = "neon")]
    #[inline]
    fn of_four(x: &[f32], k: usize) -> Option<Steps> {
        assert!(x.len() == TOGETHER * k && k >= FEWEST, "four rows of eight numbers or more");
        let (mut least, mut most) = ([vdupq_n_f32(0.0); TOGETHER], [vdupq_n_f32(0.0); TOGETHER]);
        let mut widen = |column: usize| {
            for row in 0..TOGETHER {
                // SAFETY: eight numbers of the row, up to its last at most.
                let (low, high) = unsafe {
                    let at = x.as_ptr().add(row * k + column);
                    (vld1q_f32(at), vld1q_f32(at.add(4)))
                };
                least[row] = vminq_f32(vminq_f32(least[row], low), high);
                most[row] = vmaxq_f32(vmaxq_f32(most[row], low), high);
            }
        };
        for column in (0..k - k % 8).step_by(8) {
            widen(column);
        }
        if !k.is_multiple_of(8) {
            // Some of them once more: extremes do not mind.
            widen(k - 8);
        }
        // One row to a lane.
        let [a, b, c, d] = least;
        let least = vpminq_f32(vpminq_f32(a, b), vpminq_f32(c, d));
        let [a, b, c, d] = most;
        let most = vpmaxq_f32(vpmaxq_f32(a, b), vpmaxq_f32(c, d));
        // A NaN stays one through all of this, and compares with nothing.
        let numbers = vandq_u32(vceqq_f32(least, least), vceqq_f32(most, most));
        let step = vdivq_f32(vsubq_f32(most, least), vdupq_n_f32(255.0));
        let scale = vbslq_f32(vcgtzq_f32(step), step, vdupq_n_f32(1.0));
        let within = vandq_u32(
            vcgtq_f32(scale, vdupq_n_f32(LEAST_DIVISOR)),
            vcltq_f32(scale, vdupq_n_f32(MOST_DIVISOR)),
        );
        if vminvq_u32(vandq_u32(numbers, within)) == 0 {
            return None;
        }
        let zero_point = vcvtnq_s32_f32(vdivq_f32(vnegq_f32(least), scale));
        let reciprocal = vdivq_f32(vdupq_n_f32(1.0), scale);
        let mut steps = Steps { scales: [0.0; 4], reciprocals: [0.0; 4], zero_points: [0; 4] };
        // SAFETY: each is four numbers.
        unsafe {
            vst1q_f32(steps.scales.as_mut_ptr(), scale);
            vst1q_f32(steps.reciprocals.as_mut_ptr(), reciprocal);
            // Nothing below zero, since `least` is not above it.
            let zero_point = vminq_s32(zero_point, vdupq_n_s32(255));
            vst1q_s32(steps.zero_points.as_mut_ptr(), zero_point);
        }
        Some(steps)
    }

    #[inline(always)]
    fn row(&self, row: usize) -> RowScale {
        RowScale { scale: self.scales[row], zero_point: self.zero_points[row] as u8 }
    }
}

/// As [`super::quantize_with`].
#[target_feature(enable = "neon")]
pub(super) fn quantize_with(x: &[f32], k: usize, range: RowScale, quantized: &mut [u8]) {
    let targets = quantized.chunks_exact_mut(quantized_width(k));
    for (values, target) in x.chunks_exact(k).zip(targets) {
        round(values, range, target);
    }
}

/// As [`super::range_of`]. The extremes are the same in whatever order they are found.
#[target_feature(enable = "neon")]
pub(super) fn range_of(values: &[f32]) -> RowScale {
    let (mut least, mut most) = ([vdupq_n_f32(0.0); 2], [vdupq_n_f32(0.0); 2]);
    let (pairs, rest) = values.as_chunks::<8>();
    for pair in pairs {
        let (low, high) = pair.split_at(4);
        for (half, values) in [low, high].into_iter().enumerate() {
            // SAFETY: each half of a pair is four floats.
            let values = unsafe { vld1q_f32(values.as_ptr()) };
            least[half] = vminq_f32(least[half], values);
            most[half] = vmaxq_f32(most[half], values);
        }
    }
    let mut least = vminvq_f32(vminq_f32(least[0], least[1]));
    let mut most = vmaxvq_f32(vmaxq_f32(most[0], most[1]));
    for &value in rest {
        least = if value < least { value } else { least };
        most = if value > most { value } else { most };
    }
    // These instructions keep a NaN, and the scalar form passes it over.
    if least.is_nan() || most.is_nan() {
        return range_beside_nan(values);
    }
    RowScale::spanning(least, most)
}

// What is rare stands apart, so that the registers are the others'.
#[cold]
#[inline(never)]
fn range_beside_nan(values: &[f32]) -> RowScale {
    super::range_of(values)
}

#[cold]
#[inline(never)]
fn round_extreme(values: &[f32], range: RowScale, target: &mut [u8]) {
    quantize_row(values, range, target);
}

/// As [`quantize_row`] a row whose own range, of no NaN, `range` is: no quotient rounds to less than the least value, and all
/// fit 16 bits.
#[target_feature(enable = "neon")]
#[inline]
fn round_own(values: &[f32], range: RowScale, reciprocal: f32, target: &mut [u8]) {
    let k = values.len();
    assert!(k >= FEWEST && target.len() == quantized_width(k), "rows of eight numbers or more");
    let zero_point = vdupq_n_s16(i16::from(range.zero_point));
    let halves = |column: usize| {
        // SAFETY: the caller asks for eight columns of the row.
        let (low, high) = unsafe {
            let at = values.as_ptr().add(column);
            (vld1q_f32(at), vld1q_f32(at.add(4)))
        };
        let integers =
            |x| vreinterpretq_s16_s32(vcvtnq_s32_f32(quotients(x, range.scale, reciprocal)));
        vaddq_s16(vuzp1q_s16(integers(low), integers(high)), zero_point)
    };
    for column in (0..k - k % 16).step_by(16) {
        let (low, high) = (halves(column), halves(column + 8));
        let bytes = vqmovun_high_s16(vqmovun_s16(low), high);
        // SAFETY: sixteen bytes of the target, which is as long as the row or longer.
        unsafe { vst1q_u8(target.as_mut_ptr().add(column), bytes) };
    }
    if k % 16 >= 8 {
        let column = k - k % 16;
        // SAFETY: as above, eight of them.
        unsafe { vst1_u8(target.as_mut_ptr().add(column), vqmovun_s16(halves(column))) };
    }
    if !k.is_multiple_of(8) {
        // Some of them once more.
        // SAFETY: as above; a row has eight numbers or more.
        unsafe { vst1_u8(target.as_mut_ptr().add(k - 8), vqmovun_s16(halves(k - 8))) };
        target[k..].fill(0);
    }
}

/// As [`quantize_row`].
#[target_feature(enable = "neon")]
pub(super) fn round(values: &[f32], range: RowScale, target: &mut [u8]) {
    let Some(reciprocal) = reciprocal_of(range.scale) else {
        return round_extreme(values, range, target);
    };
    let (written, padding) = target.split_at_mut(values.len());
    let (sixteens, rest) = values.as_chunks::<16>();
    let (targets, rest_target) = written.as_chunks_mut::<16>();
    let zero_point = vdupq_n_s16(i16::from(range.zero_point));
    for (values, target) in sixteens.iter().zip(targets) {
        let integers: [_; 4] = std::array::from_fn(|quad| {
            // SAFETY: sixteen floats are four quads.
            let x = unsafe { vld1q_f32(values.as_ptr().add(quad * 4)) };
            integers_of(x, range, reciprocal)
        });
        let low = vqmovn_high_s32(vqmovn_s32(integers[0]), integers[1]);
        let high = vqmovn_high_s32(vqmovn_s32(integers[2]), integers[3]);
        let (low, high) = (vqaddq_s16(low, zero_point), vqaddq_s16(high, zero_point));
        // SAFETY: what is written are sixteen bytes.
        unsafe { vst1q_u8(target.as_mut_ptr(), vqmovun_high_s16(vqmovun_s16(low), high)) };
    }
    let (quads, last) = rest.as_chunks::<4>();
    let (targets, last_target) = rest_target.as_chunks_mut::<4>();
    for (values, target) in quads.iter().zip(targets) {
        // SAFETY: a quad is four floats.
        let x = unsafe { vld1q_f32(values.as_ptr()) };
        let low =
            vqadd_s16(vqmovn_s32(integers_of(x, range, reciprocal)), vget_low_s16(zero_point));
        let bytes = vqmovun_s16(vcombine_s16(low, low));
        *target = vget_lane_u32::<0>(vreinterpret_u32_u8(bytes)).to_le_bytes();
    }
    // Calls, both of them, that most rows can do without.
    if !last.is_empty() {
        quantize_row(last, range, last_target);
    }
    if !padding.is_empty() {
        padding.fill(0);
    }
}

/// As [`super::round_columns`]: eight columns at a time, of which the last may be more than are asked for.
#[target_feature(enable = "neon")]
pub(super) fn round_columns(
    x: &[f32],
    width: usize,
    count: usize,
    range: RowScale,
    out: &mut [u8],
    stride: usize,
) {
    assert!(width.is_multiple_of(8) && count <= width, "columns in whole eights");
    // Rows with nothing between them are one.
    let together = count == width && stride == width;
    let (width, count) = if together { (x.len(), x.len()) } else { (width, count) };
    let reciprocal = reciprocal_of(range.scale);
    let zero_point = vdupq_n_s16(i16::from(range.zero_point));
    for (row, x) in x.chunks_exact(width).enumerate() {
        let out = &mut out[row * stride..][..count];
        let Some(reciprocal) = reciprocal else {
            round_extreme(&x[..count], range, out);
            continue;
        };
        let bytes = |x: &[f32; 8]| {
            // SAFETY: eight floats are two quads.
            let (low, high) = unsafe { (vld1q_f32(x.as_ptr()), vld1q_f32(x.as_ptr().add(4))) };
            let low = vqmovn_s32(integers_of(low, range, reciprocal));
            let integers = vqmovn_high_s32(low, integers_of(high, range, reciprocal));
            vqaddq_s16(integers, zero_point)
        };
        let (x, (eights, rest)) = (x.as_chunks::<8>().0, out.as_chunks_mut::<8>());
        let (pairs, single) = eights.as_chunks_mut::<2>();
        for ([low, high], out) in x.as_chunks().0.iter().zip(&mut *pairs) {
            let bytes = vqmovun_high_s16(vqmovun_s16(bytes(low)), bytes(high));
            // SAFETY: what is written are twice eight bytes.
            unsafe { vst1q_u8(out.as_mut_ptr().cast(), bytes) };
        }
        for (x, out) in x[2 * pairs.len()..].iter().zip(&mut *single) {
            // SAFETY: what is written are eight bytes.
            unsafe { vst1_u8(out.as_mut_ptr(), vqmovun_s16(bytes(x))) };
        }
        if let (false, Some(x)) = (rest.is_empty(), x.get(eights.len())) {
            let mut last = [0; 8];
            // SAFETY: as above.
            unsafe { vst1_u8(last.as_mut_ptr(), vqmovun_s16(bytes(x))) };
            rest.copy_from_slice(&last[..rest.len()]);
        }
    }
}

/// [`quotients`] rounded half to even; what is below the least value, or
/// no number, is that, and what is above the largest stays above it.
#[target_feature(enable = "neon")]
#[inline]
fn integers_of(x: float32x4_t, range: RowScale, reciprocal: f32) -> int32x4_t {
    let quotient = quotients(x, range.scale, reciprocal);
    vcvtnq_s32_f32(vmaxnmq_f32(quotient, vdupq_n_f32(-f32::from(range.zero_point))))
}

/// As [`quotient`](super::quotient).
#[target_feature(enable = "neon")]
#[inline]
fn quotients(x: float32x4_t, scale: f32, reciprocal: f32) -> float32x4_t {
    let (scale, reciprocal) = (vdupq_n_f32(scale), vdupq_n_f32(reciprocal));
    let estimate = vmulq_f32(x, reciprocal);
    vfmaq_f32(estimate, vfmsq_f32(x, estimate, scale), reciprocal)
}
