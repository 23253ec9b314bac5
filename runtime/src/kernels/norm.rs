//! Functions of whole rows: layer normalization, softmax, and the pooled tail of a sentence encoder.

use super::cpu::{Cpu, per_cpu};
use super::{lanes, math};

/// Rows that take each step of a normalization one after the other: the steps of one row wait for each other,
/// those of several do not.
const TOGETHER: usize = 8;

/// The learnt part of a layer normalization, and the small number that keeps a constant row finite.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    /// What each normalized column is multiplied with, `[width]`.
    pub gamma: &'a [f32],
    /// What is then added to it, `[width]`.
    pub beta: &'a [f32],
    /// Added to the variance.
    pub epsilon: f32,
}

/// Each row of `x [m, width]`, normalized to mean zero and variance one, times gamma plus beta, in `out`
/// (ONNX: `LayerNormalization` over the last axis). The width is that of gamma.
///
/// # Panics
/// When the lengths do not belong together, or the width is zero.
pub fn layer_norm(cpu: Cpu, x: &[f32], norm: LayerNorm<'_>, out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "the result is [m, width], as x");
    assert_eq!(norm.gamma.len(), norm.beta.len(), "gamma and beta are [width]");
    assert!(x.len().is_multiple_of(norm.gamma.len()), "x is [m, width]");
    #[inline(always)]
    fn body(x: &[f32], norm: LayerNorm<'_>, out: &mut [f32]) {
        let (columns, width) = (norm.gamma.len(), norm.gamma.len() as f32);
        let (mut means, mut factors) = ([0.0; TOGETHER], [0.0; TOGETHER]);
        let blocks = x.chunks(TOGETHER * columns).zip(out.chunks_mut(TOGETHER * columns));
        for (rows, out) in blocks {
            for (row, mean) in rows.chunks_exact(columns).zip(&mut means) {
                *mean = lanes::sum(row, |value| value) / width;
            }
            for ((row, &mean), factor) in rows.chunks_exact(columns).zip(&means).zip(&mut factors) {
                let variance = lanes::sum(row, |value| (value - mean) * (value - mean)) / width;
                *factor = 1.0 / (variance + norm.epsilon).sqrt();
            }
            let pairs = rows.chunks_exact(columns).zip(out.chunks_exact_mut(columns));
            for (((row, out), mean), factor) in pairs.zip(means).zip(factors) {
                let learnt = norm.gamma.iter().zip(norm.beta);
                for ((out, value), (&gamma, &beta)) in out.iter_mut().zip(row).zip(learnt) {
                    *out = ((value - mean) * factor).mul_add(gamma, beta);
                }
            }
        }
    }
    per_cpu!(cpu, body(x: &[f32], norm: LayerNorm<'_>, out: &mut [f32]))
}

/// Each row of `x [m, width]` in place as shares of one: `e^x` over the sum of `e^x`, computed from the
/// distance to the row's largest value. A row of equal values gives equal shares.
///
/// # Panics
/// When `width` is zero or `x` holds no whole rows.
pub fn softmax(cpu: Cpu, x: &mut [f32], width: usize) {
    assert!(x.len().is_multiple_of(width), "x is [m, width]");
    #[inline(always)]
    fn body(x: &mut [f32], width: usize) {
        for row in x.chunks_exact_mut(width) {
            let largest = lanes::max(row, f32::MIN);
            row.iter_mut().for_each(|value| *value = math::exp_of(*value - largest));
            let total = lanes::sum(row, |value| value);
            row.iter_mut().for_each(|value| *value /= total);
        }
    }
    per_cpu!(cpu, body(x: &mut [f32], width: usize))
}

/// Mean of the token vectors that `mask` keeps (those not zero): `hidden` is `[tokens, width]`, `mask`
/// `[tokens]`, the result `[width]`. All zeros when `mask` keeps none.
///
/// # Panics
/// When the lengths do not belong together.
pub fn masked_mean(cpu: Cpu, hidden: &[f32], mask: &[u8], mean: &mut [f32]) {
    assert_eq!(hidden.len(), mask.len() * mean.len(), "hidden is [tokens, width]");
    #[inline(always)]
    fn body(hidden: &[f32], mask: &[u8], mean: &mut [f32]) {
        mean.fill(0.0);
        let mut kept = 0usize;
        for (row, _) in
            hidden.chunks_exact(mean.len().max(1)).zip(mask).filter(|(_, keep)| **keep != 0)
        {
            mean.iter_mut().zip(row).for_each(|(total, value)| *total += value);
            kept += 1;
        }
        let count = kept.max(1) as f32;
        mean.iter_mut().for_each(|total| *total /= count);
    }
    per_cpu!(cpu, body(hidden: &[f32], mask: &[u8], mean: &mut [f32]))
}

/// Each row of `x [m, width]` in place, divided by its Euclidean length (ONNX: `LpNormalization`, p = 2);
/// by `epsilon` where the length is less, so that a row of zeros stays.
///
/// # Panics
/// When `width` is zero or `x` holds no whole rows.
pub fn l2_normalize(cpu: Cpu, x: &mut [f32], width: usize, epsilon: f32) {
    assert!(x.len().is_multiple_of(width), "x is [m, width]");
    #[inline(always)]
    fn body(x: &mut [f32], width: usize, epsilon: f32) {
        for row in x.chunks_exact_mut(width) {
            let length = lanes::sum(row, |value| value * value).sqrt();
            let length = if length < epsilon { epsilon } else { length };
            row.iter_mut().for_each(|value| *value /= length);
        }
    }
    per_cpu!(cpu, body(x: &mut [f32], width: usize, epsilon: f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_norm_of_one_two_three_is_that_of_pencil_and_paper() {
        let mut out = [0.0; 6];
        let norm = LayerNorm { gamma: &[2.0, 2.0, 2.0], beta: &[0.5, 0.5, 0.5], epsilon: 1e-12 };
        layer_norm(Cpu::detect(), &[1.0, 2.0, 3.0, 5.0, 5.0, 5.0], norm, &mut out);
        // The variance of 1, 2, 3 is 2/3; a constant row leaves beta.
        let outer = 2.0 * 1.5f32.sqrt();
        for (value, expected) in out.iter().zip([0.5 - outer, 0.5, 0.5 + outer, 0.5, 0.5, 0.5]) {
            assert!((value - expected).abs() < 1e-6, "{out:?}");
        }
    }

    #[test]
    fn softmax_of_equal_values_is_uniform_whatever_their_size() {
        for value in [0.0, -1e30, 1e30] {
            let mut x = [value; 20];
            softmax(Cpu::detect(), &mut x, 20);
            assert_eq!(x, [0.05; 20], "{value}");
        }
    }

    #[test]
    fn a_mean_takes_only_what_the_mask_keeps() {
        let hidden = [1.0, 2.0, 100.0, 100.0, 3.0, 6.0];
        let mut mean = [9.0; 2];
        masked_mean(Cpu::detect(), &hidden, &[1, 0, 1], &mut mean);
        assert_eq!(mean, [2.0, 4.0]);
        masked_mean(Cpu::detect(), &hidden, &[0, 0, 0], &mut mean);
        assert_eq!(mean, [0.0, 0.0]);
    }

    #[test]
    fn a_row_of_zeros_has_no_direction_and_stays() {
        let mut x = [3.0, 4.0, 0.0, 0.0];
        l2_normalize(Cpu::detect(), &mut x, 2, 1e-12);
        assert_eq!(x, [0.6, 0.8, 0.0, 0.0]);
    }
}
