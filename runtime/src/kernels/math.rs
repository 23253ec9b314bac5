//! exp, log, GELU and tanh out of operations that IEEE 754 fixes to the bit: fused multiply-add, division,
//! comparison and integer shifts. No reciprocal estimates, no tables.

use super::cpu::{Cpu, per_cpu};

/// 1.5 * 2^23: added to a small number, it rounds half to even and leaves the integer in the low bits.
pub(super) const SHIFT: f32 = 12_582_912.0;

/// Largest absolute error of [`gelu`] against `x * (1 + erf(x / sqrt 2)) / 2`, measured at every sixteenth
/// float up to 100: two units in the last place of what exceeds 4, and 3.1e-7 for `x` within -2..2.
pub const GELU_ERROR: f32 = 9.5e-7;

/// Largest absolute error of [`gelu_polynomial`], measured likewise: at -4 and 4 and halfway to them.
pub const GELU_POLYNOMIAL_ERROR: f32 = 1.95e-4;

/// Largest relative error of the exponential inside [`softmax`](super::softmax) and attention, measured at
/// every float whose result is a normal number. What would be less than that is zero.
pub const EXP_ERROR: f32 = 8.6e-8;

/// Largest relative error of [`tanh`], measured at every float beyond 1e-37.
pub const TANH_ERROR: f32 = 3.2e-7;

/// Gaussian error linear unit in its erf form (ONNX: `Gelu`, `approximate = none`), in place, within
/// [`GELU_ERROR`].
pub fn gelu(cpu: Cpu, values: &mut [f32]) {
    #[inline(always)]
    fn body(values: &mut [f32]) {
        values.iter_mut().for_each(|value| *value = gelu_of(*value));
    }
    per_cpu!(cpu, body(values: &mut [f32]))
}

/// As [`gelu`], within [`GELU_POLYNOMIAL_ERROR`] and in half the time: in a row that spans 4, which int8 rounds in steps of
/// 0.016, it moves what is rounded by an eightieth of a step.
pub fn gelu_polynomial(cpu: Cpu, values: &mut [f32]) {
    #[inline(always)]
    fn body(values: &mut [f32]) {
        values.iter_mut().for_each(|value| *value = gelu_polynomial_of(*value));
    }
    per_cpu!(cpu, body(values: &mut [f32]))
}

/// Hyperbolic tangent, in place, within [`TANH_ERROR`] and never beyond one.
pub fn tanh(cpu: Cpu, values: &mut [f32]) {
    #[inline(always)]
    fn body(values: &mut [f32]) {
        values.iter_mut().for_each(|value| *value = tanh_of(*value));
    }
    per_cpu!(cpu, body(values: &mut [f32]))
}

/// Largest relative error of [`log`], measured at every 251st float: half a unit in the last place, and what
/// f64 leaves out.
pub const LOG_ERROR: f32 = 6e-8;

/// Natural logarithm, in place, within [`LOG_ERROR`]: of zero minus infinity, of what is negative NaN.
pub fn log(cpu: Cpu, values: &mut [f32]) {
    #[inline(always)]
    fn body(values: &mut [f32]) {
        values.iter_mut().for_each(|value| *value = log_of(*value));
    }
    per_cpu!(cpu, body(values: &mut [f32]))
}

/// Adds `terms` to `values`, element by element.
///
/// # Panics
/// When the two differ in length.
pub fn add(cpu: Cpu, values: &mut [f32], terms: &[f32]) {
    assert_eq!(values.len(), terms.len(), "the two sides of a sum have one length");
    #[inline(always)]
    fn body(values: &mut [f32], terms: &[f32]) {
        values.iter_mut().zip(terms).for_each(|(value, term)| *value += term);
    }
    per_cpu!(cpu, body(values: &mut [f32], terms: &[f32]))
}

