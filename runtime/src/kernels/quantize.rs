//! f32 -> int8: weights per column on the host, activations per row as they come.

use super::cpu::{Cpu, per_cpu};
use super::lanes;
use super::math::SHIFT;
use super::pack::{PANEL, quantized_width};

#[cfg(target_arch = "aarch64")]
mod aarch64;

/// Calls a function of `aarch64` and returns, where `$cpu` has NEON: compiled from the scalar form, rows of
/// few numbers take three times the instructions.
macro_rules! by_neon {
    ($cpu:expr, $function:ident($($argument:expr),*)) => {
        #[cfg(target_arch = "aarch64")]
        if $cpu != Cpu::scalar() {
            // SAFETY: a `Cpu` of the other levels exists only where there is NEON, which the architecture includes.
            #[allow(unsafe_code)]
            return unsafe { aarch64::$function($($argument),*) };
        }
    };
}

/// Rows whose ranges are found before the first of them is quantized: the steps of one row wait for each other,
/// those of several do not.
const TOGETHER: usize = 4;

/// How a row of `u8` stands for numbers: `(q - zero_point) * scale`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RowScale {
    /// The step between neighbouring values; positive.
    pub scale: f32,
    /// The value that stands for zero.
    pub zero_point: u8,
}

impl Default for RowScale {
    /// What a row of zeros gets: steps of one from zero.
    fn default() -> RowScale {
        RowScale { scale: 1.0, zero_point: 0 }
    }
}

impl RowScale {
    /// The steps that reach from `least` to `most`, widened to hold zero (ONNX: `DynamicQuantizeLinear`).
    #[inline(always)]
    pub fn spanning(least: f32, most: f32) -> RowScale {
        // Zero must be exactly representable.
        let (least, most) = (least.min(0.0), most.max(0.0));
        let scale = step_of(most - least, 255.0);
        RowScale { scale, zero_point: round_to_u8(-least / scale, 0) }
    }
}

/// `weights [k, n]` as int8 in -127..127 with one scale a column, zero standing for zero:
/// `(w / scale)` rounded half to even, `scale` as [`step_of_weights`] gives it. A NaN becomes zero.
///
/// # Panics
/// When `weights` is not `k * n` long.
pub fn quantize_columns(weights: &[f32], k: usize, n: usize) -> (Vec<i8>, Vec<f32>) {
    assert_eq!(weights.len(), k * n, "the weights are [k, n]");
    let column = |column: usize| weights.iter().skip(column).step_by(n.max(1)).copied();
    let scales: Vec<f32> = (0..n).map(|index| step_of_weights(column(index))).collect();
    let quantized = weights
        .chunks_exact(n.max(1))
        .flat_map(|row| row.iter().zip(&scales))
        .map(|(weight, scale)| (weight / scale).round_ties_even().clamp(-127.0, 127.0) as i8);
    (quantized.collect(), scales)
}

/// The step that `weights` are rounded in: their largest magnitude over 127, or, where they lie on a grid of
/// fewer steps already, the step of such a grid, so that what was rounded once is not moved again. One where
/// all are zero.
pub fn step_of_weights(weights: impl Iterator<Item = f32> + Clone) -> f32 {
    // Of a step: what f32 loses of 127 steps and a product with another factor is below 1e-4.
    const ON_GRID: f32 = 1e-3;
    let largest = weights.clone().fold(0.0_f32, |most, weight| most.max(weight.abs()));
    let whole = |step: f32| {
        let off = |weight: f32| (weight / step - (weight / step).round_ties_even()).abs();
        weights.clone().all(|weight| off(weight) < ON_GRID)
    };
    let grids = (1..=127).rev().map(|steps| step_of(largest, steps as f32));
    let mut grids = grids.filter(|_| largest > 0.0);
    grids.find(|&step| whole(step)).unwrap_or_else(|| step_of(largest, 127.0))
}

/// Each row of `x [m, k]` as `u8` in a range of its own (ONNX: `DynamicQuantizeLinear`, applied per row):
/// `quantized` is `[m, quantized_width(k)]`, its padding zero, and `rows` is `[m]`.
///
/// A row that holds an infinity gets an infinite scale; NaN counts as the least of its row.
///
/// # Panics
/// When the lengths do not belong together, or `k` is zero.
pub fn quantize_rows(cpu: Cpu, x: &[f32], k: usize, quantized: &mut [u8], rows: &mut [RowScale]) {
    assert_eq!(x.len(), rows.len() * k, "x is [m, k]");
    assert_eq!(
        quantized.len(),
        rows.len() * quantized_width(k),
        "quantized is [m, quantized_width(k)]"
    );
    by_neon!(cpu, quantize_rows(x, k, quantized, rows));
    #[inline(always)]
    fn body(x: &[f32], k: usize, quantized: &mut [u8], rows: &mut [RowScale]) {
        let width = quantized_width(k);
        let blocks = x.chunks(TOGETHER * k).zip(quantized.chunks_mut(TOGETHER * width));
        for ((x, quantized), rows) in blocks.zip(rows.chunks_mut(TOGETHER)) {
            for (values, row) in x.chunks_exact(k).zip(&mut *rows) {
                *row = range_of(values);
            }
            let targets = quantized.chunks_exact_mut(width);
            for ((values, target), &mut row) in x.chunks_exact(k).zip(targets).zip(rows) {
                quantize_row(values, row, target);
            }
        }
    }
    per_cpu!(cpu, body(x: &[f32], k: usize, quantized: &mut [u8], rows: &mut [RowScale]))
}

