//! An ONNX file, a tokenizer and labels to one bundle, checked against tract and gated on accuracy.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use crate::bundle::{self, Bundle, Parts};
use crate::calibrate::{self, Calibration, Ranges};
use crate::engine;
use crate::error::{Error, Result};
use crate::evaluate::Examples;
use crate::exits::{self, Exits};
use crate::gate::{Gate, Packed, Yardstick};
use crate::golden;
use crate::graph::{Dim, Graph};
use crate::heap::{HeapCounter, with_margin};
use crate::manifest::{Heap, ShorterHeap, Task};
use crate::optimize::{self, PassReport, marks};
use crate::prepare::{self, Prepared};
use crate::quantize::{self, Precision, Scheme};
use crate::repair::Repair;
use crate::rewrite;
use crate::samples::Samples;
use crate::session::{self, Operators, Session};
use crate::shapes::{self, Shapes};
use crate::tensor::Tensor;
use crate::text::{self, Text};

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
    pub heap: Option<HeapCounter>,
    /// The numbers to store and compute in.
    pub precision: Precision,
    /// What the ranges of [`Precision::Int8Static`] are chosen by, and the weights of int8 layers are fitted to;
    /// [`Precision::Int8`] does without, other precisions do not look at it.
    pub calibrate: Option<Calibrate>,
    /// Data to measure f32 and the packed precision on: labelled, or any inputs, on which the packed model is
    /// held to what f32 answers.
    pub evaluate: Option<PathBuf>,
    /// Most accuracy that may be lost against f32, in points (hundredths).
    pub max_drop: f64,
    /// Most accuracy that early exits may lose against the last layer, in points; where the model has any,
    /// their threshold is calibrated on the labelled data.
    pub exit_drop: f64,
    /// Least share of the multiply-accumulates that must run in int8, 0 to 1; where it is given, layers are rounded too for
    /// which int8 saves no work on a core without a dot product.
    pub require_int8: Option<f64>,
}

/// How activations are calibrated.
#[derive(Clone, Debug)]
pub struct Calibrate {
    /// Inputs, as [`Samples::read`] takes them.
    pub data: PathBuf,
    /// How a range is chosen from what they make.
    pub calibration: Calibration,
}

/// What calibration looked at.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Calibrated {
    /// How ranges were chosen.
    pub calibration: Calibration,
    /// Inputs that the model ran on.
    pub samples: usize,
    /// Values that got a range.
    pub values: usize,
    /// Those of them whose channels got a factor each, to share it.
    pub equalized: usize,
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
    /// What runs the graph, as [`Session::executor`] says it.
    pub executor: &'static str,
    /// How many operators our kernels and tract compute.
    pub operators: Operators,
    /// Why our kernels do not run it from end to end; `None` where they do.
    pub left_to_tract: Option<String>,
    /// As [`Session::int8_mac_share`] says it of the longest sequence.
    pub int8_mac_share: Option<f64>,
    /// Layers that stay f32 in int8 because they, or the network of convolutions that they belong to, are too narrow for it to
    /// save work on a core without a dot product; by the values that they write.
    pub without_gain: Vec<String>,
    /// Largest difference between fused f32 and tract on the original, relative to the largest output;
    /// `None` where no shape is known to compare them in.
    pub fusion_error: Option<f32>,
    /// How activations were calibrated, where they were.
    pub calibrated: Option<Calibrated>,
    /// What the scores say: `accuracy`, `correlation`, or `agreement` with f32 where the data has no labels.
    pub measure: Option<&'static str>,
    /// Accuracy or correlation of f32 on the given data, 0 to 1; 1 for its agreement with itself.
    pub f32_score: Option<f64>,
    /// That of the packed precision.
    pub score: Option<f64>,
    /// Early exits with their threshold; `None` where the model has none.
    pub exits: Option<Exits>,
    /// What was put back to something finer to hold the gate; `None` where nothing had to be.
    pub repair: Option<Repair>,
}

