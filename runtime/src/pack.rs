//! An ONNX file, a tokenizer and labels to one bundle, checked against tract and gated on accuracy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::allocator::CountingAllocator;
use crate::bundle::{self, Bundle, Parts};
use crate::engine;
use crate::error::{Error, Result};
use crate::evaluate::{self, Evaluation, Examples};
use crate::golden;
use crate::graph::{Dim, Graph};
use crate::manifest::{Heap, Task};
use crate::optimize::PassReport;
use crate::prepare::{self, Prepared};
use crate::quantize::Precision;
use crate::session::{self, Session, facts};
use crate::shapes::{self, Shapes};
use crate::tensor::Tensor;
use crate::text::Text;

/// Largest difference, relative to the largest output, between the fused graph in f32 and tract on
/// the original: sums in another order differ by about 1e-6, a wrong rewrite by far more.
const FUSION_TOLERANCE: f32 = 1e-3;

/// Most accuracy that int8 may cost where data is given and no other bound, in points.
pub const DEFAULT_MAX_DROP: f64 = 0.5;

/// What to pack, and how.
#[derive(Clone, Debug)]
pub struct PackOptions {
    /// `tokenizer.json`, for tasks that take text.
    pub tokenizer: Option<PathBuf>,
    /// One label a line, in the order of the output's columns.
    pub labels: Option<PathBuf>,
    /// What the outputs mean; where it is `None`, labels mean classify, a tokenizer alone embed.
    pub task: Option<Task>,
    /// Sequence lengths to plan for.
    pub sequences: Option<Vec<usize>>,
    /// Shapes to plan for, where the model takes other things than sequences; as for a session.
    pub shapes: Vec<Shapes>,
    /// The process's allocator, where it is one that counts: what tract takes is then measured.
    pub heap: Option<&'static CountingAllocator>,
    /// The numbers to store and compute in.
    pub precision: Precision,
    /// Labelled data to measure f32 and the packed precision on.
    pub evaluate: Option<PathBuf>,
    /// Most accuracy that may be lost against f32, in points (hundredths).
    pub max_drop: f64,
}

/// What packing did.
#[derive(Clone, Debug, serde::Serialize)]
pub struct PackReport {
    /// Length of the bundle in bytes.
    pub bytes: u64,
    /// The precision that was packed.
    pub precision: Precision,
    /// What the outputs mean.
    pub task: Task,
    /// What each pass rewrote.
    pub passes: Vec<PassReport>,
    /// Why tract runs the graph and not our kernels; `None` where they do.
    pub left_to_tract: Option<String>,
    /// Share of the multiply-accumulates that run in int8, at the longest sequence, 0 to 1.
    pub int8_mac_share: f64,
    /// Largest difference between fused f32 and tract on the original, relative to the largest output.
    pub fusion_error: f32,
    /// Accuracy or correlation of f32 on the given data, 0 to 1.
    pub f32_score: Option<f64>,
    /// That of the packed precision.
    pub score: Option<f64>,
}

