//! A session against labelled data, texts or tensors: accuracy and macro F1, or Spearman's rank
//! correlation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::decode::Prediction;
use crate::error::{Error, Result};
use crate::exits::Depth;
use crate::npy;
use crate::session::Session;
use crate::tensor::{DType, Tensor};

/// Labelled examples of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Examples {
    /// `text` and `label`.
    Labelled(Vec<(String, String)>),
    /// Tensors for a model with one input, and for each the index of its label.
    Tensors(Vec<(Tensor, usize)>),
    /// `sentence1`, `sentence2` and `score`.
    Pairs(Vec<(String, String, f32)>),
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Evaluation {
    /// On labelled texts or tensors.
    Classification {
        /// Share of examples whose likeliest label is the right one.
        accuracy: f64,
        /// Mean over the labels that occur of the harmonic mean of precision and recall.
        macro_f1: f64,
        /// How far it computed; `None` where it takes no early exits.
        depth: Option<MeanDepth>,
        /// Number of examples.
        examples: usize,
        /// Time for all of them.
        seconds: f64,
    },
    /// On scored pairs.
    Similarity {
        /// Rank correlation of cosine and score, equal values sharing their mean rank.
        spearman: f64,
        /// Number of pairs.
        examples: usize,
        /// Time for all of them.
        seconds: f64,
    },
}

/// How far a model with early exits computed, over all examples.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct MeanDepth {
    /// Mean of the exits that answered, counted from 1; the last layer counts as the one after all exits.
    pub mean_exit: f64,
    /// Multiply-accumulates that ran, as a share of those that run where no exit is taken.
    pub mean_compute: f64,
}

impl Evaluation {
    /// Accuracy or correlation, 0 to 1: what a gate compares.
    pub fn score(&self) -> f64 {
        match *self {
            Evaluation::Classification { accuracy, .. } => accuracy,
            Evaluation::Similarity { spearman, .. } => spearman,
        }
    }
}

impl Examples {
    /// Reads a tab-separated file whose first line names its columns: `text` and `label`, or
    /// `sentence1`, `sentence2` and `score`, in any order. Of `NAME.npy` every row is an example, and
    /// `NAME.labels.npy` beside it holds as many indices of labels, of type u8, i32 or i64.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] with the line that does not read.
    pub fn read(path: &Path) -> Result<Examples> {
        match path.extension().is_some_and(|extension| extension == "npy") {
            true => Examples::read_tensors(path),
            false => Examples::read_table(path),
        }
    }

    fn read_tensors(path: &Path) -> Result<Examples> {
        let (tensor, beside) = (npy::read(path)?, path.with_extension("labels.npy"));
        let indices = npy::read(&beside)?;
        let refuse = |path: &Path, expected: String, got: &Tensor| Error::Data {
            path: path.to_owned(),
            place: "shape".to_owned(),
            expected,
            got: format!("{got:?}"),
        };
        let rows = match tensor.shape() {
            [rows, _, ..] if !tensor.is_empty() => *rows,
            _ => return Err(refuse(path, "[examples, ...], and at least one".to_owned(), &tensor)),
        };
        let labels = whole(&indices).filter(|labels| labels.len() == rows);
        let labels = labels
            .ok_or_else(|| refuse(&beside, format!("[{rows}] of u8, i32 or i64"), &indices))?;
        let shape = [&[1], &tensor.shape()[1..]].concat();
        let row = |bytes: &[u8]| Tensor::from_bytes(tensor.dtype(), &shape, bytes.to_vec());
        let examples = tensor.bytes().chunks_exact(tensor.bytes().len() / rows).zip(labels);
        let examples = examples.map(|(bytes, label)| Ok((row(bytes)?, label)));
        Ok(Examples::Tensors(examples.collect::<Result<_>>()?))
    }