/// Multiplies `values` by `factors`, element by element.
///
/// # Panics
/// When the two differ in length.
pub fn multiply(cpu: Cpu, values: &mut [f32], factors: &[f32]) {
    assert_eq!(values.len(), factors.len(), "the two sides of a product have one length");
    #[inline(always)]
    fn body(values: &mut [f32], factors: &[f32]) {
        values.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
    }
    per_cpu!(cpu, body(values: &mut [f32], factors: &[f32]))
}

/// Below this the exponential is no normal number.
const LEAST_EXP: f32 = -87.336_54;

/// `e^x` within [`EXP_ERROR`]: `2^n` put into the exponent bits, times a polynomial in the remainder.
#[inline(always)]
pub(super) fn exp_of(x: f32) -> f32 {
    /// Above this the result is infinite.
    const MOST: f32 = 88.722_84;

    let shifted = x.mul_add(std::f32::consts::LOG2_E, SHIFT);
    let mantissa = exp_mantissa(x, shifted - SHIFT);
    let scaled = f32::from_bits(mantissa.to_bits().wrapping_add(shifted.to_bits() << 23));
    let bounded = if x < LEAST_EXP { 0.0 } else { scaled };
    // The sum is infinite, or stays NaN.
    if x <= MOST { bounded } else { x + f32::INFINITY }
}

/// `k ln 2 + ln m` in f64, where every positive f32 is a normal number, with `m` within a factor of the root
/// of two around one: `ln m = 2 artanh s`, `s = (m - 1) / (m + 1)`, by its series, whose next term is less than
/// 2e-12 of the sum.
#[inline(always)]
fn log_of(x: f32) -> f32 {
    const ROOT_OF_HALF: u64 = std::f64::consts::FRAC_1_SQRT_2.to_bits();
    const SERIES: [f64; 7] =
        [1.0, 1.0 / 3.0, 1.0 / 5.0, 1.0 / 7.0, 1.0 / 9.0, 1.0 / 11.0, 1.0 / 13.0];
    let bits = f64::from(x).to_bits();
    let k = bits.wrapping_sub(ROOT_OF_HALF).cast_signed() >> 52;
    let m = f64::from_bits(bits.wrapping_sub(k.cast_unsigned() << 52));
    let s = (m - 1.0) / (m + 1.0);
    let u = s * s;
    let series = SERIES[..6].iter().rev().fold(SERIES[6], |sum, &term| sum.mul_add(u, term));
    let log = (k as f64).mul_add(std::f64::consts::LN_2, 2.0 * s * series) as f32;
    let bounded = if x == 0.0 { f32::NEG_INFINITY } else { log };
    // Infinity stays, and NaN; what is negative becomes one.
    let bounded = if x < f32::INFINITY { bounded } else { x };
    if x < 0.0 { f32::NAN } else { bounded }
}

/// As [`exp_of`], bit for bit, where `x` is not positive, in fewer steps; NaN stays.
#[inline(always)]
pub(super) fn exp_below(x: f32) -> f32 {
    // The bias of an exponent besides. No `x` this small lies halfway between two `n`, where an odd
    // bias would round the other way: the multiples of the mantissa of log2 e begin at six million.
    const BIASED: f32 = SHIFT + 127.0;

    let shifted = x.mul_add(std::f32::consts::LOG2_E, BIASED);
    let mantissa = exp_mantissa(x, shifted - BIASED);
    let scaled = mantissa * f32::from_bits(shifted.to_bits() << 23);
    if x < LEAST_EXP { 0.0 } else { scaled }
}

/// `e^(x - n ln 2)`, where `n` is the integer nearest to `x / ln 2`.
#[inline(always)]
fn exp_mantissa(x: f32, n: f32) -> f32 {
    // ln 2 in two parts; the first has few enough bits for `n * LN2_HIGH` to be exact.
    const LN2_HIGH: f32 = 0.693_145_75;
    const LN2_LOW: f32 = 1.428_606_8e-6;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let p = polynomial([0.499_999_94, 0.166_665_2, 0.041_668_4, 0.008_368_851, 0.001_381_431_9], r);
    (p * r).mul_add(r, r) + 1.0
}

