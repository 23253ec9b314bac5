//! A column of weights to int8 steps, such that what the layer gives moves least on inputs that were seen.
//!
//! Rounding each weight to the nearest step is best only where inputs are independent and centred. Here the
//! steps minimize `(w - q)ᵀ C (w - q)`, `C` the covariance of the inputs, one weight after the other. The error
//! that stays on average goes into the bias.
//!
//! Sources: Nagel et al. 2020, "Up or Down? Adaptive Rounding"; Frantar et al. 2023, "GPTQ", for the quadratic
//! form; Nagel et al. 2019, "Data-Free Quantization", for the bias.

use crate::kernels::step_of_weights;

/// Passes over all weights of a column, at most: few weights move after the third.
const SWEEPS: usize = 8;

/// `column` on its grid of int8 steps, where `covariance`, `[k, k]` row by row, is that of its inputs; each
/// weight at its nearest step where it is not known.
pub(super) fn round(column: &[f32], covariance: Option<&[f32]>) -> Vec<f32> {
    let scale = step_of_weights(column.iter().copied());
    let exact: Vec<f32> = column.iter().map(|weight| weight / scale).collect();
    let mut steps: Vec<f32> = exact.iter().copied().map(nearest).collect();
    if let Some(covariance) = covariance {
        descend(&exact, &mut steps, covariance);
    }
    steps.iter().map(|steps| steps * scale).collect()
}

fn nearest(steps: f32) -> f32 {
    steps.round_ties_even().clamp(-127.0, 127.0)
}

/// Moves `steps`, one after the other, to where the error is least while the others stay.
fn descend(exact: &[f32], steps: &mut [f32], covariance: &[f32]) {
    let k = exact.len();
    // Half the slope of the error along each weight.
    let mut slopes = vec![0.0_f32; k];
    for (place, (exact, steps)) in exact.iter().zip(&*steps).enumerate() {
        add_scaled(&mut slopes, &covariance[place * k..][..k], exact - steps);
    }
    for _ in 0..SWEEPS {
        let mut moved = false;
        for place in 0..k {
            let row = &covariance[place * k..][..k];
            let step = slopes[place] / row[place];
            let to = nearest(steps[place] + step);
            // An input that never changed tells nothing.
            if row[place] > 0.0 && to != steps[place] {
                add_scaled(&mut slopes, row, steps[place] - to);
                steps[place] = to;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
}

fn add_scaled(sums: &mut [f32], row: &[f32], factor: f32) {
    for (sum, value) in sums.iter_mut().zip(row) {
        *sum += value * factor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(column: &[f32], rounded: &[f32], covariance: &[f32]) -> f64 {
        let k = column.len();
        let moved = |place: usize| f64::from(column[place]) - f64::from(rounded[place]);
        let term = |i: usize, j: usize| moved(i) * moved(j) * f64::from(covariance[i * k + j]);
        (0..k).flat_map(|i| (0..k).map(move |j| (i, j))).map(|(i, j)| term(i, j)).sum()
    }

    #[test]
    fn independent_inputs_leave_each_weight_at_its_nearest_step() {
        let column = [127.0, 0.4, -3.6, 2.5];
        let mut covariance = [0.0; 16];
        (0..4).for_each(|place| covariance[place * 5] = 1.0 + place as f32);
        assert_eq!(round(&column, Some(&covariance)), [127.0, 0.0, -4.0, 2.0]);
    }

    #[test]
    fn inputs_that_go_together_share_the_error() {
        // Two inputs that are one and the same: only the sum of their weights matters, 0.8 of a step.
        let column = [127.0, 0.4, 0.4];
        let covariance = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0];
        let rounded = round(&column, Some(&covariance));
        assert_eq!(rounded[1] + rounded[2], 1.0);
        assert_eq!(rounded[0], 127.0);
    }

    #[test]
    fn no_covariance_makes_it_worse_than_the_nearest_steps() {
        let mut state = 7_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        for k in [1_usize, 2, 5, 17, 40] {
            // Of fewer rows than inputs, so that some directions do not count at all.
            let rows: Vec<Vec<f32>> =
                (0..k.div_ceil(2)).map(|_| (0..k).map(|_| random()).collect()).collect();
            let entry =
                |place: usize| rows.iter().map(|row| row[place / k] * row[place % k]).sum::<f32>();
            let covariance: Vec<f32> = (0..k * k).map(entry).collect();
            let column: Vec<f32> = (0..k).map(|_| random()).collect();
            let scale = step_of_weights(column.iter().copied());
            let nearest = round(&column, None);
            let rounded = round(&column, Some(&covariance));
            // A quotient of two floats is right to a part in ten million.
            let on_grid = |it: &f32| {
                let steps = it / scale;
                steps.abs() <= 127.001 && (steps - steps.round()).abs() < 1e-3
            };
            assert!(rounded.iter().all(on_grid), "{k}: {rounded:?}");
            let [before, after] = [&nearest, &rounded].map(|it| error(&column, it, &covariance));
            assert!(after <= before * 1.0001 + 1e-9, "{k}: {before} -> {after}");
        }
        // All zeros: nothing is known, and nothing is moved.
        assert_eq!(round(&[127.0, 0.4], Some(&[0.0; 4])), [127.0, 0.0]);
    }
}