/// Packs the ONNX file `model` into the bundle `output`; `progress` hears what is being done.
///
/// # Errors
/// Those of [`prepare::read`] and [`prepare::prepare`]; [`Error::Labels`], [`Error::Missing`] and
/// [`Error::Tokenizer`] where the parts do not fit; [`Error::Gate`] where the packed model computes or
/// classifies too differently. `output` is then as it was.
pub fn pack(
    model: &Path,
    output: &Path,
    options: &PackOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<PackReport> {
    progress("reading");
    let graph = prepare::read(model)?;
    let mut belongings = Belongings::read(&graph, options)?;
    progress("optimizing");
    let reference = prepare::prepare(&graph, Precision::F32)?;
    if options.sequences.is_none() {
        prepare::drop_impossible(&mut belongings.sequences, &reference);
    }
    let fusion_error = fusion_error(&graph, &reference, &belongings)?;
    progress("quantizing");
    let packed = match options.precision {
        Precision::F32 => reference.clone(),
        Precision::Int8 => prepare::prepare(&graph, Precision::Int8)?,
    };
    let session = belongings.open(&packed, options.precision, BTreeMap::new())?;
    belongings.check_vocabulary(&packed.graph)?;
    let scores = match &options.evaluate {
        None => None,
        Some(data) => {
            progress("evaluating");
            let reference = belongings.open(&reference, Precision::F32, BTreeMap::new())?;
            Some(gate(&reference, &session, data, options.max_drop)?)
        }
    };
    progress("writing");
    let metrics = metrics(scores, options.precision);
    let golden = golden::record(&session)?;
    let parts = belongings.parts(&packed.graph, options.precision, metrics);
    let parts = Parts { golden: &golden, ..parts };
    let heap = match options.heap.filter(|_| packed.left_to_tract.is_some()) {
        Some(allocator) => measured(&parts, allocator)?,
        None => None,
    };
    bundle::write(output, &Parts { heap, ..parts })?;
    let bytes = std::fs::metadata(output).map_err(Error::io("read", output))?.len();
    let longest = belongings.sequences.last().copied().unwrap_or(1);
    Ok(PackReport {
        bytes,
        precision: options.precision,
        task: belongings.task,
        passes: packed.passes,
        left_to_tract: packed.left_to_tract,
        int8_mac_share: session.work(longest).int8_mac_share(),
        fusion_error,
        f32_score: scores.map(|(reference, _)| reference),
        score: scores.map(|(_, packed)| packed),
    })
}

/// What goes into a bundle beside the graph.
struct Belongings {
    task: Task,
    tokenizer: Option<Vec<u8>>,
    labels: Vec<String>,
    sequences: Vec<usize>,
    shapes: Vec<Shapes>,
}

impl Belongings {
    fn read(graph: &Graph, options: &PackOptions) -> Result<Belongings> {
        let labels = options.labels.as_deref().map(read_labels).transpose()?.unwrap_or_default();
        let read = |path: &PathBuf| std::fs::read(path).map_err(Error::io("read", path));
        let tokenizer = options.tokenizer.as_ref().map(read).transpose()?;
        let task = options.task.unwrap_or(match (&options.labels, &tokenizer) {
            (Some(_), _) => Task::Classify,
            (None, Some(_)) => Task::Embed,
            (None, None) => Task::Raw,
        });
        let sequences = sequences(graph, options.sequences.as_deref())?;
        let complete = |shapes: &Shapes| {
            let names = graph.inputs.iter().map(|input| input.name.clone());
            let facts = shapes::facts(graph, shapes)?.into_iter().map(|fact| fact.shape);
            Ok(names.zip(facts).collect())
        };
        let shapes = options.shapes.iter().map(complete).collect::<Result<_>>()?;
        let belongings = Belongings { task, tokenizer, labels, sequences, shapes };
        belongings.check(graph)?;
        Ok(belongings)
    }

    fn check(&self, graph: &Graph) -> Result<()> {
        let takes_text = match self.task {
            Task::Embed => true,
            // Windows of a sensor have labels too.
            Task::Classify => session::takes_ids(graph),
            Task::Raw => false,
        };
        if takes_text && self.tokenizer.is_none() {
            return Err(Error::Missing {
                what: "tokenizer",
                next: "give the `tokenizer.json` it was trained with: `--tokenizer FILE`, or pack it with `--task raw`",
            });
        }
        if self.task == Task::Classify && self.labels.is_empty() {
            return Err(Error::Missing {
                what: "labels",
                next: "give one label a line, in the order of the output's columns: `--labels FILE`",
            });
        }
        let output = graph.outputs.first();
        match output.and_then(|output| output.shape.last()) {
            Some(&Dim::Fixed(width))
                if self.task == Task::Classify && width != self.labels.len() =>
            {
                let output = output.map_or(String::new(), |output| output.name.clone());
                Err(Error::Labels { labels: self.labels.len(), output, width })
            }
            _ => Ok(()),
        }
    }

    /// A tokenizer must not give ids that the word table does not have.
    fn check_vocabulary(&self, graph: &Graph) -> Result<()> {
        let (Some(json), Some(longest)) = (&self.tokenizer, self.sequences.last()) else {
            return Ok(());
        };
        let vocabulary = Text::new(json, *longest)?.vocabulary();
        let table = graph.nodes.iter().find(|node| node.op.starts_with("Embed"));
        let rows = table.and_then(|node| Some(graph.initializers.get(node.input(1)?)?.shape()[0]));
        match rows {
            Some(rows) if vocabulary > rows => Err(Error::Tokenizer {
                reason: format!("it has {vocabulary} entries, the model's word table {rows} rows"),
                next: "give the `tokenizer.json` that the model was trained with",
            }),
            _ => Ok(()),
        }
    }

    fn parts<'a>(
        &'a self,
        graph: &'a Graph,
        precision: Precision,
        metrics: BTreeMap<String, f64>,
    ) -> Parts<'a> {
        Parts {
            graph,
            task: self.task,
            precision,
            sequences: &self.sequences,
            shapes: &self.shapes,
            heap: None,
            labels: &self.labels,
            tokenizer: self.tokenizer.as_deref(),
            metrics,
            golden: &[],
        }
    }

    fn open(
        &self,
        prepared: &Prepared,
        precision: Precision,
        metrics: BTreeMap<String, f64>,
    ) -> Result<Session> {
        let image = bundle::image(&self.parts(&prepared.graph, precision, metrics));
        Session::from_bundle(Bundle::from_image(&image)?, &session::Options::default())
    }
}

