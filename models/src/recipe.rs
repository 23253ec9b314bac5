//! A recipe: everything that decides what a distillation gives, as one TOML file.
//!
//! Paths are relative to the recipe's own folder. A field that is not listed here is an error, so
//! that a misspelt one never silently keeps its default; for the same reason there are no defaults.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A parsed and checked recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the student, for its graph and its report.
    pub name: String,
    /// Decides every random choice: the order of the examples and the first values of the head.
    pub seed: u64,
    /// Tokens of an example at most, `[CLS]` and `[SEP]` included; what is longer is cut.
    pub max_tokens: usize,
    /// Who teaches.
    pub teacher: Teacher,
    /// What is taught.
    pub data: Data,
    /// Who learns.
    pub student: Student,
    /// What the student is held to.
    pub losses: Losses,
    /// The file it was read from; relative paths start at its folder.
    #[serde(skip)]
    pub path: PathBuf,
}

/// The pre-trained encoder and how it is fine-tuned before it teaches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Teacher {
    /// Folder with `model.safetensors`, `config.json` and `tokenizer.json`.
    pub folder: PathBuf,
    /// Whose work it is and under which licence, for the report.
    pub licence: String,
    /// How it is fine-tuned on the data.
    pub training: Training,
}

/// Labelled texts: TSV files with the header `text<TAB>label`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// What both learn from.
    pub train: PathBuf,
    /// What both are measured on, and what picks the best epoch.
    pub validation: PathBuf,
    /// Varied copies of each training text that the student hears the teacher about, without label.
    pub variations: usize,
    /// Whose work it is and under which licence, for the report.
    pub licence: String,
}

/// The shape of the student, cut out of the teacher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Student {
    /// The teacher's layers that it starts from, counted from 0, in ascending order.
    pub layers: Vec<usize>,
    /// Width of its feed-forward blocks; the teacher's most important neurons are kept.
    pub feed_forward: usize,
    /// Word pieces that it knows.
    pub vocabulary: usize,
    /// Longest input it can take, in tokens.
    pub positions: usize,
    /// How it is trained.
    pub training: Training,
}

/// One training: AdamW under a learning rate that rises linearly, then falls as a cosine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Passes over the data.
    pub epochs: usize,
    /// Examples a step.
    pub batch: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Share of all steps during which the learning rate rises, in `[0, 1)`.
    pub warmup: f64,
    /// Decoupled weight decay; biases and layer norms are exempt.
    pub weight_decay: f32,
    /// Global norm to which gradients are cut.
    pub clip_norm: f64,
}

/// Weights of the three terms of the student's loss, and the temperature of the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Losses {
    /// Divides both sides' logits before the softmax.
    pub temperature: f64,
    /// Weight of the divergence from the teacher's softened distribution.
    pub soft: f64,
    /// Weight of the cross-entropy with the label.
    pub hard: f64,
    /// Weight of the distance from the teacher's sentence embedding.
    pub embedding: f64,
}

