//! What a distillation gave: figures, sizes and whose work went into it.

use std::fmt::Write;

use serde::Serialize;

use crate::answers::Accuracy;
use crate::device::Device;
use crate::recipe::Recipe;
use crate::trial::Tried;
use crate::weights::Architecture;

/// The figures of a distillation, as `report.json` holds them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The recipe, word for word.
    pub recipe: Recipe,
    /// The teacher as it taught; none where students teach each other or themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<Model>,
    /// The student.
    pub student: Model,
    /// The same student trained without a teacher, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Model>,
    /// The student's score on the validation examples divided by the teacher's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<f64>,
    /// The student's transformer layers divided by those it was cut out of, in parameters.
    pub encoder_share: f64,
    /// The teacher's layers that it started from.
    pub layers: Vec<usize>,
    /// Size of `student.onnx`.
    pub onnx_bytes: usize,
    /// What gives reason to doubt that it was worth it.
    pub alarms: Vec<String>,
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
    pub architecture: Architecture,
    /// All parameters.
    pub parameters: usize,
    /// Parameters of the transformer layers: no embeddings, no head.
    pub encoder_parameters: usize,
    /// On the validation examples.
    pub validation: Validation,
}

/// One of a model's sizes.
type Size = fn(&Model) -> usize;

/// Figures on examples that nobody learned from.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Validation {
    /// Of a classifier.
    Labels {
        /// Of the answer after the last layer.
        #[serde(flatten)]
        accuracy: Accuracy,
        /// Accuracy of each early exit on all examples, the first one's first.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        exits: Vec<f64>,
    },
    /// Of a sentence encoder.
    Sentences {
        /// Rank correlation with the scores of the pairs.
        spearman: f64,
        /// On labelled texts, where the recipe names some.
        #[serde(flatten, skip_serializing_if = "Option::is_none")]
        tried: Option<Tried>,
    },
}

/// The data files by content.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Data {
    /// Examples to learn from.
    pub train_examples: usize,
    /// BLAKE3 of that file; of several, of their hashes.
    pub train_blake3: String,
    /// Examples to measure on.
    pub validation_examples: usize,
    /// BLAKE3 of that file.
    pub validation_blake3: String,
    /// Texts of the training files that nobody learned from, since a measurement uses them.
    pub left_out: usize,
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
    pub(crate) fn new(architecture: Architecture, validation: Validation) -> Model {
        Model {
            parameters: architecture.parameters(),
            encoder_parameters: architecture.encoder_parameters(),
            architecture,
            validation,
        }
    }
}

impl Validation {
    /// The figure that picked the best pass.
    pub fn score(&self) -> f64 {
        match self {
            Validation::Labels { accuracy, .. } => accuracy.accuracy,
            Validation::Sentences { spearman, .. } => *spearman,
        }
    }

    /// All figures by name; each is 1 at best.
    pub fn figures(&self) -> Vec<(&'static str, f64)> {
        match self {
            Validation::Labels { accuracy, .. } => {
                vec![("accuracy", accuracy.accuracy), ("macro F1", accuracy.macro_f1)]
            }
            Validation::Sentences { spearman, tried } => {
                let mut figures = vec![("Spearman on pairs", *spearman)];
                figures.extend(tried.iter().flat_map(|tried| {
                    [
                        ("retrieval, recall at 1", tried.recall_at_1),
                        ("linear probe", tried.linear_probe),
                    ]
                }));
                figures
            }
        }
    }
}

impl Report {
    /// The report as a model card: what it is, how good, from what, and whose.
    pub fn to_markdown(&self) -> String {
        let mut card = format!("# {}\n\n{}\n", self.recipe.name, self.summary());
        card += "\n## Figures\n\n";
        card += "Measured on the validation examples, which also chose the best pass.\n\n";
        card += &self.figures();
        if let Validation::Labels { exits, .. } = &self.student.validation {
            for (exit, accuracy) in exits.iter().enumerate() {
                let _ = writeln!(card, "\nAfter layer {}: {:.2} %.", exit + 1, 100.0 * accuracy);
            }
        }
        for alarm in &self.alarms {
            let _ = writeln!(card, "\n**{alarm}**");
        }
        let _ = write!(card, "\n## Lineage\n\n{}", self.lineage());
        card
    }