/// What a session of these parts takes from the heap, while it opens and runs each planned shape once;
/// `None` where no shape is planned.
fn measured(parts: &Parts, allocator: &CountingAllocator) -> Result<Option<Heap>> {
    let bundle = Bundle::from_image(&bundle::image(parts))?;
    let before = allocator.current_bytes();
    allocator.restart_peak();
    let session = Session::from_bundle(bundle, &session::Options::default())?;
    let held = allocator.current_bytes().saturating_sub(before);
    for example in session.examples() {
        session.run(&example)?;
    }
    let peak = allocator.peak_bytes().saturating_sub(before);
    let held_bytes = held.next_multiple_of(PAGE_BYTES);
    let heap = Heap { held_bytes, peak_bytes: with_margin(peak) };
    Ok(session.has_example().then_some(heap))
}

/// What is held is told in steps of this, so that packing twice gives the same bytes.
const PAGE_BYTES: u64 = 4096;

/// A measured peak as it is planned: one part in 32 more, for a processor whose kernels pack otherwise, and
/// what a process needs beside the session, rounded up so that packing twice gives the same bytes.
fn with_margin(peak: u64) -> u64 {
    const BESIDE: u64 = 96 * 1024;
    let bytes = peak + peak / 32 + BESIDE;
    bytes.next_multiple_of((bytes.next_power_of_two() / 64).max(1))
}

/// One label a line; an empty last line is the end of the file.
fn read_labels(path: &Path) -> Result<Vec<String>> {
    let content = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let labels: Vec<String> = content.lines().map(|line| line.trim().to_owned()).collect();
    match labels.iter().position(String::is_empty) {
        Some(line) => Err(Error::Data {
            path: path.to_owned(),
            place: format!("line {}", line + 1),
            expected: "a label".to_owned(),
            got: "an empty line".to_owned(),
        }),
        None => Ok(labels),
    }
}

/// The lengths to plan for: those asked for, or the usual ones as far as the positions reach.
fn sequences(graph: &Graph, asked: Option<&[usize]>) -> Result<Vec<usize>> {
    let mut sequences = prepare::sequences(graph, asked);
    let (Some(&longest), Some(positions)) = (sequences.last(), longest_position(graph)) else {
        return Ok(sequences);
    };
    if longest <= positions {
        return Ok(sequences);
    }
    if asked.is_some() {
        return Err(Error::Input {
            name: "sequence".to_owned(),
            expected: format!("at most {positions} tokens, the rows of the model's position table"),
            got: format!("{longest}; give a shorter `--seq`"),
        });
    }
    sequences.retain(|&length| length < positions);
    sequences.push(positions);
    Ok(sequences)
}