/// The one range of all of `x` (ONNX: `DynamicQuantizeLinear`).
pub fn range_of_tensor(cpu: Cpu, x: &[f32]) -> RowScale {
    by_neon!(cpu, range_of(x));
    #[inline(always)]
    fn body(x: &[f32], range: &mut RowScale) {
        *range = range_of(x);
    }
    fn on(cpu: Cpu, x: &[f32], range: &mut RowScale) {
        per_cpu!(cpu, body(x: &[f32], range: &mut RowScale))
    }
    let mut range = RowScale::default();
    on(cpu, x, &mut range);
    range
}

/// Every row of `x [m, k]` as `u8` in one range known beforehand (ONNX: `QuantizeLinear`): `quantized` is
/// `[m, quantized_width(k)]`, its padding zero.
///
/// # Panics
/// When the lengths do not belong together, or `k` is zero.
pub fn quantize_with(cpu: Cpu, x: &[f32], k: usize, range: RowScale, quantized: &mut [u8]) {
    assert_eq!(
        quantized.len(),
        x.len() / k * quantized_width(k),
        "quantized is [m, quantized_width(k)]"
    );
    by_neon!(cpu, quantize_with(x, k, range, quantized));
    #[inline(always)]
    fn body(x: &[f32], k: usize, range: RowScale, quantized: &mut [u8]) {
        let targets = quantized.chunks_exact_mut(quantized_width(k));
        for (values, target) in x.chunks_exact(k).zip(targets) {
            quantize_row(values, range, target);
        }
    }
    per_cpu!(cpu, body(x: &[f32], k: usize, range: RowScale, quantized: &mut [u8]))
}

/// All of `x` as `u8` in one range known beforehand (ONNX: `QuantizeLinear`), without padding.
///
/// # Panics
/// When the two differ in length.
pub fn round_image(cpu: Cpu, x: &[f32], range: RowScale, out: &mut [u8]) {
    assert_eq!(x.len(), out.len(), "an image and its rounded form have one length");
    by_neon!(cpu, round(x, range, out));
    #[inline(always)]
    fn body(x: &[f32], range: RowScale, out: &mut [u8]) {
        quantize_row(x, range, out);
    }
    per_cpu!(cpu, body(x: &[f32], range: RowScale, out: &mut [u8]))
}

/// The first `count` columns of `x [rows, width]` as `u8` in one range known beforehand (ONNX: `QuantizeLinear`), into rows of
/// `out` that lie `stride` apart. `width` is a multiple of eight.
///
/// # Panics
/// When the lengths do not belong together.
#[inline(always)]
pub(super) fn round_columns(
    cpu: Cpu,
    (x, width): (&[f32], usize),
    count: usize,
    range: RowScale,
    (out, stride): (&mut [u8], usize),
) {
    by_neon!(cpu, round_columns(x, width, count, range, out, stride));
    let _ = cpu;
    for (row, x) in x.chunks_exact(width).enumerate() {
        let out = &mut out[row * stride..][..count];
        match (x.first_chunk::<PANEL>(), <&mut [u8; PANEL]>::try_from(&mut *out)) {
            // Of a length that the compiler knows.
            (Some(x), Ok(out)) => quantize_row(x, range, out),
            _ => quantize_row(&x[..count], range, out),
        }
    }
}

#[inline(always)]
fn range_of(values: &[f32]) -> RowScale {
    let (least, most) = lanes::range(values, 0.0);
    RowScale::spanning(least, most)
}

/// `range / steps`, or one where that is no positive number.
#[inline(always)]
fn step_of(range: f32, steps: f32) -> f32 {
    let step = range / steps;
    if step > 0.0 { step } else { 1.0 }
}

#[inline(always)]
pub(super) fn quantize_row(values: &[f32], range: RowScale, target: &mut [u8]) {
    let (target, padding) = target.split_at_mut(values.len());
    let (scale, zero_point) = (range.scale, range.zero_point);
    let pairs = target.iter_mut().zip(values);
    match reciprocal_of(scale) {
        Some(reciprocal) => {
            pairs.for_each(|(q, &x)| *q = round_to_u8(quotient(x, scale, reciprocal), zero_point));
        }
        None => pairs.for_each(|(q, &x)| *q = round_to_u8(x / scale, zero_point)),
    }
    padding.fill(0);
}