    fn read_table(path: &Path) -> Result<Examples> {
        let table = Table::read(path)?;
        let column = |name: &str| table.column(name);
        let columns = (
            column("text"),
            column("label"),
            column("sentence1"),
            column("sentence2"),
            column("score"),
        );
        let examples = match columns {
            (Some(text), Some(label), ..) => {
                let row = |row: &Row| (row.fields[text].clone(), row.fields[label].clone());
                Examples::Labelled(table.rows.iter().map(row).collect())
            }
            (_, _, Some(first), Some(second), Some(score)) => {
                let row = |Row { line, fields }: &Row| {
                    let value: f32 = fields[score].parse().map_err(|_| {
                        table.refuse(*line, "a number as score", &format!("`{}`", fields[score]))
                    })?;
                    Ok((fields[first].clone(), fields[second].clone(), value))
                };
                Examples::Pairs(table.rows.iter().map(row).collect::<Result<_>>()?)
            }
            _ => {
                let expected =
                    "the columns `text` and `label`, or `sentence1`, `sentence2` and `score`";
                return Err(table.refuse(0, expected, &format!("`{}`", table.header.join("`, `"))));
            }
        };
        match examples.len() {
            0 => Err(table.refuse(1, "at least one example", "none")),
            _ => Ok(examples),
        }
    }

    /// Whether the file at `path` says what is right: a `.npy` with labels beside it, or a table with a column
    /// `label` or `score`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] with the line that does not read.
    pub fn are_labelled(path: &Path) -> Result<bool> {
        if path.is_dir() {
            return Ok(false);
        }
        if path.extension().is_some_and(|extension| extension == "npy") {
            return Ok(path.with_extension("labels.npy").exists());
        }
        let table = Table::read(path)?;
        Ok(["label", "score"].into_iter().any(|name| table.column(name).is_some()))
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        match self {
            Examples::Labelled(examples) => examples.len(),
            Examples::Tensors(examples) => examples.len(),
            Examples::Pairs(examples) => examples.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A tab-separated file whose first line names its columns.
pub(crate) struct Table {
    path: PathBuf,
    header: Vec<String>,
    pub(crate) rows: Vec<Row>,
}

/// One line of it.
pub(crate) struct Row {
    /// Counted from 0.
    line: usize,
    pub(crate) fields: Vec<String>,
}

impl Table {
    /// Reads it; empty lines are passed over.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] where a line has another number of columns.
    pub(crate) fn read(path: &Path) -> Result<Table> {
        let content = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let fields = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
        let mut lines = content.lines().enumerate().filter(|(_, line)| !line.is_empty());
        let header = lines.next().map_or(Vec::new(), |(_, line)| fields(line));
        let mut table = Table { path: path.to_owned(), header, rows: Vec::new() };
        for (line, content) in lines {
            let row = Row { line, fields: fields(content) };
            if row.fields.len() != table.header.len() {
                let expected = format!("{} columns between tabs", table.header.len());
                return Err(table.refuse(line, &expected, &row.fields.len().to_string()));
            }
            table.rows.push(row);
        }
        Ok(table)
    }

    /// The place of a column.
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|column| column == name)
    }

    pub(crate) fn refuse(&self, line: usize, expected: &str, got: &str) -> Error {
        Error::Data {
            path: self.path.clone(),
            place: format!("line {}", line + 1),
            expected: expected.to_owned(),
            got: got.to_owned(),
        }
    }
}

/// Measures `session` on `examples`; `progress` hears how many are done.
///
/// # Errors
/// [`Error::Missing`] where the model gives no labels, or no vectors; [`Error::Labels`]-like
/// refusals where a label of the data is none of the model's; [`Error::Engine`].
pub fn evaluate(
    session: &Session,
    examples: &Examples,
    progress: &mut dyn FnMut(usize),
) -> Result<Evaluation> {
    let start = Instant::now();
    match examples {
        Examples::Labelled(examples) => {
            let (pairs, depths) = classified(session, examples, progress)?;
            Ok(classification(&pairs, MeanDepth::of(&depths), start))
        }
        Examples::Tensors(examples) => {
            Ok(classification(&recognized(session, examples, progress)?, None, start))
        }
        Examples::Pairs(examples) => {
            let (cosines, scores) = compared(session, examples, progress)?;
            Ok(Evaluation::Similarity {
                spearman: spearman(&cosines, &scores),
                examples: scores.len(),
                seconds: start.elapsed().as_secs_f64(),
            })
        }
    }
}

impl MeanDepth {
    fn of(depths: &[Depth]) -> Option<MeanDepth> {
        let mean = |of: fn(&Depth) -> f64| depths.iter().map(of).sum::<f64>() / depths.len() as f64;
        (!depths.is_empty()).then(|| MeanDepth {
            mean_exit: mean(|depth| depth.exit as f64),
            mean_compute: mean(|depth| depth.compute),
        })
    }
}

fn classification(
    pairs: &[(String, &str)],
    depth: Option<MeanDepth>,
    start: Instant,
) -> Evaluation {
    let right = pairs.iter().filter(|(predicted, label)| predicted == label).count();
    Evaluation::Classification {
        accuracy: right as f64 / pairs.len() as f64,
        macro_f1: macro_f1(pairs),
        depth,
        examples: pairs.len(),
        seconds: start.elapsed().as_secs_f64(),
    }
}

/// A predicted label and the true one.
type Labelled<'a> = (String, &'a str);

