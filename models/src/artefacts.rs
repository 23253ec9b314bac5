//! What a distillation leaves in its folder.

use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::Device;

use crate::answers::{Accuracy, Answers, ask};
use crate::checkpoint::{Epoch, Trained};
use crate::encoder::Encoder;
use crate::error::{Error, Result};
use crate::export;
use crate::files;
use crate::golden::Golden;
use crate::inputs::Inputs;
use crate::progress::Stage;
use crate::recipe::Recipe;
use crate::report::{Data, Model, Report, Seconds};

/// What the stages gave.
pub(crate) struct Learned {
    pub(crate) teacher: Trained,
    /// The teacher's, about the validation examples.
    pub(crate) answers: Answers,
    /// Time that collecting the answers took.
    pub(crate) asking: f64,
    pub(crate) student: Trained,
}

/// Writes every artefact into `output`, each whole or not at all.
///
/// # Errors
/// [`Error::Export`] where the runtime does not give the trainer's logits: then nothing is written.
pub(crate) fn write(
    recipe: &Recipe,
    inputs: &Inputs,
    learned: &Learned,
    output: &Path,
) -> Result<Report> {
    let weights = &learned.student.weights;
    let encoder = Encoder::new(weights, &Device::flex());
    let golden = Golden::new(&encoder, &inputs.student_validation);
    let onnx = export::graph(&recipe.name, weights, &metadata(recipe)).to_onnx();
    check(&golden, &onnx, &output.join("checkpoints/student.onnx"))?;
    let report = report(recipe, inputs, learned, accuracy(&encoder, inputs), onnx.len());
    for (name, bytes) in [
        ("student.onnx", onnx),
        ("tokenizer.json", inputs.vocabulary.json.clone()),
        ("labels.txt", lines(&inputs.labels)),
        ("golden.json", serde_json::to_vec(&golden).expect("plain data is JSON")),
        ("metrics.jsonl", metrics(learned)),
        ("report.json", serde_json::to_vec_pretty(&report).expect("a report is JSON")),
        ("report.md", report.to_markdown().into_bytes()),
    ] {
        files::write(&output.join(name), &bytes)?;
    }
    Ok(report)
}

/// The properties that the model carries with it.
fn metadata(recipe: &Recipe) -> [(&'static str, String); 4] {
    [
        ("dram.recipe", recipe.name.clone()),
        ("dram.seed", recipe.seed.to_string()),
        ("dram.teacher", recipe.teacher.licence.clone()),
        ("dram.data", recipe.data.licence.clone()),
    ]
}

/// Nobody sees a student that the runtime does not run as it was trained: it is tried at `path`.
fn check(golden: &Golden, onnx: &[u8], path: &Path) -> Result<()> {
    files::write(path, onnx)?;
    golden.check(path)?;
    std::fs::remove_file(path).map_err(Error::io("remove", path))
}

fn accuracy(encoder: &Encoder, inputs: &Inputs) -> Accuracy {
    let examples = &inputs.student_validation;
    let answers = ask(encoder, examples, &mut |_, _| ControlFlow::Continue(()));
    answers.expect("nobody stops it").accuracy(&examples.labels)
}

fn report(
    recipe: &Recipe,
    inputs: &Inputs,
    learned: &Learned,
    validation: Accuracy,
    onnx_bytes: usize,
) -> Report {
    let Learned { teacher, answers, asking, student } = learned;
    let taught = answers.accuracy(&inputs.validation.labels);
    let seconds = Seconds { teacher: teacher.seconds, answers: *asking, student: student.seconds };
    let teacher = Model::new(teacher.weights.architecture(), taught);
    let student = Model::new(student.weights.architecture(), validation);
    Report {
        recipe: recipe.clone(),
        retention: validation.accuracy / taught.accuracy,
        encoder_share: student.encoder_parameters as f64 / teacher.encoder_parameters as f64,
        teacher,
        student,
        onnx_bytes,
        data: Data {
            train_examples: inputs.train.len(),
            train_blake3: inputs.train_blake3.clone(),
            validation_examples: inputs.validation.len(),
            validation_blake3: inputs.validation_blake3.clone(),
            teacher_blake3: blake3::hash(&inputs.teacher.checkpoint).to_hex().to_string(),
        },
        seconds,
    }
}

/// One line a pass, teacher first.
fn metrics(learned: &Learned) -> Vec<u8> {
    let stages = [(Stage::Teacher, &learned.teacher), (Stage::Student, &learned.student)];
    let passes = stages.map(|(stage, trained)| {
        let line = |(index, Epoch { loss, accuracy }): (usize, &Epoch)| {
            let (stage, epoch) = (stage.name(), index + 1);
            serde_json::json!({"stage": stage, "epoch": epoch, "loss": loss, "accuracy": accuracy})
                .to_string()
        };
        trained.history.iter().enumerate().map(line).collect::<Vec<_>>()
    });
    lines(&passes.concat())
}

fn lines(lines: &[String]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect()
}
