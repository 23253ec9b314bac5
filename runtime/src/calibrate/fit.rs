//! Layers whose weights are to be rounded, to the weights and biases with which they answer as they did, on inputs
//! that were seen: weights on their grid of int8 steps, chosen by [`super::rounding`], and a bias that takes up
//! what rounding weights and activations moves on average.
//!
//! A convolution with few taps on a bright background is wrong everywhere by the same amount where its weights do
//! not sum to what they did. PP-OCR's recognizer loses most of its answers so, in one layer of sixteen channels.
//!
//! Left as they are: lookups, and weights that lie on such a grid already.

use std::collections::BTreeMap;
use std::ops::Range;

use super::patches::Patches;
use super::{Ranges, rounding};
use crate::error::Result;
use crate::graph::{Graph, Node};
use crate::kernels::{
    Activation, Block, Cpu, Epilogue, PackedF32, RowScale, linear_f32, pack_f32, pad_columns,
};
use crate::optimize::marks;
use crate::samples::Samples;
use crate::session::Session;
use crate::tensor::Tensor;

/// Inputs that are looked at.
const SAMPLES: usize = 128;

/// Places of each that are looked at: four thousand rows in all tell how inputs go together.
const PLACES: usize = 32;

/// Bytes of rows that are held at one time; the model runs once more for what does not fit.
const MOST_BYTES: usize = 256 << 20;

/// Rows that are needed: means of fewer say more about these rows than about the model.
const LEAST_ROWS: usize = 64;

/// Weights of an output at most whose steps are chosen together: their covariance takes 64 MiB.
const MOST_TOGETHER: usize = 4096;

/// Share of the mean variance that is added to each: what few rows did not show may happen.
const RIDGE: f32 = 1e-3;

/// What takes the place of a layer's constants, by the values that layers write.
pub(crate) type Fitted = BTreeMap<String, Fit>;

/// Weights and biases of a layer, in the shapes of those that they take the place of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fit {
    pub(crate) weight: Tensor,
    /// With which the layer gives on average what it gave, where it reads exact numbers,
    pub(crate) bias: Tensor,
    /// and where those are rounded in the calibrated range, of which what the range cuts off is no part.
    pub(crate) bias_of_range: Tensor,
}

/// The layers of the optimized `graph` that write `names`, fitted to what `session`, which runs the
/// [`super::observed`] graph in f32, computes on the first of `samples`. Activations are rounded in `ranges`, where
/// those have one.
///
/// # Errors
/// Those of running the model, and of windows that do not read.
pub(crate) fn fit(
    graph: &Graph,
    names: &[String],
    session: &Session,
    samples: &Samples,
    ranges: &Ranges,
) -> Result<Fitted> {
    let mut layers = Vec::new();
    for node in &graph.nodes {
        let asked = names.iter().any(|name| name == node.output()) && !marks::is_quantized(node);
        if let Some(patches) = Patches::of(graph, node)?.filter(|it| asked && it.k > 0) {
            layers.push((node, patches));
        }
    }
    let inputs = samples.inputs(session, SAMPLES)?;
    let mut fitted = Fitted::new();
    while !layers.is_empty() {
        let mut bytes = 0;
        let fits = |(_, patches): &&(&Node, Patches)| {
            bytes += patches.width() * PLACES * inputs.len() * size_of::<f32>();
            bytes <= MOST_BYTES
        };
        let count = layers.iter().take_while(fits).count().max(1);
        let now: Vec<(&Node, Patches)> = layers.drain(..count).collect();
        let mut rows: Vec<Vec<f32>> = vec![Vec::new(); now.len()];
        for input in &inputs {
            let outputs: BTreeMap<String, Tensor> = session.run(input)?.into_iter().collect();
            for ((node, patches), rows) in now.iter().zip(&mut rows) {
                let value = node.input(0).unwrap_or_default();
                if let Some(tensor) = outputs.get(value).or_else(|| input.get(value)) {
                    patches.gather(tensor, PLACES, rows);
                }
            }
        }
        for ((node, patches), rows) in now.into_iter().zip(rows) {
            let range = ranges.get(node.input(0).unwrap_or_default()).copied();
            if let Some(fit) = layer(graph, node, patches, rows, range) {
                fitted.insert(node.output().to_owned(), fit);
            }
        }
    }
    Ok(fitted)
}

