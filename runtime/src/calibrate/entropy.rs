//! Entropy: the range whose 255 steps tell most about the numbers, by the divergence of Kullback and
//! Leibler between their distribution and its rounded form.
//!
//! Source: Migacz 2017, "8-bit inference with TensorRT". There the range is symmetric and has 128 steps;
//! here it begins at the least number where that is nearer, and has the steps that u8 has.

use super::{Histogram, thresholds};

/// Steps of u8.
const STEPS: usize = 255;

/// What a rounded bin that should hold something holds at least, as a share of all: no logarithm of zero.
const FLOOR: f64 = 1e-7;

/// The symmetric cut of the extremes with the least divergence.
pub(super) fn range(histogram: &Histogram) -> (f32, f32) {
    let divergence = |reach: usize| divergence(histogram, reach);
    super::best(histogram, thresholds(histogram), divergence)
}

/// What is lost by cutting at `reach` bins from zero and rounding to [`STEPS`] steps.
fn divergence(histogram: &Histogram, reach: usize) -> f64 {
    let bins = histogram.within(reach);
    let (counts, inside) = (histogram.counts(), &histogram.counts()[bins.clone()]);
    let total = histogram.len() as f64;
    // What is cut off falls on the outermost bins.
    let below: u64 = counts[..bins.start].iter().sum();
    let above: u64 = counts[bins.end..].iter().sum();
    let last = inside.len() - 1;
    let whole = |bin: usize| {
        let cut = if bin == 0 { below } else { 0 } + if bin == last { above } else { 0 };
        (inside[bin] + cut) as f64
    };
    let held: f64 = inside.iter().sum::<u64>() as f64;
    let mut divergence = 0.0;
    for step in 0..STEPS {
        let of_step = step * inside.len() / STEPS..(step + 1) * inside.len() / STEPS;
        let sum: u64 = inside[of_step.clone()].iter().sum();
        let occupied = of_step.clone().filter(|&bin| whole(bin) > 0.0).count().max(1);
        // A rounded number may have been in any bin of its step that holds one.
        let rounded = (sum as f64 / held.max(1.0) / occupied as f64).max(FLOOR);
        for share in of_step.map(|bin| whole(bin) / total).filter(|&share| share > 0.0) {
            divergence += share * (share / rounded).ln();
        }
    }
    divergence
}

#[cfg(test)]
mod tests {
    use super::super::by_hand::{bell, uniform};
    use super::*;

    #[test]
    fn an_outlier_is_worth_less_than_finer_steps() {
        let mut histogram = Histogram::default();
        histogram.add(&bell(20_000, 1.0));
        histogram.add(&[60.0]);
        let (least, most) = range(&histogram);
        assert!((-7.0..-1.5).contains(&least) && (1.5..20.0).contains(&most), "{least} {most}");
    }

    #[test]
    fn nothing_is_cut_from_numbers_that_are_equally_common() {
        let mut histogram = Histogram::default();
        histogram.add(&uniform(50_000, 8.0));
        let (least, most) = range(&histogram);
        assert!(least < -7.8 && most > 7.8, "{least} {most}");
    }

    #[test]
    fn the_rounded_form_of_one_number_a_step_is_the_numbers() {
        let mut histogram = Histogram::default();
        histogram.add(&[0.0, 1.0]);
        assert_eq!(divergence(&histogram, histogram.reach()), 0.0);
    }
}
