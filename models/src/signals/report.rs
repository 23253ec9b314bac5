//! What a distillation over signals gave: figures, sizes and whose work went into it.

use std::fmt::Write;

use serde::Serialize;

use crate::answers::Accuracy;
use crate::device::Device;
use crate::signals::front::Front;
use crate::signals::recipe::Recipe;
use crate::signals::sizes::Convolutional;

/// The figures of a distillation, as `report.json` holds them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The recipe, word for word.
    pub recipe: Recipe,
    /// The teacher.
    pub teacher: Model,
    /// The student.
    pub student: Model,
    /// The same student, trained on the labels alone, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Model>,
    /// The student's validation accuracy divided by the teacher's.
    pub retention: f64,
    /// What gives reason to doubt that it was worth it.
    pub alarms: Vec<String>,
    /// Size of `student.onnx`.
    pub onnx_bytes: usize,
    /// The data that both learned from and were measured on.
    pub data: Data,
    /// Where it was trained; a reused stage may have been trained elsewhere.
    pub device: Device,
    /// Time spent; a reused stage counts as it did when it ran.
    pub seconds: Seconds,
}

/// One model's sizes and figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Model {
    /// Its sizes.
    pub architecture: Convolutional,
    /// Weights and biases, as they stand in the graph.
    pub parameters: usize,
    /// Multiply-adds for one signal, the front end aside.
    pub multiply_adds: usize,
    /// On the validation examples.
    pub validation: Accuracy,
}

/// The data by content.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Data {
    /// Examples to learn from, copies aside.
    pub train_examples: usize,
    /// BLAKE3 of their values and labels.
    pub train_blake3: String,
    /// Examples to measure on.
    pub validation_examples: usize,
    /// BLAKE3 of their values and labels.
    pub validation_blake3: String,
}

/// Wall time of the stages.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Seconds {
    /// Training the teacher.
    pub teacher: f64,
    /// Collecting its answers.
    pub answers: f64,
    /// Training the student.
    pub student: f64,
    /// Training it without a teacher, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<f64>,
}

impl Report {
    /// The report as a model card: what it is, how good, from what, and whose.
    pub fn to_markdown(&self) -> String {
        let mut card = format!("# {}\n\n{}\n", self.recipe.name, self.summary());
        card += "\n## Figures\n\n";
        card += "Measured on the validation examples, which also chose the best pass of each.\n\n";
        let models: Vec<(&str, &Model)> = [("teacher", &self.teacher), ("student", &self.student)]
            .into_iter()
            .chain(self.baseline.as_ref().map(|it| ("student from labels alone", it)))
            .collect();
        let columns: Vec<&str> = models.iter().map(|(name, _)| *name).collect();
        let _ = writeln!(card, "| | {} |", columns.join(" | "));
        card += &format!("|---{}|\n", "|---".repeat(columns.len()));
        let mut row = |name: &str, figure: fn(&Model) -> String| {
            let figures: Vec<String> = models.iter().map(|(_, model)| figure(model)).collect();
            let _ = writeln!(card, "| {name} | {} |", figures.join(" | "));
        };
        row("accuracy", |model| percent(model.validation.accuracy));
        row("macro F1", |model| percent(model.validation.macro_f1));
        row("parameters", |model| model.parameters.to_string());
        row("multiply-adds", |model| model.multiply_adds.to_string());
        for alarm in &self.alarms {
            let _ = writeln!(card, "\n**{alarm}**");
        }
        let _ = write!(card, "\n## Lineage\n\n{}", self.lineage());
        card
    }

    fn summary(&self) -> String {
        let Convolutional { front, blocks, labels } = &self.student.architecture;
        let given = match front {
            Front::Windows { samples, channels } => {
                format!("a window of {samples} samples of {channels} numbers")
            }
            Front::Sound { samples, rate_hz, frame, hop, bands } => format!(
                "a recording of {samples} samples at {rate_hz} Hz, in `[-1, 1]`, of which the \
                 graph itself takes {bands} bands of the logarithmic mel spectrum (frames of \
                 {frame} samples, every {hop})"
            ),
            Front::Image { height, width } => {
                format!("a grey image of {height} x {width} pixels, in `[0, 1]`")
            }
        };
        let shape: Vec<String> = front.input().iter().map(usize::to_string).collect();
        let channels: Vec<String> = blocks.iter().map(|it| it.channels.to_string()).collect();
        format!(
            "Classifies {given} into {labels} classes: {} blocks of convolutions with {} channels, \
             a mean over each, one linear head. Input `signal`, f32 `[batch, {}]`; output \
             `logits`, f32 `[batch, {labels}]`, in the order of `labels.txt`.",
            blocks.len(),
            channels.join(", "),
            shape.join(", ")
        )
    }

    fn lineage(&self) -> String {
        let Report { recipe, data, device, seconds, .. } = self;
        let alone = seconds.baseline.map(|it| format!(", {it:.0} s training it without a teacher"));
        let lines = [
            "teacher: trained by the same recipe, on the same data".to_owned(),
            format!(
                "data: {}; {} examples to learn from (BLAKE3 `{}`), {} to measure on (BLAKE3 `{}`)",
                recipe.data.licence(),
                data.train_examples,
                data.train_blake3,
                data.validation_examples,
                data.validation_blake3
            ),
            format!("seed: {}", recipe.seed),
            format!(
                "time: {:.0} s training the teacher, {:.0} s asking it, {:.0} s training the student{}, on `{device}`",
                seconds.teacher,
                seconds.answers,
                seconds.student,
                alone.unwrap_or_default()
            ),
        ];
        lines.iter().map(|line| format!("- {line}\n")).collect()
    }
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}