impl Recipe {
    /// Reads and checks the recipe at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read, [`Error::Recipe`] with line, field and the allowed
    /// fields where it does not parse, [`Error::RecipeValue`] where a value is out of range.
    pub fn load(path: &Path) -> Result<Recipe> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        Recipe::parse(&text, path)
    }

    /// Parses `text` as the recipe that stands at `path`.
    ///
    /// # Errors
    /// As [`Recipe::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Recipe> {
        let recipe: Recipe = toml::from_str(text).map_err(|error| Error::Recipe {
            path: path.to_owned(),
            reason: error.to_string().trim_end().to_owned(),
        })?;
        let recipe = Recipe { path: path.to_owned(), ..recipe };
        recipe.check()?;
        Ok(recipe)
    }

    /// Where a path of the recipe lies, seen from the working directory.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    fn check(&self) -> Result<()> {
        let student = &self.student;
        self.within("max_tokens", self.max_tokens, 3, student.positions)?;
        self.within("data.variations", self.data.variations, 0, 100)?;
        self.within("student.positions", student.positions, 3, 512)?;
        self.within("student.vocabulary", student.vocabulary, 200, 1_000_000)?;
        self.within("student.feed_forward", student.feed_forward, 1, 65_536)?;
        if student.layers.is_empty() || !student.layers.is_sorted_by(|a, b| a < b) {
            let got = format!("{:?}", student.layers);
            return Err(self.value("student.layers", "at least one layer, ascending", got));
        }
        self.check_training("teacher.training", &self.teacher.training)?;
        self.check_training("student.training", &student.training)?;
        self.check_losses()
    }

    fn check_training(&self, table: &'static str, training: &Training) -> Result<()> {
        let fault = |expected: &str, got: String| Err(self.value(table, expected, got));
        match training {
            t if t.epochs == 0 => fault("`epochs` of at least 1", "0".to_owned()),
            t if t.batch < 2 => fault("`batch` of at least 2", t.batch.to_string()),
            t if !(t.learning_rate > 0.0 && t.learning_rate < 0.1) => {
                fault("`learning_rate` between 0 and 0.1", t.learning_rate.to_string())
            }
            t if !(0.0..1.0).contains(&t.warmup) => {
                fault("`warmup` from 0 to below 1", t.warmup.to_string())
            }
            t if !(0.0..1.0).contains(&t.weight_decay) => {
                fault("`weight_decay` from 0 to below 1", t.weight_decay.to_string())
            }
            t if t.clip_norm.is_nan() || t.clip_norm <= 0.0 => {
                fault("`clip_norm` above 0", t.clip_norm.to_string())
            }
            _ => Ok(()),
        }
    }

    fn check_losses(&self) -> Result<()> {
        let Losses { temperature, soft, hard, embedding } = self.losses;
        if !(0.1..=100.0).contains(&temperature) {
            let got = temperature.to_string();
            return Err(self.value("losses.temperature", "0.1 to 100", got));
        }
        let weights = [soft, hard, embedding];
        if weights.iter().any(|weight| !(0.0..=1e6).contains(weight)) || soft + hard <= 0.0 {
            let expected = "weights of at least 0, `soft` or `hard` above it";
            return Err(self.value("losses", expected, format!("{weights:?}")));
        }
        Ok(())
    }

    fn within(&self, field: &'static str, got: usize, least: usize, most: usize) -> Result<()> {
        if (least..=most).contains(&got) {
            return Ok(());
        }
        Err(self.value(field, &format!("{least} to {most}"), got.to_string()))
    }

    fn value(&self, field: &'static str, expected: &str, got: String) -> Error {
        Error::RecipeValue { path: self.path.clone(), field, expected: expected.to_owned(), got }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intents() -> (String, PathBuf) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/intents.toml");
        (std::fs::read_to_string(&path).expect("the recipe is part of the crate"), path)
    }

    #[test]
    fn the_intents_recipe_parses() {
        let (text, path) = intents();
        let recipe = Recipe::parse(&text, &path).expect("a good recipe");
        assert_eq!(recipe.name, "intents");
        assert!(recipe.resolve(&recipe.data.train).starts_with(path.parent().expect("a folder")));
    }

    #[test]
    fn a_wrong_field_is_named_with_its_line_and_the_allowed_fields() {
        let (text, path) = intents();
        let text = text.replace("temperature", "temprature");
        let message = Recipe::parse(&text, &path).expect_err("a misspelt field").to_string();
        let line = 1 + text.lines().position(|line| line.starts_with("temprature")).expect("there");
        for part in ["intents.toml", &format!("line {line}"), "temprature", "`temperature`"] {
            assert!(message.contains(part), "no {part} in: {message}");
        }
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        let (text, path) = intents();
        let mut recipe = Recipe::parse(&text, &path).expect("a good recipe");
        recipe.student.training.learning_rate = 3.0;
        let message = recipe.check().expect_err("too high").to_string();
        assert!(message.contains("student.training"), "{message}");
        assert!(message.contains("`learning_rate` between 0 and 0.1"), "{message}");
    }
}
