//! Weights stored in half the bytes, in the panels that the tiles read: int4 in groups to int8, f16 to f32.
//!
//! Widening is exact. A layer is widened as a whole before its product, which costs about as much as reading
//! the wide panels once more; what it saves is storage and memory.

use super::cpu::{Cpu, per_cpu};
use super::pack::{PANEL, quantized_width};

/// Inputs of a column that share a multiplier: one of these.
pub const GROUPS: [usize; 3] = [8, 16, 32];

/// Inputs of a panel whose steps are packed together.
const TOGETHER: usize = 32;

/// The largest multiplier: 7 times it is an int8.
pub const MOST_MULTIPLIER: u8 = 18;

/// Steps of four bits on either side of zero.
const STEPS: f32 = 7.0;

/// Values of a panel that are packed together.
const VALUES: usize = TOGETHER * PANEL;

/// Values of four inputs, which lie together.
const QUAD: usize = 4 * PANEL;

/// Weights in steps of four bits: the weight of input `i` and output `j` is
/// `steps * multipliers[i / group][j] * scales[j]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Groups {
    /// Inputs of a group, one of [`GROUPS`].
    pub group: usize,
    /// `[k, n]`, -7 to 7.
    pub steps: Vec<i8>,
    /// `[ceil(k / group), n]`, 1 to [`MOST_MULTIPLIER`].
    pub multipliers: Vec<u8>,
    /// `[n]`.
    pub scales: Vec<f32>,
}

/// `weights [k, n]` in steps of four bits, the multiplier of each `group` of inputs chosen such that the squares of what
/// rounding moves are least. A column of zeros has scale one; a NaN becomes zero.
///
/// # Panics
/// When `weights` is not `k * n` long, or `group` none of [`GROUPS`].
pub fn quantize_groups(weights: &[f32], k: usize, n: usize, group: usize) -> Groups {
    assert_eq!(weights.len(), k * n, "the weights are [k, n]");
    assert!(GROUPS.contains(&group), "a group has 8, 16 or 32 inputs");
    let inputs = group;
    let mut groups = Groups {
        group,
        steps: vec![0; k * n],
        multipliers: vec![1; k.div_ceil(group) * n],
        scales: vec![1.0; n],
    };
    for column in 0..n {
        let of =
            |row: usize| Some(weights[row * n + column]).filter(|it| !it.is_nan()).unwrap_or(0.0);
        let largest = (0..k).fold(0.0_f32, |largest, row| largest.max(of(row).abs()));
        let scale = largest / (STEPS * f32::from(MOST_MULTIPLIER));
        if !scale.is_normal() {
            continue;
        }
        groups.scales[column] = scale;
        for (group, first) in (0..k).step_by(inputs).enumerate() {
            let rows = first..k.min(first + inputs);
            let step = |row: usize, multiplier: u8| {
                (of(row) / (scale * f32::from(multiplier))).round_ties_even().clamp(-STEPS, STEPS)
            };
            let error = |multiplier: u8| {
                let moved = |row| of(row) - step(row, multiplier) * scale * f32::from(multiplier);
                rows.clone().map(|row| f64::from(moved(row)).powi(2)).sum::<f64>()
            };
            let errors = (1..=MOST_MULTIPLIER).map(|multiplier| (error(multiplier), multiplier));
            let best = errors.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(1, |(_, best)| best);
            groups.multipliers[group * n + column] = best;
            rows.for_each(|row| groups.steps[row * n + column] = step(row, best) as i8);
        }
    }
    groups
}

/// Panels `[ceil(n/32), ceil(k/4) * 64]` of the steps, two a byte, and of the multipliers
/// `[ceil(n/32), ceil(k/group), 32]`. Of 32 inputs, or what is left of them, a panel holds its int8 panel's values,
/// as [`pack_i8`](super::pack_i8) lays them out, in half as many bytes: the first half of them in the lower
/// four bits, the second in the upper, each with 8 added.
///
/// # Panics
/// When the lengths do not belong together.
pub fn pack_groups(groups: &Groups, k: usize, n: usize) -> (Vec<u8>, Vec<u8>) {
    let panels = super::pack_i8(&groups.steps, k, n).expect("steps are within ±7");
    let length = quantized_width(k) * PANEL;
    let mut packed = Vec::with_capacity(panels.len() / 2);
    for panel in panels.chunks_exact(length) {
        for values in panel.chunks(VALUES) {
            let (low, high) = values.split_at(values.len() / 2);
            packed.extend(
                low.iter().zip(high).map(|(low, high)| (low + 8) as u8 | ((high + 8) as u8) << 4),
            );
        }
    }
    let count = k.div_ceil(groups.group);
    let mut multipliers = vec![1; n.div_ceil(PANEL) * count * PANEL];
    for (place, &multiplier) in groups.multipliers.iter().enumerate() {
        let (group, column) = (place / n, place % n);
        multipliers[(column / PANEL * count + group) * PANEL + column % PANEL] = multiplier;
    }
    (packed, multipliers)
}

