//! What a distillation leaves in its folder.

use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::Device;

use crate::alarms::alarms;
use crate::answers::{Answers, ask};
use crate::batches::Examples;
use crate::checkpoint::{Epoch, Trained};
use crate::curves;
use crate::data;
use crate::device;
use crate::encoder::Encoder;
use crate::error::{Error, Result};
use crate::exam::{Exam, Measure};
use crate::files;
use crate::golden::Golden;
use crate::inputs::{Inputs, Reading};
use crate::interface::{Mode, Student};
use crate::progress::Stage;
use crate::recipe::{Losses, Recipe};
use crate::report::{Data, Model, Report, Seconds, Validation};
use crate::trial::try_out;
use crate::weights::{Architecture, Weights};

/// What the stages gave.
pub(crate) struct Learned {
    /// The teacher, where one was finished before the student began.
    pub(crate) teacher: Option<Trained>,
    /// What is known of who taught.
    pub(crate) taught: Option<Taught>,
    pub(crate) student: Trained,
    pub(crate) baseline: Option<Trained>,
    /// The teacher's layers that the student started from.
    pub(crate) layers: Vec<usize>,
    /// Where it was trained.
    pub(crate) device: device::Device,
}

/// What is known of a teacher.
pub(crate) struct Taught {
    pub(crate) architecture: Architecture,
    /// Its answers about the validation examples.
    pub(crate) validation: Answers,
    /// Those about the labelled texts that a sentence encoder is tried on.
    pub(crate) trial: Option<[Answers; 2]>,
    /// Time that collecting its answers took.
    pub(crate) seconds: f64,
}

/// Writes every artefact into `output`, each whole or not at all.
///
/// # Errors
/// [`Error::Export`] where the runtime does not give the trainer's answers: then nothing is written.
pub(crate) fn write(
    recipe: &Recipe,
    inputs: &Inputs,
    learned: &Learned,
    output: &Path,
) -> Result<Report> {
    let weights = &learned.student.weights;
    let encoder = Encoder::new(weights, &Device::flex());
    let golden = Golden::new(&encoder, inputs.of_student.exam.examples());
    let onnx = Encoder::graph(&recipe.name, weights, &metadata(recipe)).to_onnx();
    check(&golden, &onnx, &output.join("checkpoints/student.onnx"))?;
    let report = report(recipe, inputs, learned, onnx.len());
    let measure = inputs.of_student.exam.measure();
    let trainings = trainings([
        (Stage::Teacher, learned.teacher.as_ref()),
        (Stage::Student, Some(&learned.student)),
        (Stage::Baseline, learned.baseline.as_ref()),
    ]);
    let mut files = vec![
        ("student.onnx", onnx),
        ("tokenizer.json", inputs.vocabulary.json.clone()),
        ("golden.json", serde_json::to_vec(&golden).expect("plain data is JSON")),
        ("metrics.jsonl", metrics(&trainings, measure)),
        ("curves.svg", curves::svg(&trainings, measure).into_bytes()),
        ("report.json", serde_json::to_vec_pretty(&report).expect("a report is JSON")),
        ("report.md", report.to_markdown().into_bytes()),
    ];
    if !inputs.labels.is_empty() {
        files.push(("labels.txt", lines(&inputs.labels)));
    }
    files.extend(inputs.held_out.iter().map(|examples| ("validation.tsv", data::tsv(examples))));
    for (name, bytes) in files {
        files::write(&output.join(name), &bytes)?;
    }
    Ok(report)
}

/// The answers of `network`, which is on the plain CPU device, about all of `examples`.
pub(crate) fn asked<S: Student>(network: &S, examples: &S::Examples) -> Answers {
    let device = Device::flex();
    let each = &mut |_, _| ControlFlow::Continue(());
    let answers = ask(network, &device, examples, Mode::default(), each);
    answers.expect("nobody stops it")
}