    fn figures(&self) -> String {
        let models = [
            ("teacher", self.teacher.as_ref()),
            ("without teacher", self.baseline.as_ref()),
            ("student", Some(&self.student)),
        ];
        let models: Vec<(&str, &Model)> =
            models.into_iter().filter_map(|(name, model)| Some((name, model?))).collect();
        let names: Vec<&str> = models.iter().map(|(name, _)| *name).collect();
        let shared = self.teacher.is_some();
        let mut table = format!("| | {} |", names.join(" | "));
        table += if shared { " share |\n|---|---|" } else { "\n|---|" };
        table += &"---|".repeat(models.len());
        table += "\n";
        let mut row = |name: &str, cells: Vec<(String, f64)>| {
            let shown: Vec<&str> = cells.iter().map(|(shown, _)| shown.as_str()).collect();
            let _ = write!(table, "| {name} | {} |", shown.join(" | "));
            if let (true, [(_, teacher), .., (_, student)]) = (shared, &cells[..]) {
                let _ = write!(table, " {:.1} % |", 100.0 * student / teacher);
            }
            table += "\n";
        };
        for (place, (name, _)) in self.student.validation.figures().into_iter().enumerate() {
            let cell = |(_, model): &(&str, &Model)| {
                let figure = model.validation.figures().get(place).map_or(f64::NAN, |f| f.1);
                (format!("{:.2} %", 100.0 * figure), figure)
            };
            row(name, models.iter().map(cell).collect());
        }
        let sizes: [(&str, Size); 4] = [
            ("parameters", |model| model.parameters),
            ("of these in transformer layers", |model| model.encoder_parameters),
            ("layers", |model| model.architecture.layers),
            ("word pieces", |model| model.architecture.vocabulary),
        ];
        for (name, size) in sizes {
            let cell = |(_, model): &(&str, &Model)| (size(model).to_string(), size(model) as f64);
            row(name, models.iter().map(cell).collect());
        }
        table
    }

    fn summary(&self) -> String {
        let Architecture { labels, layers, hidden, feed_forward, positions, exits, .. } =
            self.student.architecture;
        let body = format!(
            "{layers} transformer layers of width {hidden} (feed-forward {feed_forward}), masked \
             mean pooling"
        );
        let inputs = "Inputs `input_ids` and `attention_mask`, i64 `[batch, sequence]`";
        match labels {
            0 => format!(
                "Turns a text of up to {positions} tokens into a vector of length 1: {body}. \
                 {inputs}; output `embedding`, f32 `[batch, {hidden}]`."
            ),
            _ => {
                let early = match exits {
                    0 => String::new(),
                    _ => "; `exit.1`, `exit.2` and so on alike, the answers after each earlier \
                          layer"
                        .to_owned(),
                };
                format!(
                    "Classifies a text of up to {positions} tokens into {labels} classes: {body}, \
                     one linear head. {inputs}; output `logits`, f32 `[batch, {labels}]`, in the \
                     order of `labels.txt`{early}."
                )
            }
        }
    }

    fn lineage(&self) -> String {
        let Report { recipe, data, device, seconds, .. } = self;
        let mut lines =
            vec![format!("teacher: {} (BLAKE3 `{}`)", recipe.teacher.licence, data.teacher_blake3)];
        let further = recipe.further_teachers.iter();
        lines.extend(further.map(|further| format!("further teacher: {}", further.licence)));
        lines.push(format!(
            "data: {}; {} examples to learn from (BLAKE3 `{}`), {} to measure on (BLAKE3 `{}`){}",
            recipe.data.licence(),
            data.train_examples,
            data.train_blake3,
            data.validation_examples,
            data.validation_blake3,
            match data.left_out {
                0 => String::new(),
                texts => format!("; {texts} texts left out because a measurement uses them"),
            }
        ));
        lines.push(format!("started from the teacher's layers {:?}", self.layers));
        lines.push(format!("seed: {}", recipe.seed));
        lines.push(format!(
            "time: {:.0} s fine-tuning the teacher, {:.0} s asking it, {:.0} s training the student, on `{device}`",
            seconds.teacher, seconds.answers, seconds.student
        ));
        lines.iter().map(|line| format!("- {line}\n")).collect()
    }
}
