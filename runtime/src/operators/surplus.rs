//! What int8 costs where it saves least, on a core that multiplies bytes without a dot product: instructions of a layer that
//! f32 would not take, less than none where there are fewer.
//!
//! They are the instructions of our kernels on an emulated Cortex-A53, counted for 170 shapes of linear layers, 300 of dense
//! convolutions and 80 of depthwise ones (docs/boards.md): of convolutions the formula is off by 2 % of what f32 takes
//! (root mean square), by a tenth at most.

use super::Element;
use super::grid::{Conv, Weights};
use crate::kernels::PANEL;

/// What a number takes to be rounded in a range that is known, and to find its range where it is not.
const ROUND: f64 = 2.2;
const RANGE: f64 = 0.9;

/// A linear layer of `k` inputs and `n` outputs, for each row of sixteen or more.
///
/// A row costs 1300 fifteenths of an instruction to round and each of its numbers 40; a sum costs 16 to become a float, and 10
/// for each quad of inputs that has no pair of pairs; a product saves one.
pub(crate) fn of_row(k: usize, n: usize) -> i64 {
    let (sums, single_quads) = (n.next_multiple_of(PANEL), k.div_ceil(4) % 4);
    let fifteenths = 1300 + 40 * k + (16 + 10 * single_quads) * sums;
    (fifteenths as i64 - (k * sums) as i64).div_euclid(15)
}

/// A convolution of an image of `read` numbers that lie as `element` says to one of `written`.
pub(super) fn of_conv(conv: &Conv, (read, element): (usize, Element), written: usize) -> i64 {
    let rounds = match (conv.int8, element) {
        (None, _) | (_, Element::U8) => 0.0,
        (Some(int8), Element::F32) => ROUND + if int8.x.is_some() { 0.0 } else { RANGE },
    };
    let sums = match conv.int8 {
        Some(_) => of_sums(conv, written),
        None => 0.0,
    };
    let rounded = match (conv.y, conv.weights) {
        (None, _) => 0.0,
        (Some(_), Weights::Dense { .. }) => ROUND,
        (Some(_), Weights::Depthwise(_)) => 3.0,
    };
    (sums + rounds * read as f64 + rounded * written as f64) as i64
}

/// Products, and what makes floats of them.
fn of_sums(conv: &Conv, written: usize) -> f64 {
    match conv.weights {
        Weights::Depthwise(_) => 1.3 * written as f64,
        Weights::Dense { groups, .. } => {
            let columns = conv.n / groups;
            of_dense(written / columns, conv.terms(), columns, conv.gathers())
        }
    }
}

/// Sums of `terms` products for some columns at some places. A sum takes 3.3 more to become a float, a product an eleventh of
/// an instruction less, and bytes are gathered faster than floats.
fn of_dense(places: usize, terms: usize, columns: usize, gathers: bool) -> f64 {
    // Eight columns at a time are worked on.
    let sums = (places * columns.next_multiple_of(8)) as f64;
    let gathered = if gathers { (places * terms) as f64 } else { 0.0 };
    3.3 * sums - 0.091 * sums * terms as f64 - 0.41 * gathered
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Channels, outputs, taps, places, and the instructions of f32 and of int8 with u8 read and f32 written.
    const COUNTED: [(usize, usize, usize, usize, f64, f64); 16] = [
        (4, 96, 1, 140, 74_272.0, 111_424.0),
        (12, 64, 1, 140, 73_992.0, 95_224.0),
        (20, 40, 1, 140, 69_272.0, 78_144.0),
        (32, 32, 1, 140, 67_120.0, 66_640.0),
        (48, 24, 1, 140, 71_424.0, 65_080.0),
        (96, 16, 1, 140, 84_576.0, 72_416.0),
        (200, 8, 1, 140, 84_208.0, 68_920.0),
        (1, 8, 9, 400, 136_656.0, 139_864.0),
        (1, 64, 9, 100, 75_040.0, 93_096.0),
        (3, 48, 25, 400, 820_976.0, 746_448.0),
        (4, 48, 9, 400, 435_416.0, 424_928.0),
        (8, 32, 9, 100, 122_104.0, 107_304.0),
        (10, 24, 25, 400, 1_167_864.0, 934_608.0),
        (16, 24, 9, 400, 652_456.0, 530_928.0),
        (24, 24, 9, 100, 232_096.0, 184_392.0),
        (32, 64, 9, 400, 2_808_184.0, 2_174_896.0),
    ];

    #[test]
    fn layers_that_were_counted_take_what_is_predicted() {
        for (channels, n, taps, places, f32, int8) in COUNTED {
            let predicted = f32 + of_dense(places, channels * taps, n, taps > 1);
            // Of what f32 takes: the farthest off of all that were counted.
            let off = (predicted - int8).abs() / f32;
            assert!(off < 0.12, "{channels} x {taps} to {n}: {predicted} of {int8}");
        }
    }

    #[test]
    fn many_channels_gain_and_few_lose() {
        for (channels, n, taps, gains) in
            [(8, 8, 1, false), (16, 96, 1, false), (64, 64, 1, true), (16, 32, 9, true)]
        {
            assert_eq!(of_dense(1000, channels * taps, n, taps > 1) < 0.0, gains, "{channels} {n}");
        }
    }
}
