//! What the activations of a model are on given inputs, to the range that each is rounded in: u8 with one
//! scale and zero point a tensor, known before the model runs; and to the rounding of the weights that meet them.

mod entropy;
mod equalize;
mod fit;
mod histogram;
mod patches;
mod percentile;
mod rounding;
mod squares;

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::graph::{Graph, ValueSpec};
use crate::kernels::RowScale;
use crate::quantize;
use crate::samples::Samples;
use crate::session::Session;
use crate::tensor::{DType, Tensor};

pub(crate) use equalize::equalize;
pub(crate) use fit::{Fit, Fitted, fit};
pub use histogram::Histogram;

/// Inputs that are looked at: ranges of activations stand still after a few hundred.
pub const MOST_SAMPLES: usize = 512;

/// The share of the activations that [`Calibration::Percentile`] keeps.
pub const PERCENTILE: f64 = 0.9999;

/// Ranges by the names of the values that are rounded in them.
pub type Ranges = BTreeMap<String, RowScale>;

/// How a range is chosen from the numbers that were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Calibration {
    /// From the least to the largest.
    MinMax,
    /// All but one in ten thousand, half of them at either end.
    Percentile,
    /// The cut whose steps keep most of the distribution (Kullback and Leibler).
    Entropy,
    /// The cut with the least mean square of what rounding moves.
    Mse,
}

impl Calibration {
    const ALL: [Calibration; 4] =
        [Calibration::MinMax, Calibration::Percentile, Calibration::Entropy, Calibration::Mse];

    /// The name that flags and reports use.
    pub fn name(self) -> &'static str {
        match self {
            Calibration::MinMax => "min-max",
            Calibration::Percentile => "percentile",
            Calibration::Entropy => "entropy",
            Calibration::Mse => "mse",
        }
    }

    /// The range of the numbers of `histogram`: it holds zero, and what lies outside will be cut.
    pub fn range(self, histogram: &Histogram) -> RowScale {
        let (least, most) = match self {
            Calibration::MinMax => histogram.extremes(),
            Calibration::Percentile => percentile::range(histogram, PERCENTILE),
            Calibration::Entropy => entropy::range(histogram),
            Calibration::Mse => squares::range(histogram),
        };
        RowScale::spanning(least, most)
    }
}

impl std::fmt::Display for Calibration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Calibration {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Calibration, String> {
        let found = Calibration::ALL.into_iter().find(|calibration| calibration.name() == text);
        let names = Calibration::ALL.map(Calibration::name).join("`, `");
        found.ok_or_else(|| format!("`{text}` is no calibration; choose one of `{names}`"))
    }
}

/// An optimized graph that gives the activations to calibrate: what its nodes with a static form read.
/// Those that are inputs of the graph already need not be given.
pub(crate) fn observed(graph: &Graph) -> Graph {
    let given = |name: &str| graph.inputs.iter().any(|input| input.name == name);
    let names: BTreeSet<&str> = quantize::rounded_values(graph).filter(|it| !given(it)).collect();
    let mut observed = graph.clone();
    observed.outputs =
        names.into_iter().map(|name| ValueSpec::new(name, DType::F32, &[])).collect();
    if observed.outputs.is_empty() {
        // A graph has outputs; the model's own are looked at in vain.
        observed.outputs.clone_from(&graph.outputs);
    }
    observed
}

/// What `session`, which runs the [`observed`] graph in f32, computes on at most [`MOST_SAMPLES`] of
/// `samples`, as ranges; and on how many.
///
/// # Errors
/// [`Error::Missing`] where there is no sample; those of running the model.
pub(crate) fn ranges(
    session: &Session,
    samples: &Samples,
    calibration: Calibration,
) -> Result<(Ranges, usize)> {
    let mut histograms: BTreeMap<String, Histogram> = BTreeMap::new();
    let mut see = |name: &str, tensor: &Tensor| {
        if let Some(values) = tensor.to_f32() {
            histograms.entry(name.to_owned()).or_default().add(&values);
        }
    };
    let inputs = samples.inputs(session, MOST_SAMPLES)?;
    if inputs.is_empty() {
        return Err(Error::Missing {
            what: "example to calibrate on",
            next: "give `--calibrate` a file with at least one",
        });
    }
    for input in &inputs {
        input.iter().for_each(|(name, tensor)| see(name, tensor));
        session.run(input)?.iter().for_each(|(name, tensor)| see(name, tensor));
    }
    let range = |(name, histogram)| (name, calibration.range(&histogram));
    Ok((histograms.into_iter().map(range).collect(), inputs.len()))
}

