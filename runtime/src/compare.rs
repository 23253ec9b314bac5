//! Two forms of one model - the ONNX file, its bundle in f32, its bundle in int8 - value by value: where
//! they part, and by how much.

use std::collections::BTreeSet;
use std::path::Path;

use crate::bundle::{Bundle, Parts};
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueSpec};
use crate::prepare;
use crate::quantize::Precision;
use crate::samples::Samples;
use crate::session::{Options, Session};
use crate::shapes::Shapes;
use crate::tensor::{DType, Tensor};

/// Inputs that are compared at most.
const MOST_SAMPLES: usize = 1000;

/// How two models differ on the same inputs.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Comparison {
    /// Inputs that both ran on.
    pub samples: usize,
    /// What both graphs output.
    pub outputs: Vec<Difference>,
    /// What nodes of both graphs write under the same name, in the order of the first graph.
    pub layers: Vec<Difference>,
}

/// How one value differs, over all samples.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Difference {
    /// The value's name.
    pub value: String,
    /// Largest difference of two elements.
    pub worst: f64,
    /// Mean difference of two elements.
    pub mean: f64,
    /// Power of the first model's values over the power of the differences, in dB; `None` where there
    /// are no differences.
    pub signal_to_noise_db: Option<f64>,
    /// Mean cosine between the two, a sample at a time.
    pub cosine: f64,
    /// Share of the rows of the last axis whose largest element is the same one.
    pub top1: f64,
    /// Share of them where the first model's largest is among the second's five largest.
    pub top5: f64,
}

/// Runs the models at `first` and `second` on `samples` and compares every f32 value that both name.
///
/// # Errors
/// Those of reading either file; [`Error::Input`] where they do not take the same inputs;
/// [`Error::Missing`] where texts are given and neither has a tokenizer; those of running.
pub fn compare(first: &Path, second: &Path, samples: &Samples) -> Result<Comparison> {
    let models = [Model::read(first)?, Model::read(second)?];
    let [a, b] = &models;
    if names(&a.graph.inputs) != names(&b.graph.inputs) {
        let list = |model: &Model| names(&model.graph.inputs).join(", ");
        return Err(Error::Input {
            name: second.display().to_string(),
            expected: format!("the inputs of `{}`: {}", first.display(), list(a)),
            got: list(b),
        });
    }
    let written: BTreeSet<&str> = b.graph.nodes.iter().map(|node| node.output()).collect();
    let outputs: Vec<String> = names(&a.graph.outputs);
    let outputs: Vec<String> =
        outputs.into_iter().filter(|name| names(&b.graph.outputs).contains(name)).collect();
    let layers = a.graph.nodes.iter().map(|node| node.output().to_owned());
    let layers = layers.filter(|name| written.contains(&**name) && !outputs.contains(name));
    let values: Vec<String> = outputs.iter().cloned().chain(layers).collect();
    let tokenizer = a.tokenizer.as_ref().or(b.tokenizer.as_ref());
    // A bundle says what it was planned for; an ONNX file does not.
    let planned = if b.is_bundle { b } else { a };
    let open = |model: &Model| model.open(&values, tokenizer, planned);
    let [a, b] = [open(a)?, open(b)?];
    // Where tract takes part, inputs are padded to a planned length, which our kernels take too.
    let padding = if a.executor() == "kernels" { &b } else { &a };
    let inputs = samples.inputs(padding, MOST_SAMPLES)?;
    let mut sums: Vec<Sums> = vec![Sums::default(); values.len()];
    for input in &inputs {
        for (sums, ((_, a), (_, b))) in sums.iter_mut().zip(a.run(input)?.iter().zip(b.run(input)?))
        {
            sums.add(a, &b);
        }
    }
    let compared = values.into_iter().zip(sums).filter(|(_, sums)| sums.elements > 0);
    let (outputs, layers) = compared
        .map(|(name, sums)| sums.difference(name))
        .partition(|difference| outputs.contains(&difference.value));
    Ok(Comparison { samples: inputs.len(), outputs, layers })
}

fn names(values: &[ValueSpec]) -> Vec<String> {
    values.iter().map(|value| value.name.clone()).collect()
}

/// A graph with its constants, as it is stored, and what texts need.
struct Model {
    graph: Graph,
    precision: Precision,
    tokenizer: Option<Vec<u8>>,
    sequences: Vec<usize>,
    shapes: Vec<Shapes>,
    is_bundle: bool,
}

impl Model {
    fn read(path: &Path) -> Result<Model> {
        if !Bundle::is_bundle(path)? {
            let graph = prepare::read(path)?;
            let precision = Precision::F32;
            let optimized = prepare::prepare(&graph, precision)?;
            let sequences = prepare::reachable_sequences(&optimized.graph, None)?;
            let (tokenizer, shapes) = (None, Vec::new());
            return Ok(Model { graph, precision, tokenizer, sequences, shapes, is_bundle: false });
        }
        let bundle = Bundle::open(path)?;
        let manifest = bundle.manifest();
        let tensors = manifest.tensors.iter();
        let tensors = tensors.map(|entry| Ok((entry.name.clone(), bundle.tensor(entry)?)));
        Ok(Model {
            graph: Graph { initializers: tensors.collect::<Result<_>>()?, ..bundle.graph()? },
            precision: manifest.precision,
            tokenizer: bundle.tokenizer().map(|section| section.to_vec()),
            sequences: manifest.sequences.clone(),
            shapes: manifest.shapes.clone(),
            is_bundle: true,
        })
    }