/// Rows of the position table of an optimized copy of the graph, where it has one.
fn longest_position(graph: &Graph) -> Option<usize> {
    let mut fused = graph.clone();
    crate::optimize::optimize(&mut fused);
    let embed = fused.nodes.iter().find(|node| node.is_fused("Embed"))?;
    fused.initializers.get(embed.input(2)?)?.shape().first().copied()
}

/// Compares the fused graph with tract on the original, for the shortest and the longest sequence.
fn fusion_error(graph: &Graph, fused: &Prepared, belongings: &Belongings) -> Result<f32> {
    if fused.left_to_tract.is_some() {
        return Ok(0.0);
    }
    let session = belongings.open(fused, Precision::F32, BTreeMap::new())?;
    let mut worst = 0.0_f32;
    for length in [belongings.sequences.first(), belongings.sequences.last()].into_iter().flatten()
    {
        let example = session.example(*length);
        let inputs: Vec<Tensor> =
            graph.inputs.iter().map(|input| example[&input.name].clone()).collect();
        debug_assert_eq!(facts(graph, *length).len(), inputs.len());
        let expected = engine::evaluate(graph, &inputs)?;
        for (expected, (_, got)) in expected.iter().zip(session.run(&example)?) {
            worst = worst.max(difference(expected, &got));
        }
    }
    if worst <= FUSION_TOLERANCE {
        return Ok(worst);
    }
    Err(Error::Gate {
        what: "the optimized graph against the original, largest relative difference".to_owned(),
        measured: format!("{worst:.2e}"),
        allowed: format!("{FUSION_TOLERANCE:.0e}"),
        next: "this is a fault of a fusion pass; please report the model",
    })
}

/// Largest difference, relative to the largest expected value; infinite where shapes differ.
fn difference(expected: &Tensor, got: &Tensor) -> f32 {
    let (Some(expected_values), Some(values)) = (expected.to_f32(), got.to_f32()) else {
        return f32::INFINITY;
    };
    if expected.shape() != got.shape() {
        return f32::INFINITY;
    }
    let largest =
        expected_values.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    let pairs = expected_values.iter().zip(&values);
    // Written so that a NaN counts as a difference.
    pairs.map(|(a, b)| if a == b { 0.0 } else { (a - b).abs() / largest }).fold(
        0.0,
        |worst, difference| {
            if difference <= worst { worst } else { difference }
        },
    )
}

/// Scores of f32 and of the packed precision, where the loss is within bounds.
fn gate(reference: &Session, packed: &Session, data: &Path, max_drop: f64) -> Result<(f64, f64)> {
    let examples = Examples::read(data)?;
    let score = |session: &Session| {
        evaluate::evaluate(session, &examples, &mut |_| {}).map(|e: Evaluation| e.score())
    };
    let scores = (score(reference)?, score(packed)?);
    let drop = (scores.0 - scores.1) * 100.0;
    if drop <= max_drop {
        return Ok(scores);
    }
    Err(Error::Gate {
        what: format!("{} on `{}`", packed.manifest().precision, data.display()),
        measured: format!(
            "{:.2} % where f32 has {:.2} %, {drop:.2} points less",
            scores.1 * 100.0,
            scores.0 * 100.0
        ),
        allowed: format!("{max_drop} points"),
        next: "pack it with `--precision f32`, or allow more with `--max-drop`",
    })
}

fn metrics(scores: Option<(f64, f64)>, precision: Precision) -> BTreeMap<String, f64> {
    let Some((reference, packed)) = scores else { return BTreeMap::new() };
    BTreeMap::from([("f32_score".to_owned(), reference), (format!("{precision}_score"), packed)])
}
