//! The learning rate of every step.

/// The rate of step `step` of `steps`, counted from 0: a linear rise to `peak` over the first
/// `warmup` share of the steps, then half a cosine down to zero (Loshchilov and Hutter 2017).
pub(crate) fn learning_rate(step: usize, steps: usize, warmup: f64, peak: f64) -> f64 {
    let rise = (steps as f64 * warmup).ceil();
    let step = step as f64;
    if step < rise {
        return peak * (step + 1.0) / rise;
    }
    let share = (step - rise) / (steps as f64 - rise).max(1.0);
    peak * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_then_falls() {
        let rates: Vec<f64> = (0..10).map(|step| learning_rate(step, 10, 0.2, 1.0)).collect();
        let eighth = std::f64::consts::PI / 8.0;
        let fall = |n: f64| 0.5 * (1.0 + (n * eighth).cos());
        let expected: Vec<f64> =
            [0.5, 1.0].into_iter().chain((0..8).map(|n| fall(n.into()))).collect();
        for (step, (rate, expected)) in rates.iter().zip(&expected).enumerate() {
            assert!((rate - expected).abs() < 1e-12, "step {step}: {rate}, expected {expected}");
        }
    }

    #[test]
    fn without_warm_up_it_starts_at_the_peak() {
        assert_eq!(learning_rate(0, 5, 0.0, 0.1), 0.1);
    }
}