/// The constants of one layer that read `rows`; `None` where they are no finite floats.
fn layer(
    graph: &Graph,
    node: &Node,
    patches: Patches,
    mut rows: Vec<f32>,
    range: Option<RowScale>,
) -> Option<Fit> {
    let Patches { groups, k, n, .. } = patches;
    let tensor = graph.initializers.get(node.input(1)?)?;
    let mut weights = tensor.to_f32()?;
    let mut bias = match node.input(2) {
        Some(name) => graph.initializers.get(name)?.to_f32()?,
        None => vec![0.0; n],
    };
    let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
    let few = rows.len() < LEAST_ROWS * patches.width();
    if few || bias.len() != n || !finite(&weights) || !finite(&rows) {
        return None;
    }
    let width = patches.width();
    let exact = means(&rows, width);
    let (mut bias_of_range, mut within) = (bias.clone(), exact.clone());
    if let Some(range) = range {
        // What a range cuts off is far from the rest and seldom: a bias that took it up would move all rows for few.
        rows.iter_mut().for_each(|value| *value = cut(*value, range));
        within = means(&rows, width);
        rows.iter_mut().for_each(|value| *value = rounded(*value, range));
    }
    let seen = means(&rows, width);
    // ONNX stores the weights of an output of a convolution one after the other, those of a product apart.
    let conv = node.is_fused("Conv");
    let at = |output: usize, term: usize| if conv { output * k + term } else { term * n + output };
    for group in 0..groups {
        let own = group * k..(group + 1) * k;
        let [exact, within, seen] = [&exact, &within, &seen].map(|it| &it[own.clone()]);
        let covariance = (k <= MOST_TOGETHER).then(|| covariance(&rows, width, own, seen));
        for output in group * (n / groups)..(group + 1) * (n / groups) {
            let before: Vec<f32> = (0..k).map(|term| weights[at(output, term)]).collect();
            let after = rounding::round(&before, covariance.as_deref());
            let sum = |weights: &[f32], means: &[f32]| -> f64 {
                let terms = weights.iter().zip(means);
                terms.map(|(weight, mean)| f64::from(*weight) * f64::from(*mean)).sum()
            };
            let (was, is) = (sum(&before, exact), sum(&after, exact));
            bias_of_range[output] =
                bias[output] + (sum(&before, within) - sum(&after, seen)) as f32;
            bias[output] += (was - is) as f32;
            after.iter().enumerate().for_each(|(term, it)| weights[at(output, term)] = *it);
        }
    }
    let weight = Tensor::from_f32(tensor.shape(), &weights);
    let [bias, bias_of_range] = [bias, bias_of_range].map(|bias| Tensor::from_f32(&[n], &bias));
    Some(Fit { weight, bias, bias_of_range })
}

/// The number nearest to `value` of those that the range rounds, not cuts: half a step beyond its ends.
fn cut(value: f32, RowScale { scale, zero_point }: RowScale) -> f32 {
    let zero = f32::from(zero_point);
    value.clamp(-(zero + 0.5) * scale, (255.5 - zero) * scale)
}

/// What stands for `value` in u8 (ONNX: QuantizeLinear, DequantizeLinear).
fn rounded(value: f32, RowScale { scale, zero_point }: RowScale) -> f32 {
    let zero = f32::from(zero_point);
    let steps = ((value / scale).round_ties_even() + zero).clamp(0.0, 255.0);
    (steps - zero) * scale
}

/// The mean of each column of rows of `width`.
fn means(rows: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0.0_f64; width];
    for row in rows.chunks_exact(width) {
        sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
    }
    let count = (rows.len() / width).max(1) as f64;
    sums.into_iter().map(|sum| (sum / count) as f32).collect()
}