/// Predicted and true label of each text, and how far each was computed, where there are early exits.
fn classified<'a>(
    session: &Session,
    examples: &'a [(String, String)],
    progress: &mut dyn FnMut(usize),
) -> Result<(Vec<Labelled<'a>>, Vec<Depth>)> {
    let known = &session.manifest().labels;
    if let Some((_, label)) =
        examples.iter().find(|(_, label)| !known.is_empty() && !known.contains(label))
    {
        return Err(Error::Input {
            name: "label".to_owned(),
            expected: format!("one of the model's {} labels", known.len()),
            got: format!("`{label}`; evaluate it on the data it was trained for"),
        });
    }
    let (mut pairs, mut depths) = (Vec::with_capacity(examples.len()), Vec::new());
    for (done, (text, label)) in examples.iter().enumerate() {
        let (prediction, depth) = session.predict_with_depth(text)?;
        pairs.push((likeliest(prediction)?, label.as_str()));
        depths.extend(depth);
        progress(done + 1);
    }
    Ok((pairs, depths))
}

/// Predicted and true label of each tensor.
fn recognized<'a>(
    session: &'a Session,
    examples: &[(Tensor, usize)],
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Labelled<'a>>> {
    let labels = &session.manifest().labels;
    let [input] = session.inputs() else {
        return Err(Error::Missing {
            what: "single input",
            next: "give a table of `text` and `label`, which its tokenizer turns into all of them",
        });
    };
    let mut pairs = Vec::with_capacity(examples.len());
    for (done, (tensor, label)) in examples.iter().enumerate() {
        let truth = labels.get(*label).ok_or_else(|| Error::Input {
            name: "label".to_owned(),
            expected: format!("an index below {}, the model's number of labels", labels.len()),
            got: format!("{label} of example {done}"),
        })?;
        let inputs = BTreeMap::from([(input.name.clone(), tensor.clone())]);
        pairs.push((likeliest(session.predict_tensors(&inputs)?)?, truth.as_str()));
        progress(done + 1);
    }
    Ok(pairs)
}

fn likeliest(prediction: Prediction) -> Result<String> {
    match prediction {
        Prediction::Labels(scored) => {
            Ok(scored.into_iter().next().map_or(String::new(), |best| best.label))
        }
        Prediction::Embedding(_) => {
            Err(Error::Missing { what: "labels", next: "pack it with `--labels --task classify`" })
        }
    }
}

