//! Rows to `u8` by NEON: the steps of the scalar form, whose conversions round half to even and saturate as its
//! comparisons do.
#![allow(unsafe_code)]

use std::arch::aarch64::*;

use super::{RowScale, quantize_row, quantized_width, reciprocal_of};

/// As [`super::quantize_rows`]; the caller has checked the lengths.
#[target_feature(enable = "neon")]
pub(super) fn quantize_rows(x: &[f32], k: usize, quantized: &mut [u8], rows: &mut [RowScale]) {
    let targets = quantized.chunks_exact_mut(quantized_width(k));
    for ((values, target), row) in x.chunks_exact(k).zip(targets).zip(rows) {
        *row = range_of(values);
        round(values, *row, target);
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

/// `x / scale` as [`divide`](super::divide) gives it, rounded half to even; what is below the least value, or
/// no number, is that, and what is above the largest stays above it.
#[target_feature(enable = "neon")]
#[inline]
fn integers_of(x: float32x4_t, range: RowScale, reciprocal: f32) -> int32x4_t {
    let (scale, reciprocal) = (vdupq_n_f32(range.scale), vdupq_n_f32(reciprocal));
    let estimate = vmulq_f32(x, reciprocal);
    let faithful = vfmaq_f32(estimate, vfmsq_f32(x, estimate, scale), reciprocal);
    let quotient = vfmaq_f32(faithful, vfmsq_f32(x, faithful, scale), reciprocal);
    vcvtnq_s32_f32(vmaxnmq_f32(quotient, vdupq_n_f32(-f32::from(range.zero_point))))
}