/// The covariance, and [`RIDGE`], of the columns `own` of rows of `width`, whose means are `means`:
/// `[k, k]`.
fn covariance(rows: &[f32], width: usize, own: Range<usize>, means: &[f32]) -> Vec<f32> {
    let (k, count) = (own.len(), rows.len() / width);
    let mut by_row = Vec::with_capacity(count * k);
    for row in rows.chunks_exact(width) {
        by_row.extend(row[own.clone()].iter().zip(means).map(|(value, mean)| value - mean));
    }
    let by_column: Vec<f32> =
        (0..k).flat_map(|column| by_row.iter().skip(column).step_by(k).copied()).collect();
    let (panels, bias) = (pack_f32(&by_row, count, k), pad_columns(&vec![0.0; k]));
    let packed = PackedF32::new(&panels, &bias, count, k).expect("rows of k numbers");
    let mut sums = vec![0.0; k * k];
    let epilogue = Epilogue { activation: Activation::None, residual: None };
    linear_f32(Cpu::detect(), &by_column, &packed, epilogue, Block::new(&mut sums, k));
    sums.iter_mut().for_each(|sum| *sum /= count as f32);
    let mean = (0..k).map(|place| sums[place * (k + 1)]).sum::<f32>() / k as f32;
    (0..k).for_each(|place| sums[place * (k + 1)] += RIDGE * mean);
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of two inputs, the second far from zero and hardly moving, as a bright background is.
    fn rows(count: usize) -> Vec<f32> {
        let row = |place: usize| {
            let wave = (place as f32 * 0.7).sin();
            [wave, 100.0 + 0.1 * wave + 0.01 * (place % 5) as f32]
        };
        (0..count).flat_map(row).collect()
    }

    fn fit_of(weights: &[f32], bias: Option<&[f32]>, range: Option<RowScale>) -> Option<Fit> {
        let inputs = if bias.is_some() { vec!["x", "w", "b"] } else { vec!["x", "w"] };
        let node = Node::fused("Linear", &inputs, &["y"]);
        let n = weights.len() / 2;
        let mut graph = Graph::default();
        graph.initializers.insert("w".to_owned(), Tensor::from_f32(&[2, n], weights));
        let bias = bias.map(|bias| ("b".to_owned(), Tensor::from_f32(&[n], bias)));
        graph.initializers.extend(bias);
        let patches = Patches::of(&graph, &node).unwrap().unwrap();
        layer(&graph, &node, patches, rows(200), range)
    }

    #[test]
    fn answers_stay_where_they_were_on_average() {
        // The second weight of each output lies between two of its 127 steps.
        let weights = [1.27, 2.54, 0.0051, -0.0103];
        for bias in [None, Some(&[3.0, -4.0][..])] {
            for range in [None, Some(RowScale::spanning(-1.0, 101.0))] {
                let fit = fit_of(&weights, bias, range).unwrap();
                let moved = if range.is_some() { &fit.bias_of_range } else { &fit.bias };
                let [after, moved] = [&fit.weight, moved].map(|it| it.to_f32().unwrap());
                let rows = rows(200);
                for output in 0..2 {
                    let mean = |weights: &[f32], round: &dyn Fn(f32) -> f32, bias: f32| {
                        let terms = rows.chunks_exact(2).map(|row| {
                            let sum = round(row[0]) * weights[output]
                                + round(row[1]) * weights[2 + output];
                            f64::from(sum)
                        });
                        terms.sum::<f64>() / 200.0 + f64::from(bias)
                    };
                    let before = bias.map_or(0.0, |bias| bias[output]);
                    let exact = mean(&weights, &|value| value, before);
                    let round = |value| range.map_or(value, |range| rounded(value, range));
                    let got = mean(&after, &round, moved[output]);
                    // Sums of two products in f32.
                    assert!((exact - got).abs() < 1e-4, "{bias:?}, {range:?}: {exact} {got}");
                    let scale = weights[output].abs() / 127.0;
                    let steps = after[2 + output] / scale;
                    assert!((steps - steps.round()).abs() < 1e-3, "{steps} steps of {scale}");
                }
            }
        }
    }

    #[test]
    fn what_a_range_cuts_off_moves_no_bias() {
        // The second input lies outside of the range, all of it: what is left are steps of 1/255.
        let fit = fit_of(&[1.27, 2.54], None, Some(RowScale::spanning(-1.0, 1.0))).unwrap();
        let moved = fit.bias_of_range.to_f32().unwrap()[0];
        assert!(moved.abs() < 0.02, "{moved}");
    }

    #[test]
    fn what_is_not_finite_or_was_not_seen_is_left_as_it_is() {
        assert_eq!(fit_of(&[1.0, f32::NAN], None, None), None);
        let node = Node::fused("Linear", &["x", "w"], &["y"]);
        let mut graph = Graph::default();
        graph.initializers.insert("w".to_owned(), Tensor::from_f32(&[2, 1], &[1.0, 2.0]));
        let patches = Patches::of(&graph, &node).unwrap().unwrap();
        assert_eq!(layer(&graph, &node, patches, Vec::new(), None), None);
    }
}