/// The values of a tensor of whole numbers; `None` of any other, and where one is negative.
fn whole(tensor: &Tensor) -> Option<Vec<usize>> {
    match tensor.dtype() {
        DType::U8 => Some(tensor.bytes().iter().map(|&value| value.into()).collect()),
        DType::I32 => tensor.to_i32()?.into_iter().map(|value| value.try_into().ok()).collect(),
        _ => tensor.to_i64()?.into_iter().map(|value| value.try_into().ok()).collect(),
    }
}

fn compared(
    session: &Session,
    examples: &[(String, String, f32)],
    progress: &mut dyn FnMut(usize),
) -> Result<(Vec<f32>, Vec<f32>)> {
    let vector = |text: &str| match session.predict(text)? {
        Prediction::Embedding(vector) => Ok(vector),
        Prediction::Labels(_) => {
            Err(Error::Missing { what: "text vectors", next: "give data with `text` and `label`" })
        }
    };
    let mut cosines = Vec::with_capacity(examples.len());
    for (done, (first, second, _)) in examples.iter().enumerate() {
        cosines.push(cosine(&vector(first)?, &vector(second)?));
        progress(done + 1);
    }
    Ok((cosines, examples.iter().map(|(_, _, score)| *score).collect()))
}

/// Cosine of the angle between two vectors; 0 where one of them is zero.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |x: &[f32], y: &[f32]| {
        x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>()
    };
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms == 0.0 { 0.0 } else { (dot(a, b) / norms) as f32 }
}

fn macro_f1(pairs: &[(String, &str)]) -> f64 {
    // Per label: right, predicted, true.
    let mut counts: BTreeMap<&str, [f64; 3]> = BTreeMap::new();
    for (predicted, label) in pairs {
        counts.entry(predicted).or_default()[1] += 1.0;
        counts.entry(label).or_default()[2] += 1.0;
        if predicted == label {
            counts.entry(label).or_default()[0] += 1.0;
        }
    }
    let occurring = counts.values().filter(|[.., truly]| *truly > 0.0);
    let scores: Vec<f64> =
        occurring.map(|[right, predicted, truly]| 2.0 * right / (predicted + truly)).collect();
    scores.iter().sum::<f64>() / scores.len().max(1) as f64
}

/// Spearman's rank correlation of `a` and `b`, as long as each other: Pearson's correlation of the ranks,
/// equal values sharing their mean rank; 0 where one side is constant.
pub fn spearman(a: &[f32], b: &[f32]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let product =
        |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| (x - mean) * (y - mean)).sum::<f64>();
    let deviations = (product(&a, &a) * product(&b, &b)).sqrt();
    if deviations == 0.0 { 0.0 } else { product(&a, &b) / deviations }
}

fn ranks(values: &[f32]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for tied in order.chunk_by(|&i, &j| values[i] == values[j]) {
        let shared = first as f64 + (tied.len() as f64 - 1.0) / 2.0;
        tied.iter().for_each(|&index| ranks[index] = shared);
        first += tied.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macro_f1_weighs_labels_alike() {
        // a: 1 of 2 found, nothing else called a: F1 = 2/3; b: found, called once too often: 2/3.
        let pairs = [("a", "a"), ("b", "a"), ("b", "b")].map(|(p, l)| (p.to_owned(), l));
        assert!((macro_f1(&pairs) - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn spearman_sees_order_alone_and_shares_ranks() {
        assert!((spearman(&[1.0, 2.0, 9.0], &[0.1, 0.2, 0.3]) - 1.0).abs() < 1e-12);
        assert!((spearman(&[3.0, 2.0, 1.0], &[0.1, 0.2, 0.3]) + 1.0).abs() < 1e-12);
        // Ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3: 4.5 / sqrt(4.5 * 5) (by hand).
        let tied = spearman(&[1.0, 2.0, 2.0, 3.0], &[1.0, 2.0, 3.0, 4.0]);
        assert!((tied - 4.5 / 22.5_f64.sqrt()).abs() < 1e-12, "{tied}");
        assert_eq!(spearman(&[1.0, 1.0], &[1.0, 2.0]), 0.0);
    }
}