/// Packs the ONNX file `model` into the bundle `output`; `progress` hears what is being done.
///
/// Where rounding loses more than `max_drop` on the given data, the nodes that bring the most noise are put
/// back, first to finer ranges where there are such, then to f32, until it does not.
///
/// # Errors
/// Those of [`prepare::read`] and [`prepare::prepare`]; [`Error::Labels`], [`Error::Missing`] and
/// [`Error::Tokenizer`] where the parts do not fit; [`Error::Gate`] where the packed model computes or
/// classifies too differently, or too little of it is int8. `output` is then as it was.
pub fn pack(
    model: &Path,
    output: &Path,
    options: &PackOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<PackReport> {
    progress("reading");
    let graph = prepare::read(model)?;
    progress("optimizing");
    let mut fused = graph.clone();
    let passes = optimize::optimize(&mut fused);
    // What another tool quantized is measured against the floats that its integers stand for.
    let floats = marks::removed(&fused);
    let reference = prepare::pack(&floats, &passes, &Precision::F32.into())?;
    let mut belongings = Belongings::read(&reference.graph, options)?;
    if options.sequences.is_none() {
        prepare::drop_impossible(&mut belongings.sequences, &reference)?;
    }
    let reference_session = belongings.open(&reference, Precision::F32)?;
    let fusion_error = fusion_error(&graph, &reference_session, &belongings)?;
    let data = options.evaluate.as_deref();
    let yardstick = data.map(|data| Yardstick::read(data, &reference_session)).transpose()?;
    let measure = yardstick.as_ref().map(Yardstick::measure);
    let f32_score = yardstick.as_ref().map(|yardstick| {
        progress("evaluating");
        yardstick.score(&reference_session)
    });
    let f32_score = f32_score.transpose()?;
    let asked = options.calibrate.as_ref();
    let (mut scheme, mut calibrated, equalized) = match (options.precision, asked) {
        (precision @ (Precision::Int8 | Precision::Int8Static), Some(asked)) => {
            progress("calibrating");
            let mut equalized = fused.clone();
            let (scheme, calibrated) = calibrate(&mut equalized, &belongings, precision, asked)?;
            (scheme, Some(calibrated), Some(equalized))
        }
        (Precision::Int8Static, None) => {
            return Err(Error::Missing {
                what: "calibrated ranges",
                next: "give inputs to calibrate on with `--calibrate DATA`, or pack it with `--precision int8`",
            });
        }
        (precision, _) => (precision.into(), None, None),
    };
    // What saves no work is left in f32, unless int8 is asked for whatever it saves.
    let leaves = options.require_int8.is_none()
        && matches!(options.precision, Precision::Int8 | Precision::Int8Static);
    let loses = leaves
        && convolutions_lose(equalized.as_ref().unwrap_or(&fused), &passes, &scheme, &belongings)?;
    match equalized {
        Some(equalized) if !loses => fused = equalized,
        // What is not rounded shares no range.
        _ => calibrated.iter_mut().for_each(|it| it.equalized = 0),
    }
    let mut without_gain = if leaves { quantize::without_gain(&fused) } else { Vec::new() };
    if loses {
        without_gain.extend(quantize::convolutions(&fused));
    }
    let kept = without_gain.iter().map(|node| (node.clone(), Precision::F32));
    scheme.exceptions.extend(kept);
    let Packed { prepared, session, score, repair } = match options.precision {
        Precision::F32 if floats == fused => {
            let session = reference_session;
            Packed { prepared: reference, session, score: f32_score, repair: None }
        }
        _ => {
            drop(reference_session);
            let gate = Gate {
                reference: yardstick.as_ref().zip(f32_score),
                max_drop: options.max_drop,
                belongings: &belongings,
                fused: &fused,
                passes: &passes,
            };
            gate.hold(scheme, progress)?
        }
    };
    let int8_mac_share = session.int8_mac_share(belongings.longest());
    require_int8(int8_mac_share, options.require_int8)?;
    progress("writing");
    let metrics = metrics(f32_score.zip(score), options.precision);
    let golden = golden::record(&session)?;
    let labelled = match &yardstick {
        Some(Yardstick::Labelled(Examples::Labelled(examples))) => Some(&examples[..]),
        _ => None,
    };
    let exits = match Exits::of(&fused, belongings.task) {
        Some(exits) => Some(exits::calibrate(exits, &session, labelled, options.exit_drop)?),
        None => None,
    };
    let parts = belongings.parts(&prepared.graph, options.precision);
    let parts = Parts { golden: &golden, metrics, exits: exits.as_ref(), ..parts };
    let heap = match options.heap {
        Some(heap) if session.executor() == "kernels" => tokenizer_alone(&parts, &heap)?,
        Some(heap) => measured(&parts, &heap)?,
        None => None,
    };
    bundle::write(output, &Parts { heap, ..parts })?;
    let bytes = std::fs::metadata(output).map_err(Error::io("read", output))?.len();
    Ok(PackReport {
        bytes,
        precision: options.precision,
        task: belongings.task,
        passes,
        executor: session.executor(),
        operators: session.operators(),
        left_to_tract: prepared.left_to_tract,
        int8_mac_share,
        without_gain,
        fusion_error,
        calibrated,
        measure,
        f32_score,
        score,
        exits,
        repair,
    })
}

/// Whether a network of convolutions takes more work with them in int8 than in f32, where int8 saves least.
fn convolutions_lose(
    graph: &Graph,
    passes: &[PassReport],
    scheme: &Scheme,
    belongings: &Belongings,
) -> Result<bool> {
    if quantize::convolutions(graph).is_empty() {
        return Ok(false);
    }
    let narrow = quantize::without_gain(graph).into_iter().map(|node| (node, Precision::F32));
    let mut scheme = scheme.clone();
    scheme.exceptions.extend(narrow);
    let prepared = prepare::pack(graph, passes, &scheme)?;
    let session = belongings.open_raw(&prepared, scheme.precision)?;
    Ok(session.work(belongings.longest()).surplus > 0)
}

/// Makes channels of the optimized `graph` that share a range alike, and gives its scheme of `precision`: the ranges
/// of what static nodes read, and weights that were fitted to what they read.
fn calibrate(
    graph: &mut Graph,
    belongings: &Belongings,
    precision: Precision,
    Calibrate { data, calibration }: &Calibrate,
) -> Result<(Scheme, Calibrated)> {
    let observe = |graph: &Graph| {
        let observed = marks::removed(&calibrate::observed(graph));
        let observed = prepare::pack(&observed, &[], &Precision::F32.into())?;
        belongings.open_raw(&observed, Precision::F32)
    };
    let mut session = observe(graph)?;
    let samples = Samples::read(data)?;
    let equalized = calibrate::equalize(graph, &session, &samples)?;
    if equalized > 0 {
        session = observe(graph)?;
    }
    let (ranges, count) = calibrate::ranges(&session, &samples, *calibration)?;
    let calibrated =
        Calibrated { calibration: *calibration, samples: count, values: ranges.len(), equalized };
    let names = quantize::with_form_in(graph, Precision::Int8Static);
    // Rows that get a range each are rounded too finely to be worth more than their exact values.
    let known = match precision {
        Precision::Int8Static => &ranges,
        _ => &Ranges::new(),
    };
    let fitted = calibrate::fit(graph, &names, &session, &samples, known)?;
    Ok((Scheme { ranges, fitted, ..precision.into() }, calibrated))
}

fn require_int8(share: Option<f64>, least: Option<f64>) -> Result<()> {
    match (least, share) {
        (Some(least), None) if least > 0.0 => Err(Error::Missing {
            what: "shapes, without which the share of int8 cannot be counted",
            next: "choose one for each input with `--shape`",
        }),
        (Some(least), Some(share)) if share < least => Err(Error::Gate {
            what: "share of the multiply-accumulates that run in int8".to_owned(),
            measured: format!("{:.1} %", share * 100.0),
            allowed: format!("{:.1} % at least", least * 100.0),
            next: "require less with `--require-int8`, or allow more loss with `--max-drop`",
        }),
        _ => Ok(()),
    }
}

/// What goes into a bundle beside the graph.
pub(crate) struct Belongings {
    task: Task,
    tokenizer: Option<Vec<u8>>,
    labels: Vec<String>,
    sequences: Vec<usize>,
    shapes: Vec<Shapes>,
}

impl Belongings {
    /// What `options` name, where it fits the optimized `graph`.
    fn read(graph: &Graph, options: &PackOptions) -> Result<Belongings> {
        let labels = options.labels.as_deref().map(read_labels).transpose()?.unwrap_or_default();
        let read = |path: &PathBuf| std::fs::read(path).map_err(Error::io("read", path));
        let tokenizer = options.tokenizer.as_ref().map(read).transpose()?;
        let task = options.task.unwrap_or(match (&options.labels, &tokenizer) {
            (Some(_), _) => Task::Classify,
            (None, Some(_)) => Task::Embed,
            (None, None) => Task::Raw,
        });
        let sequences = prepare::reachable_sequences(graph, options.sequences.as_deref())?;
        let complete = |shapes: &Shapes| {
            let facts = shapes::facts(graph, shapes)?;
            rewrite::decided(graph, &facts)?;
            let planned = graph.inputs.iter().zip(facts).map(|(input, fact)| {
                let whole = || fact.shape.into();
                (input.name.clone(), shapes.get(&input.name).cloned().unwrap_or_else(whole))
            });
            Ok(planned.collect())
        };
        let shapes = options.shapes.iter().map(complete).collect::<Result<_>>()?;
        let belongings = Belongings { task, tokenizer, labels, sequences, shapes };
        belongings.check(graph)?;
        belongings.check_vocabulary(graph)?;
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

    fn parts<'a>(&'a self, graph: &'a Graph, precision: Precision) -> Parts<'a> {
        Parts {
            graph,
            task: self.task,
            precision,
            sequences: &self.sequences,
            shapes: &self.shapes,
            heap: None,
            exits: None,
            labels: &self.labels,
            tokenizer: self.tokenizer.as_deref(),
            metrics: BTreeMap::new(),
            golden: &[],
        }
    }

    /// The longest planned length; 1 where shapes are fixed.
    pub(crate) fn longest(&self) -> usize {
        self.sequences.last().copied().unwrap_or(1)
    }

    pub(crate) fn open(&self, prepared: &Prepared, precision: Precision) -> Result<Session> {
        let bundle = Bundle::from_parts(&self.parts(&prepared.graph, precision))?;
        Session::from_bundle(bundle, &session::Options::default())
    }

    /// As [`Belongings::open`], whatever the graph outputs.
    pub(crate) fn open_raw(&self, prepared: &Prepared, precision: Precision) -> Result<Session> {
        let parts = self.parts(&prepared.graph, precision);
        let bundle = Bundle::from_parts(&Parts { task: Task::Raw, labels: &[], ..parts })?;
        Session::from_bundle(bundle, &session::Options::default())
    }
}

/// Thread counts at which the share of a thread is measured.
const THREADS: [usize; 2] = [8, 16];

/// What sessions of these parts take from the heap, while they open and run each planned shape once;
/// `None` where no shape is planned.
fn measured(parts: &Parts, heap: &HeapCounter) -> Result<Option<Heap>> {
    let one = NonZeroUsize::MIN;
    let Some((held_bytes, peak_bytes)) = taken(parts, parts.sequences, one, heap)? else {
        return Ok(None);
    };
    // On few threads the peak may still be that of the opening; beyond, it is a line.
    let [some, many] = THREADS.map(|threads| {
        let threads = NonZeroUsize::new(threads).unwrap_or(one);
        taken(parts, parts.sequences, threads, heap)
            .map(|it| it.map_or(peak_bytes, |(_, peak)| peak))
    });
    let (some, many) = (some?, many?);
    let thread_bytes = many.saturating_sub(some).div_ceil((THREADS[1] - THREADS[0]) as u64);
    let longer = parts.sequences.len().saturating_sub(1);
    let shorter = (1..=longer).map(|count| {
        let (sequences, longest) = (&parts.sequences[..count], parts.sequences[count - 1]);
        let taken = taken(parts, sequences, one, heap)?;
        let (held_bytes, peak_bytes) = taken.unwrap_or((held_bytes, peak_bytes));
        Ok(ShorterHeap { sequence: longest, held_bytes, peak_bytes })
    });
    Ok(Some(Heap {
        held_bytes,
        peak_bytes,
        thread_bytes,
        threaded_bytes: match thread_bytes {
            0 => 0,
            each => many.saturating_sub(each * THREADS[1] as u64),
        },
        tokenizer_bytes: tokenizer_bytes(parts, heap)?,
        shorter: shorter.collect::<Result<_>>()?,
    }))
}

/// What the tokenizer takes of a graph whose own need is computed; `None` where that is known too.
fn tokenizer_alone(parts: &Parts, heap: &HeapCounter) -> Result<Option<Heap>> {
    let known = parts.tokenizer.is_none_or(|json| text::compile(json).is_some());
    let tokenizer_bytes = if known { 0 } else { tokenizer_bytes(parts, heap)? };
    Ok((!known).then(|| Heap { tokenizer_bytes, ..Heap::default() }))
}

/// Bytes held and at the peak of a session of these parts for `sequences`, on so many threads.
fn taken(
    parts: &Parts,
    sequences: &[usize],
    threads: NonZeroUsize,
    heap: &HeapCounter,
) -> Result<Option<(u64, u64)>> {
    // Its own length is planned apart, like that of a file.
    let bundle = Bundle::from_parts(&Parts { sequences, ..parts.clone() })?;
    let before = (heap.current_bytes)();
    let options = session::Options { threads, ..session::Options::default() };
    let ((session, held), peak) = heap.around(|| {
        let session = Session::from_bundle(bundle, &options)?;
        let held = (heap.current_bytes)().saturating_sub(before);
        for example in session.examples() {
            session.run(&example)?;
        }
        Ok((session, held))
    })?;
    let taken = (held.next_multiple_of(PAGE_BYTES), with_margin(peak));
    Ok(session.has_example().then_some(taken))
}

/// The peak while the tokenizer of these parts is read, and while it reads.
fn tokenizer_bytes(parts: &Parts, heap: &HeapCounter) -> Result<u64> {
    let bundle = Bundle::from_parts(parts)?;
    let Some(section) = bundle.tokenizer() else { return Ok(0) };
    let longest = parts.sequences.last().copied().unwrap_or(usize::MAX);
    let (_, peak) = heap.around(|| {
        Text::from_section(section, longest)?
            .ids("a dram is a small measure of something distilled")
    })?;
    Ok((peak + peak / 32).next_multiple_of(PAGE_BYTES))
}

/// What is held is told in steps of this, so that packing twice gives the same bytes.
const PAGE_BYTES: u64 = 4096;

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

/// Compares the optimized graph with tract on the original, for the shortest and the longest sequence.
/// `None` where there is nothing to compare, or no shape is known to compare it in.
fn fusion_error(graph: &Graph, session: &Session, belongings: &Belongings) -> Result<Option<f32>> {
    if session.executor() == "tract" || !session.has_example() {
        return Ok(None);
    }
    let lengths = match &belongings.sequences[..] {
        [] => vec![1],
        [only] => vec![*only],
        [shortest, .., longest] => vec![*shortest, *longest],
    };
    let mut worst = 0.0_f32;
    for length in lengths {
        let example = session.example(length);
        let inputs: Vec<Tensor> =
            graph.inputs.iter().map(|input| example[&input.name].clone()).collect();
        let expected = engine::reference(graph, &inputs)?;
        for (expected, (_, got)) in expected.iter().zip(session.run(&example)?) {
            worst = worst.max(difference(expected, &got));
        }
    }
    if worst <= FUSION_TOLERANCE {
        return Ok(Some(worst));
    }
    Err(Error::Gate {
        what: "the optimized graph against the original, largest relative difference".to_owned(),
        measured: format!("{worst:.2e}"),
        allowed: format!("{FUSION_TOLERANCE:.0e}"),
        next: "this is a fault of a fusion pass; please report the model",
    })
}

/// Outputs that are smaller than this throughout are compared as if they were this large: a probability
/// near zero comes of numbers near one, and has their rounding.
const LEAST_SIZE: f32 = 1e-3;

/// Largest difference, relative to the largest expected value; infinite where shapes, or values of
/// other types, differ.
fn difference(expected: &Tensor, got: &Tensor) -> f32 {
    let (Some(expected_values), Some(values)) = (expected.to_f32(), got.to_f32()) else {
        return if expected == got { 0.0 } else { f32::INFINITY };
    };
    if expected.shape() != got.shape() {
        return f32::INFINITY;
    }
    let largest =
        expected_values.iter().fold(LEAST_SIZE, |largest, value| largest.max(value.abs()));
    let pairs = expected_values.iter().zip(&values);
    // Written so that a NaN counts as a difference.
    pairs.map(|(a, b)| if a == b { 0.0 } else { (a - b).abs() / largest }).fold(
        0.0,
        |worst, difference| {
            if difference <= worst { worst } else { difference }
        },
    )
}

fn metrics(scores: Option<(f64, f64)>, precision: Precision) -> BTreeMap<String, f64> {
    let Some((reference, packed)) = scores else { return BTreeMap::new() };
    BTreeMap::from([("f32_score".to_owned(), reference), (format!("{precision}_score"), packed)])
}