/// The int8 of the weights that [`pack_groups`] packs, without their scales: `[k, n]`.
pub fn widened_steps(groups: &Groups, n: usize) -> Vec<i8> {
    let widen = |(place, &step): (usize, &i8)| {
        let multiplier = groups.multipliers[place / n / groups.group * n + place % n];
        step * multiplier as i8
    };
    groups.steps.iter().enumerate().map(widen).collect()
}

/// One panel of int8 from one panel of [`pack_groups`], in groups of `group`: `panel` is `[ceil(k/4), 32, 4]`.
///
/// Multipliers are taken as they come: above [`MOST_MULTIPLIER`] products wrap, the same on every CPU.
///
/// # Panics
/// When the lengths do not belong together, or `group` is none of [`GROUPS`].
pub fn widen_i4(cpu: Cpu, packed: &[u8], multipliers: &[u8], group: usize, panel: &mut [i8]) {
    assert_eq!(packed.len() * 2, panel.len(), "two steps a byte");
    assert_eq!(
        multipliers.len(),
        panel.len().div_ceil(group * PANEL) * PANEL,
        "a multiplier a column of each group"
    );
    assert!(GROUPS.contains(&group), "a group has 8, 16 or 32 inputs");
    #[inline(always)]
    fn body(packed: &[u8], multipliers: &[u8], group: usize, panel: &mut [i8]) {
        let blocks = packed.chunks(VALUES / 2).zip(panel.chunks_mut(VALUES));
        // A power of two of quads has the same factors.
        let same = (group * PANEL / QUAD).trailing_zeros();
        for ((packed, values), multipliers) in
            blocks.zip(multipliers.chunks(TOGETHER / group * PANEL))
        {
            // Of each value of a quad's row: four steps of k lie together.
            let mut factors = [[0_i16; QUAD]; TOGETHER / GROUPS[0]];
            for (factors, multipliers) in factors.iter_mut().zip(multipliers.chunks_exact(PANEL)) {
                for (factors, &multiplier) in factors.chunks_exact_mut(4).zip(multipliers) {
                    factors.fill(multiplier.into());
                }
            }
            let (low, high) = values.split_at_mut(packed.len());
            // Each half is whole quarters of a row of factors, which begin at a whole or a half one.
            let half = |start: usize, shift: u8, out: &mut [i8]| {
                let pieces = out.chunks_exact_mut(64).zip(packed.chunks_exact(64)).enumerate();
                for (place, (out, packed)) in pieces {
                    let at = start + place * 64;
                    let factors = &factors[(at / QUAD) >> same][at % QUAD..][..64];
                    for ((out, &byte), &factor) in out.iter_mut().zip(packed).zip(factors) {
                        *out = ((i16::from(byte >> shift & 15) - 8) * factor) as i8;
                    }
                }
            };
            half(0, 0, low);
            half(packed.len(), 4, high);
        }
    }
    per_cpu!(cpu, body(packed: &[u8], multipliers: &[u8], group: usize, panel: &mut [i8]))
}

/// `values` rounded to f16 (IEEE 754: to nearest, ties to even), as bits; what is beyond its range is infinite.
pub fn to_f16(values: &[f32]) -> Vec<u16> {
    values.iter().map(|&value| half_of(value)).collect()
}

fn half_of(value: f32) -> u16 {
    let (sign, magnitude) = ((value.to_bits() >> 16 & 0x8000) as u16, value.abs());
    if magnitude.is_nan() {
        return sign | 0x7e00;
    }
    // 65,520 is half-way between the largest f16 and the next power of two.
    if magnitude >= 65_520.0 {
        return sign | 0x7c00;
    }
    // Steps of f16 at this magnitude, 2^-24 below the least normal one.
    let exponent = ((magnitude.to_bits() >> 23) as i32 - 127).max(-14);
    let steps = (magnitude * 2.0_f32.powi(10 - exponent)).round_ties_even() as u16;
    // 1,024 of them are implied where the exponent is above the least; a carry raises the exponent.
    sign | ((((exponent + 14) as u16) << 10) + steps)
}