/// The properties that the model carries with it.
fn metadata(recipe: &Recipe) -> [(&'static str, String); 5] {
    let mut teachers = vec![recipe.teacher.licence.clone()];
    teachers.extend(recipe.further_teachers.iter().map(|further| further.licence.clone()));
    [
        ("dram.recipe", recipe.name.clone()),
        ("dram.seed", recipe.seed.to_string()),
        ("dram.teacher", teachers.join("; ")),
        ("dram.data", recipe.data.licence().to_owned()),
        ("dram.losses", terms(&recipe.losses)),
    ]
}

/// The terms of a loss as a recipe has them, in one line.
pub(crate) fn terms(losses: &Losses) -> String {
    serde_json::to_string(losses).expect("a loss is numbers and names")
}

/// Nobody sees a student that the runtime does not run as it was trained: it is tried at `path`.
fn check(golden: &Golden, onnx: &[u8], path: &Path) -> Result<()> {
    files::write(path, onnx)?;
    golden.check(path)?;
    std::fs::remove_file(path).map_err(Error::io("remove", path))
}

fn report(recipe: &Recipe, inputs: &Inputs, learned: &Learned, onnx_bytes: usize) -> Report {
    let Learned { teacher, taught, student, baseline, layers, device } = learned;
    let of_student = &inputs.of_student;
    let seconds = Seconds {
        teacher: teacher.as_ref().map_or(0.0, |teacher| teacher.seconds),
        answers: taught.as_ref().map_or(0.0, |taught| taught.seconds),
        student: student.seconds,
    };
    let teacher = taught.as_ref().map(|taught| {
        let reading = &inputs.of_teacher;
        let trial = taught.trial.as_ref();
        Model::new(taught.architecture, validation(reading, &taught.validation, trial, Vec::new()))
    });
    let history = &student.history;
    let student = examined(&student.weights, of_student);
    let baseline = baseline.as_ref().map(|baseline| examined(&baseline.weights, of_student));
    let score = student.validation.score();
    let against = baseline.as_ref().map(|baseline| baseline.validation.score());
    let whole = inputs.first.architecture().encoder_parameters();
    Report {
        recipe: recipe.clone(),
        retention: teacher.as_ref().map(|teacher| score / teacher.validation.score()),
        encoder_share: student.encoder_parameters as f64 / whole as f64,
        layers: layers.clone(),
        alarms: alarms(history, score, against),
        teacher,
        student,
        baseline,
        onnx_bytes,
        data: Data {
            train_examples: inputs.facts.train_examples,
            train_blake3: inputs.facts.train_blake3.clone(),
            validation_examples: inputs.facts.validation_examples,
            validation_blake3: inputs.facts.validation_blake3.clone(),
            left_out: inputs.facts.left_out,
            teacher_blake3: blake3::hash(&inputs.teacher.checkpoint).to_hex().to_string(),
        },
        device: *device,
        seconds,
    }
}

/// A model that reads as the student does, with its figures.
fn examined(weights: &Weights, reading: &Reading) -> Model {
    let about = |weights: &Weights, examples: &Examples| {
        asked(&Encoder::new(weights, &Device::flex()), examples)
    };
    let architecture = weights.architecture();
    let exam = reading.exam.examples();
    let exits = (0..architecture.exits)
        .map(|exit| reading.exam.grade(&about(&weights.until_exit(exit), exam)))
        .collect();
    let trial = reading.trial.as_ref();
    let trial =
        trial.map(|trial| [about(weights, &trial.train), about(weights, &trial.validation)]);
    Model::new(architecture, validation(reading, &about(weights, exam), trial.as_ref(), exits))
}

fn validation(
    reading: &Reading,
    answers: &Answers,
    trial: Option<&[Answers; 2]>,
    exits: Vec<f64>,
) -> Validation {
    if let Exam::Labels(examples) = &reading.exam {
        return Validation::Labels { accuracy: answers.accuracy(&examples.labels), exits };
    }
    let tried = trial.zip(reading.trial.as_ref()).and_then(|([train, validation], trial)| {
        let classes = 1 + trial.train.labels.iter().max()?;
        let train = (train.embeddings.as_ref()?, &trial.train.labels[..]);
        let validation = (validation.embeddings.as_ref()?, &trial.validation.labels[..]);
        Some(try_out(train, validation, classes))
    });
    Validation::Sentences { spearman: reading.exam.grade(answers), tried }
}

/// The passes of every training by name; one that had none is left out.
pub(crate) fn trainings<S>(stages: [(Stage, Option<&Trained<S>>); 3]) -> Vec<(String, &[Epoch])> {
    let stages = stages.into_iter().filter_map(|(stage, trained)| Some((stage, trained?)));
    let stages = stages.filter(|(_, trained)| !trained.history.is_empty());
    stages.map(|(stage, trained)| (stage.name().to_owned(), &trained.history[..])).collect()
}

/// One line a pass of every one of `trainings`.
pub(crate) fn metrics(trainings: &[(String, &[Epoch])], measure: Measure) -> Vec<u8> {
    let line = |stage: &str, (index, Epoch { loss, score }): (usize, &Epoch)| {
        let (epoch, measure) = (index + 1, measure.name());
        serde_json::json!({"stage": stage, "epoch": epoch, "loss": loss, measure: score})
            .to_string()
    };
    let passes = trainings.iter().flat_map(|(stage, history)| {
        history.iter().enumerate().map(|pass| line(stage, pass)).collect::<Vec<_>>()
    });
    lines(&passes.collect::<Vec<_>>())
}

pub(crate) fn lines(lines: &[String]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect()
}