/// Cuts to try, in bins from zero: hundredths of what the numbers reach, the widest first.
fn thresholds(histogram: &Histogram) -> impl Iterator<Item = usize> {
    let reach = histogram.reach();
    (5..=100).rev().map(move |percent| (reach * percent).div_ceil(100))
}

/// The extremes, cut at `reach` bins from zero.
fn cut(histogram: &Histogram, reach: usize) -> (f32, f32) {
    let (least, most) = histogram.extremes();
    let bound = reach as f32 * histogram.width();
    (least.max(-bound), most.min(bound))
}

/// The cut that costs least; the widest of equals.
fn best(
    histogram: &Histogram,
    thresholds: impl Iterator<Item = usize>,
    cost: impl Fn(usize) -> f64,
) -> (f32, f32) {
    if histogram.extremes() == (0.0, 0.0) {
        return (0.0, 0.0);
    }
    let mut best = (f64::INFINITY, histogram.reach());
    for reach in thresholds {
        let cost = cost(reach);
        if cost < best.0 {
            best = (cost, reach);
        }
    }
    cut(histogram, best.1)
}

/// Numbers for the tests of the calibrations.
#[cfg(test)]
mod by_hand {
    /// Numbers of the normal distribution, evenly spread over its quantiles (by the logistic
    /// approximation of the quantile function, which is right to one part in a hundred).
    pub(super) fn bell(count: usize, deviation: f32) -> Vec<f32> {
        let quantile = |place: usize| {
            let share = (place as f32 + 0.5) / count as f32;
            deviation * (share / (1.0 - share)).ln() / 1.702
        };
        (0..count).map(quantile).collect()
    }

    /// Numbers evenly spread over ±`reach`.
    pub(super) fn uniform(count: usize, reach: f32) -> Vec<f32> {
        (0..count).map(|place| reach * (2.0 * (place as f32 + 0.5) / count as f32 - 1.0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn min_max_keeps_the_extremes_and_holds_zero() {
        let mut histogram = Histogram::default();
        histogram.add(&[1.0, 2.55]);
        let range = Calibration::MinMax.range(&histogram);
        assert_eq!(range, RowScale { scale: 2.55 / 255.0, zero_point: 0 });
        histogram.add(&[-2.55]);
        let range = Calibration::MinMax.range(&histogram);
        // 127.5 steps on either side: the half goes to the even zero point.
        assert_eq!(range, RowScale { scale: 0.02, zero_point: 128 });
    }

    #[test]
    fn every_calibration_stays_within_the_extremes_and_takes_zeros() {
        let cases: [&[f32]; 6] =
            [&[], &[0.0; 10], &[5.0], &[-5.0; 3], &[1e-30, -1e30], &[f32::NAN, 1.0]];
        for numbers in cases {
            let mut histogram = Histogram::default();
            histogram.add(numbers);
            let (least, most) = histogram.extremes();
            for calibration in Calibration::ALL {
                let RowScale { scale, zero_point } = calibration.range(&histogram);
                let reached = |steps: f32| (steps - f32::from(zero_point)) * scale;
                // Rounding the zero point shifts both ends by half a step at most.
                let tolerance = scale * 0.51;
                let within =
                    reached(0.0) >= least - tolerance && reached(255.0) <= most + tolerance;
                let empty = least == most;
                assert!(scale > 0.0 && (within || empty), "{calibration} of {numbers:?}");
            }
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for calibration in Calibration::ALL {
            assert_eq!(calibration.name().parse(), Ok(calibration));
        }
        assert!("max".parse::<Calibration>().unwrap_err().contains("min-max"));
    }
}