/// f32 from the bits of f16, exact; NaN and infinities stay what they are.
///
/// # Panics
/// When the lengths differ.
pub fn widen_f16(cpu: Cpu, halves: &[u16], out: &mut [f32]) {
    assert_eq!(halves.len(), out.len(), "a float for each half");
    #[inline(always)]
    fn body(halves: &[u16], out: &mut [f32]) {
        // The bits in place, the exponent is 112 too low: a product puts it right, also for subnormals.
        let bias = f32::from_bits((254 - 15) << 23);
        for (out, &half) in out.iter_mut().zip(halves) {
            let (sign, rest) = (u32::from(half & 0x8000) << 16, u32::from(half & 0x7fff));
            let finite = (f32::from_bits(rest << 13) * bias).to_bits();
            let special = 0x7f80_0000 | rest << 13;
            let bits = if rest >= 0x7c00 { special } else { finite };
            *out = f32::from_bits(sign | bits);
        }
    }
    per_cpu!(cpu, body(halves: &[u16], out: &mut [f32]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(k: usize, n: usize) -> Vec<f32> {
        let mut state = 9_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        // Groups of different size in one column.
        (0..k * n).map(|place| next() * (1 + place / n / 8 % 3) as f32).collect()
    }

    #[test]
    fn every_panel_widens_to_the_steps_times_their_multipliers() {
        let shapes = [(1, 1), (4, 32), (32, 33), (36, 5), (44, 64), (96, 40), (129, 31)];
        for ((k, n), group) in shapes.into_iter().flat_map(|it| GROUPS.map(|group| (it, group))) {
            let groups = quantize_groups(&weights(k, n), k, n, group);
            let (packed, multipliers) = pack_groups(&groups, k, n);
            let expected = super::super::pack_i8(&widened_steps(&groups, n), k, n).unwrap();
            let length = quantized_width(k) * PANEL;
            let of_groups = k.div_ceil(group) * PANEL;
            for cpu in Cpu::available() {
                let mut panels = vec![99; expected.len()];
                for (index, panel) in panels.chunks_exact_mut(length).enumerate() {
                    let packed = &packed[index * length / 2..][..length / 2];
                    let multipliers = &multipliers[index * of_groups..][..of_groups];
                    widen_i4(cpu, packed, multipliers, group, panel);
                }
                assert_eq!(panels, expected, "{k}x{n} by {group} on {cpu}");
            }
        }
    }

    #[test]
    fn a_group_is_never_farther_off_than_half_a_step_of_its_own_range_and_often_nearer() {
        let (k, n, group) = (96, 8, 32);
        let weights = weights(k, n);
        let groups = quantize_groups(&weights, k, n, group);
        let wide = widened_steps(&groups, n);
        for column in 0..n {
            for first in (0..k).step_by(group) {
                let rows = first..first + group;
                let of = |row: usize| weights[row * n + column];
                let largest = rows.clone().map(|row| of(row).abs()).fold(0.0, f32::max);
                let moved = |row: usize| {
                    of(row) - f32::from(wide[row * n + column]) * groups.scales[column]
                };
                let squares: f32 = rows.map(|row| moved(row).powi(2)).sum();
                // A step is a seventh of the largest, rounded up to the next multiplier.
                let step = largest / 7.0 + groups.scales[column];
                assert!(squares <= group as f32 * step * step / 4.0, "{column}, {first}");
            }
        }
        let largest = weights.iter().fold(0.0_f32, |most, weight| most.max(weight.abs()));
        assert!(groups.scales.iter().all(|&scale| scale <= largest / 126.0 * 1.0001));
        // Smaller groups are never worse: each may take the multiplier of the larger one.
        let error = |group: usize| -> f64 {
            let groups = quantize_groups(&weights, k, n, group);
            let wide = widened_steps(&groups, n);
            let moved = |(place, &weight): (usize, &f32)| {
                f64::from(weight - f32::from(wide[place]) * groups.scales[place % n]).powi(2)
            };
            weights.iter().enumerate().map(moved).sum()
        };
        assert!(error(8) < error(16) && error(16) < error(32));
    }

    #[test]
    fn zeros_stay_zeros_and_a_number_that_is_none_becomes_zero() {
        let groups = quantize_groups(&[0.0, f32::NAN, 0.0, 7.0], 2, 2, 32);
        assert_eq!(groups.steps[..3], [0, 0, 0]);
        assert_eq!(f32::from(widened_steps(&groups, 2)[3]) * groups.scales[1], 7.0);
    }

    #[test]
    fn halves_are_those_of_the_standard() {
        // From the tables of IEEE 754: one, the largest, the least normal, the least subnormal, ties.
        let cases: [(f32, u16); 12] = [
            (0.0, 0),
            (-0.0, 0x8000),
            (1.0, 0x3c00),
            (-2.0, 0xc000),
            (65_504.0, 0x7bff),
            (65_520.0, 0x7c00),
            (6.103_515_6e-5, 0x0400),
            (5.960_464_5e-8, 0x0001),
            (2.980_232_2e-8, 0x0000),
            (1.0 + 1.0 / 2048.0, 0x3c00),
            (1.0 + 3.0 / 2048.0, 0x3c02),
            (f32::INFINITY, 0x7c00),
        ];
        for (value, bits) in cases {
            assert_eq!(half_of(value), bits, "{value:e}");
        }
        let all: Vec<u16> = (0..=u16::MAX).collect();
        let mut floats = vec![0.0; all.len()];
        for cpu in Cpu::available() {
            widen_f16(cpu, &all, &mut floats);
            for (&half, &value) in all.iter().zip(&floats) {
                let nan = half & 0x7fff > 0x7c00;
                assert!(if nan { value.is_nan() } else { half_of(value) == half }, "{half:04x}");
            }
        }
    }
}