/// Between these bounds neither the reciprocal of a scale nor a remainder that matters can leave the normal range.
const LEAST_DIVISOR: f32 = 1e-20;
const MOST_DIVISOR: f32 = 1e20;

/// What [`quotient`] multiplies with.
#[inline(always)]
fn reciprocal_of(scale: f32) -> Option<f32> {
    (scale > LEAST_DIVISOR && scale < MOST_DIVISOR).then(|| 1.0 / scale)
}

/// `x / scale` near enough to round to the same integer, in a third of the time of a division: one step of Newton's from
/// the product with the reciprocal (Markstein 1990).
#[inline(always)]
fn quotient(x: f32, scale: f32, reciprocal: f32) -> f32 {
    let estimate = x * reciprocal;
    (-estimate).mul_add(scale, x).mul_add(reciprocal, estimate)
}

/// `value` rounded half to even, plus `zero_point`, saturated; NaN is taken for the least value.
#[inline(always)]
fn round_to_u8(value: f32, zero_point: u8) -> u8 {
    let (least, most) = (-f32::from(zero_point), 255.0 - f32::from(zero_point));
    let value = if value > least { value } else { least };
    let value = if value < most { value } else { most };
    ((value + SHIFT).to_bits() as u8).wrapping_add(zero_point)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_rounded_once_is_not_moved_again() {
        for most in [127_i8, 126, 115, 7, 1] {
            let mut integers: Vec<i8> = (0..96_i32)
                .map(|place| ((place * 37 % 127 - 63) as i8).clamp(-most, most))
                .collect();
            integers[7] = -most;
            integers[8] = 1;
            // A scale, and one that a later pass has multiplied into the floats.
            for factor in [1.0, 0.176_776_7] {
                let weights: Vec<f32> =
                    integers.iter().map(|&it| f32::from(it) * 0.0123 * factor).collect();
                let (again, scales) = quantize_columns(&weights, 96, 1);
                for (again, weight) in again.iter().zip(&weights) {
                    let moved = f32::from(*again) * scales[0] - weight;
                    assert!(
                        moved.abs() <= 1e-6 * most as f32 * factor,
                        "{most}: {weight} by {moved}"
                    );
                }
                // Few steps are as many steps of a finer grid; many are themselves.
                assert!(most < 64 || again == integers, "{most}");
            }
        }
        assert_eq!(step_of_weights([0.0; 3].into_iter()), 1.0);
    }

    /// Whether one step of Newton's from `x * reciprocal` rounds to the integer that `x / scale` does, for every x that could
    /// show otherwise. One step is off by 2^-22 of the quotient's last place at most, so its float is another only beside a
    /// midpoint of two floats, and its integer only where one of the two is a half: x is then one of the floats
    /// nearest to `scale` times such a midpoint. Powers of two as factors of scale or x change nothing.
    fn one_step_rounds_alike(halves: impl Iterator<Item = u8>, mantissas: usize) {
        for half in halves.map(|whole| f32::from(whole) + 0.5) {
            let beside = [half.next_up(), half.next_down()];
            for scale in (0..1 << 23).step_by(mantissas).map(|it| f32::from_bits(0x3f80_0000 | it))
            {
                let reciprocal = 1.0 / scale;
                for midpoint in beside.map(|it| (f64::from(half) + f64::from(it)) / 2.0) {
                    // Exact: 24 bits times 25.
                    let nearest = (f64::from(scale) * midpoint) as f32;
                    for x in [nearest.next_down(), nearest, nearest.next_up()] {
                        let quotients = [quotient(x, scale, reciprocal), x / scale];
                        let [one, exact] = quotients.map(f32::round_ties_even);
                        assert_eq!(one, exact, "{x:e} / {scale:e}");
                    }
                }
            }
        }
    }

    #[test]
    fn one_step_is_enough_to_round() {
        one_step_rounds_alike(0..=255, 8191);
    }

    #[test]
    #[ignore = "every scale beside every half: 13 billion divisions, minutes where the compiler may use FMA"]
    fn one_step_is_enough_to_round_for_every_scale() {
        one_step_rounds_alike(0..=255, 1);
    }

    #[test]
    fn any_quotient_rounds_as_that_of_a_division_does() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u32
        };
        for _ in 0..3_000_000 {
            let scale = f32::from_bits(0x3f80_0000 | random() & 0x7f_ffff);
            // Quotients near a half, where a wrong last bit would show, and any others.
            let near = (f32::from((random() & 255) as u8) + 0.5) * scale;
            let near = f32::from_bits(near.to_bits().wrapping_add(random() & 7).wrapping_sub(3));
            let any = f32::from_bits(0x3f80_0000 | random() & 0x7f_ffff) * 100.0;
            for x in [near, any] {
                let quotients = [quotient(x, scale, 1.0 / scale), x / scale];
                let [one, exact] = quotients.map(f32::round_ties_even);
                assert_eq!(one, exact, "{x:e} / {scale:e}");
            }
        }
    }
}