/// Zero for what is negative; NaN stays.
#[inline(always)]
pub(super) fn relu_of(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// `x * (1/2 + erf(x / sqrt 2) / 2)`, the bracket as a rational function of `x`, fitted to make the
/// largest absolute error of the product least on -5.6..5.6; beyond, the result is `x` or zero.
#[inline(always)]
pub(super) fn gelu_of(x: f32) -> f32 {
    const EDGE: f32 = 5.6;
    let u = x * x;
    let above = polynomial(
        [
            0.398_941_9,
            0.035_847_448,
            0.004_805_434_5,
            1.901_573_6e-4,
            6.590_533_8e-6,
            2.171_008_6e-8,
        ],
        u,
    );
    let below = polynomial(
        [1.0, 0.256_518_96, 0.029_804_107, 0.002_003_368_2, 8.101_129e-5, 1.185_135e-6],
        u,
    );
    let share = x * above / below + 0.5;
    let share = if x > EDGE { 1.0 } else { share };
    let share = if x < -EDGE { 0.0 } else { share };
    x * share
}

/// `x * (1/2 + erf(x / sqrt 2) / 2)`, the bracket as a polynomial of `x`, fitted to make the largest absolute error of the
/// product least, and to reach exactly 0 and 1 at -4 and 4, beyond which it stays. NaN stays.
#[inline(always)]
pub(super) fn gelu_polynomial_of(x: f32) -> f32 {
    const EDGE: f32 = 4.0;
    let bounded = if x > EDGE { EDGE } else { x };
    let bounded = if bounded < -EDGE { -EDGE } else { bounded };
    let slope = polynomial(
        [
            0.397_870_42,
            -0.064_554_416,
            0.008_763_691,
            -8.121_874_4e-4,
            4.776_388e-5,
            -1.588_826_9e-6,
            2.258_820_7e-8,
        ],
        bounded * bounded,
    );
    x * slope.mul_add(bounded, 0.5)
}

/// `tanh x` as a rational function fitted on -9..9, where it reaches one.
#[inline(always)]
pub(super) fn tanh_of(x: f32) -> f32 {
    const EDGE: f32 = 9.0;
    let u = x * x;
    let above = polynomial([1.0, 0.133_810_13, 0.003_495_574_2, 2.060_885_3e-5, 1.335_435_4e-8], u);
    let below = polynomial([1.0, 0.467_143_3, 0.025_876_928, 3.285_612e-4, 7.776_430_4e-7], u);
    let ratio = x * above / below;
    let ratio = if x > EDGE || ratio > 1.0 { 1.0 } else { ratio };
    if x < -EDGE || ratio < -1.0 { -1.0 } else { ratio }
}

/// `coefficients[0] + coefficients[1] x + ...` by Horner's rule.
#[inline(always)]
fn polynomial<const N: usize>(coefficients: [f32; N], x: f32) -> f32 {
    let mut value = coefficients[N - 1];
    for &coefficient in coefficients[..N - 1].iter().rev() {
        value = value.mul_add(x, coefficient);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithm_is_that_of_f64_rounded_once() {
        let mut worst = 0.0_f64;
        for bits in (1..f32::INFINITY.to_bits()).step_by(251) {
            let x = f32::from_bits(bits);
            // The standard library's f64 logarithm is the other hand.
            let expected = f64::from(x).ln();
            let error = (f64::from(log_of(x)) - expected).abs();
            worst = worst.max(if expected == 0.0 { error } else { error / expected.abs() });
        }
        assert!(worst <= f64::from(LOG_ERROR), "{worst:e}");
        let mut edges = [0.0, -0.0, 1.0, f32::INFINITY, -1.0, f32::NAN];
        log(Cpu::detect(), &mut edges);
        assert_eq!(edges[..4], [f32::NEG_INFINITY, f32::NEG_INFINITY, 0.0, f32::INFINITY]);
        assert!(edges[4].is_nan() && edges[5].is_nan());
    }
}