    /// A session whose outputs are `values`, for the shapes of `planned`.
    fn open(
        &self,
        values: &[String],
        tokenizer: Option<&Vec<u8>>,
        planned: &Model,
    ) -> Result<Session> {
        let outputs = values.iter().map(|name| ValueSpec::new(name, DType::F32, &[])).collect();
        let graph = Graph { outputs, ..self.graph.clone() };
        let bundle = Bundle::from_parts(&Parts {
            sequences: &planned.sequences,
            shapes: &planned.shapes,
            tokenizer: tokenizer.map(Vec::as_slice),
            ..Parts::of(&graph, self.precision)
        })?;
        Session::from_bundle(bundle, &Options::default())
    }
}

/// What is added up over samples.
#[derive(Clone, Default)]
struct Sums {
    elements: usize,
    worst: f64,
    total: f64,
    signal: f64,
    noise: f64,
    samples: usize,
    cosines: f64,
    rows: usize,
    top1: usize,
    top5: usize,
}

impl Sums {
    /// Adds one sample. Values of other types than f32, and of different extents, are passed over.
    fn add(&mut self, a: &Tensor, b: &Tensor) {
        let (Some(first), Some(second)) = (a.to_f32(), b.to_f32()) else { return };
        if first.len() != second.len() || first.is_empty() {
            return;
        }
        self.samples += 1;
        self.elements += first.len();
        let (mut dot, mut powers) = (0.0, [0.0; 2]);
        for (&a, &b) in first.iter().zip(&second) {
            let (a, b) = (f64::from(a), f64::from(b));
            let difference = if a == b { 0.0 } else { (a - b).abs() };
            // Written so that a NaN is the worst, and stays it.
            let holds = self.worst >= difference || self.worst.is_nan();
            self.worst = if holds { self.worst } else { difference };
            self.total += difference;
            self.signal += a * a;
            self.noise += difference * difference;
            dot += a * b;
            powers = [powers[0] + a * a, powers[1] + b * b];
        }
        let norms = (powers[0] * powers[1]).sqrt();
        self.cosines +=
            if norms > 0.0 { dot / norms } else { f64::from(u8::from(powers[0] == powers[1])) };
        let width = a.shape().last().copied().unwrap_or(1);
        for (a, b) in first.chunks_exact(width).zip(second.chunks_exact(width)) {
            let best =
                (0..width).max_by(|&i, &j| a[i].total_cmp(&a[j]).then(j.cmp(&i))).unwrap_or(0);
            let better = b.iter().enumerate().filter(|&(place, value)| {
                value.total_cmp(&b[best]).is_gt() || (*value == b[best] && place < best)
            });
            let rank = better.count();
            self.rows += 1;
            self.top1 += usize::from(rank == 0);
            self.top5 += usize::from(rank < 5);
        }
    }

    fn difference(self, value: String) -> Difference {
        let share = |part: usize| part as f64 / self.rows.max(1) as f64;
        Difference {
            value,
            worst: self.worst,
            mean: self.total / self.elements as f64,
            signal_to_noise_db: (self.noise > 0.0)
                .then(|| 10.0 * (self.signal.max(f64::MIN_POSITIVE) / self.noise).log10()),
            cosine: self.cosines / self.samples as f64,
            top1: share(self.top1),
            top5: share(self.top5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_agree_with_paper_and_pencil() {
        let mut sums = Sums::default();
        let tensor = |values: &[f32]| Tensor::from_f32(&[2, 2], values);
        sums.add(&tensor(&[3.0, 4.0, 1.0, 0.0]), &tensor(&[3.0, 2.0, 1.0, 0.0]));
        let found = sums.difference("y".to_owned());
        assert_eq!((found.worst, found.mean), (2.0, 0.5));
        // Power 9 + 16 + 1 over 4; dot 9 + 8 + 1 over the root of 26 · 14.
        assert!((found.signal_to_noise_db.unwrap() - 10.0 * 6.5_f64.log10()).abs() < 1e-9);
        assert!((found.cosine - 18.0 / 364.0_f64.sqrt()).abs() < 1e-9);
        assert_eq!((found.top1, found.top5), (0.5, 1.0));
    }

    #[test]
    fn a_nan_is_the_worst_difference() {
        let mut sums = Sums::default();
        sums.add(&Tensor::from_f32(&[2], &[1.0, 1.0]), &Tensor::from_f32(&[2], &[f32::NAN, 1.0]));
        assert!(sums.difference("y".to_owned()).worst.is_nan());
    }
}
