//! MSE: the range whose rounding, and cutting, moves the numbers least, by the mean of the squares.

use super::{Histogram, thresholds};
use crate::kernels::RowScale;

/// The symmetric cut of the extremes with the least error.
pub(super) fn range(histogram: &Histogram) -> (f32, f32) {
    super::best(histogram, thresholds(histogram), |reach| error(histogram, reach))
}

/// The sum of the squares of what rounding moves, with a range cut at `reach` bins from zero.
fn error(histogram: &Histogram, reach: usize) -> f64 {
    let (least, most) = super::cut(histogram, reach);
    let RowScale { scale, zero_point } = RowScale::spanning(least, most);
    let (scale, zero_point) = (f64::from(scale), f64::from(zero_point));
    let half = f64::from(histogram.width()) / 2.0;
    let occupied = histogram.counts().iter().enumerate().filter(|(_, count)| **count > 0);
    let square = |(bin, &count): (usize, &u64)| {
        let number = f64::from(histogram.edge(bin)) + half;
        let steps = ((number / scale).round_ties_even() + zero_point).clamp(0.0, 255.0);
        let moved = number - (steps - zero_point) * scale;
        count as f64 * moved * moved
    };
    occupied.map(square).sum()
}

#[cfg(test)]
mod tests {
    use super::super::by_hand::{bell, uniform};
    use super::*;

    #[test]
    fn the_error_is_that_of_paper_and_pencil() {
        let mut histogram = Histogram::default();
        histogram.add(&[0.0, 255.5, 255.5]);
        let width = histogram.width();
        let cut_at = |number: f32| (number / width) as usize;
        // Cut to 0..127.5 the two large numbers move by 128 each; where in its bin a number lies, 1/16 wide,
        // is not known.
        let error = error(&histogram, cut_at(127.5));
        assert!((error / (2.0 * 128.0 * 128.0) - 1.0).abs() < 1e-2, "{error}");
    }

    #[test]
    fn a_few_outliers_are_cut_where_that_is_cheaper_and_only_there() {
        let mut histogram = Histogram::default();
        histogram.add(&bell(100_000, 1.0));
        histogram.add(&[9.0]);
        let (_, most) = range(&histogram);
        // Cutting to c moves the outlier by 9 - c; keeping it costs 100,000 · (18 / 255)² / 12 = 41.
        assert!((3.0..8.0).contains(&most), "{most}");
        histogram.add(&vec![9.0; 2000]);
        assert!(range(&histogram).1 > 8.5, "2,000 numbers are no outliers");
    }

    #[test]
    fn nothing_is_cut_from_numbers_that_are_equally_common() {
        let mut histogram = Histogram::default();
        histogram.add(&uniform(50_000, 3.0));
        let (least, most) = range(&histogram);
        assert!(least < -2.9 && most > 2.9, "{least} {most}");
    }
}
