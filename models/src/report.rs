//! What a distillation gave: figures, sizes and whose work went into it.

use std::fmt::Write;

use serde::Serialize;

use crate::answers::Accuracy;
use crate::recipe::Recipe;
use crate::weights::Architecture;

/// The figures of a distillation, as `report.json` holds them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The recipe, word for word.
    pub recipe: Recipe,
    /// The fine-tuned teacher.
    pub teacher: Model,
    /// The student.
    pub student: Model,
    /// The student's validation accuracy divided by the teacher's.
    pub retention: f64,
    /// The student's transformer layers divided by the teacher's, in parameters.
    pub encoder_share: f64,
    /// Size of `student.onnx`.
    pub onnx_bytes: usize,
    /// The data that both learned from and were measured on.
    pub data: Data,
    /// Time spent; a reused stage counts as it did when it ran.
    pub seconds: Seconds,
}

/// One model's sizes and figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Model {
    /// Its sizes.
    pub architecture: Architecture,
    /// All parameters.
    pub parameters: usize,
    /// Parameters of the transformer layers: no embeddings, no head.
    pub encoder_parameters: usize,
    /// On the validation examples.
    pub validation: Accuracy,
}

/// The data files by content.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Data {
    /// Examples to learn from.
    pub train_examples: usize,
    /// BLAKE3 of that file.
    pub train_blake3: String,
    /// Examples to measure on.
    pub validation_examples: usize,
    /// BLAKE3 of that file.
    pub validation_blake3: String,
    /// BLAKE3 of the teacher's checkpoint before fine-tuning.
    pub teacher_blake3: String,
}

/// Wall time of the stages.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Seconds {
    /// Fine-tuning the teacher.
    pub teacher: f64,
    /// Collecting its answers.
    pub answers: f64,
    /// Training the student.
    pub student: f64,
}

impl Model {
    /// A model of these sizes with these figures.
    pub(crate) fn new(architecture: Architecture, validation: Accuracy) -> Model {
        Model {
            parameters: architecture.parameters(),
            encoder_parameters: architecture.encoder_parameters(),
            architecture,
            validation,
        }
    }
}

impl Report {
    /// The report as a model card: what it is, how good, from what, and whose.
    pub fn to_markdown(&self) -> String {
        let mut card = format!("# {}\n\n{}\n", self.recipe.name, self.summary());
        card += "\n## Figures\n\n";
        card += "Measured on the validation examples, which also chose the best pass.\n\n";
        card += "| | teacher | student | share |\n|---|---|---|---|\n";
        let rows = [
            ("accuracy", percents(self, |m| m.validation.accuracy), self.retention),
            (
                "macro F1",
                percents(self, |m| m.validation.macro_f1),
                self.student.validation.macro_f1 / self.teacher.validation.macro_f1,
            ),
            ("parameters", counts(self, |m| m.parameters), share(self, |m| m.parameters)),
            (
                "of these in transformer layers",
                counts(self, |m| m.encoder_parameters),
                self.encoder_share,
            ),
            (
                "layers",
                counts(self, |m| m.architecture.layers),
                share(self, |m| m.architecture.layers),
            ),
            (
                "word pieces",
                counts(self, |m| m.architecture.vocabulary),
                share(self, |m| m.architecture.vocabulary),
            ),
        ];
        for (name, [teacher, student], share) in rows {
            let _ = writeln!(card, "| {name} | {teacher} | {student} | {:.1} % |", 100.0 * share);
        }
        let _ = write!(card, "\n## Lineage\n\n{}", self.lineage());
        card
    }

    fn summary(&self) -> String {
        let Architecture { labels, layers, hidden, feed_forward, positions, .. } =
            self.student.architecture;
        format!(
            "Classifies a text of up to {positions} tokens into {labels} classes: {layers} \
             transformer layers of width {hidden} (feed-forward {feed_forward}), masked mean \
             pooling, one linear head. Inputs `input_ids` and `attention_mask`, i64 \
             `[batch, sequence]`; output `logits`, f32 `[batch, {labels}]`, in the order of \
             `labels.txt`."
        )
    }

    fn lineage(&self) -> String {
        let Report { recipe, data, seconds, .. } = self;
        let mut lines = vec![
            format!("teacher: {} (BLAKE3 `{}`)", recipe.teacher.licence, data.teacher_blake3),
            format!(
                "data: {}; {} examples to learn from (BLAKE3 `{}`), {} to measure on (BLAKE3 `{}`)",
                recipe.data.licence,
                data.train_examples,
                data.train_blake3,
                data.validation_examples,
                data.validation_blake3
            ),
            format!("seed: {}", recipe.seed),
        ];
        lines.push(format!(
            "time: {:.0} s fine-tuning the teacher, {:.0} s asking it, {:.0} s training the student",
            seconds.teacher, seconds.answers, seconds.student
        ));
        lines.iter().map(|line| format!("- {line}\n")).collect()
    }
}

fn percents(report: &Report, of: impl Fn(&Model) -> f64) -> [String; 2] {
    [&report.teacher, &report.student].map(|model| format!("{:.2} %", 100.0 * of(model)))
}

fn counts(report: &Report, of: impl Fn(&Model) -> usize) -> [String; 2] {
    [&report.teacher, &report.student].map(|model| of(model).to_string())
}

fn share(report: &Report, of: impl Fn(&Model) -> usize) -> f64 {
    of(&report.student) as f64 / of(&report.teacher) as f64
}
