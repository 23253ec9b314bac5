//! A recipe: everything that decides what a distillation gives, as one TOML file.
//!
//! Paths are relative to the recipe's own folder. A field that is not listed here is an error, so
//! that a misspelt one never silently keeps its default. What is optional is absent where it is not
//! wanted, and changes nothing then; nothing has a hidden value.

mod check;
mod losses;
mod scheme;

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

pub use losses::{Attention, Distance, Embedding, Hidden, Losses, Relations, Soft, Words};
pub use scheme::{CoDistil, Mutual, Scheme};

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
    /// Whom the student is cut out of, and who teaches unless the scheme says otherwise.
    pub teacher: Teacher,
    /// Who teaches too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_teachers: Vec<FurtherTeacher>,
    /// What is taught.
    pub data: Data,
    /// Who learns.
    pub student: Student,
    /// What the student is held to.
    pub losses: Losses,
    /// Who teaches whom, and when.
    #[serde(default)]
    pub scheme: Scheme,
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
    /// How it is fine-tuned: on the labels, or on masked words where there are none. Absent, it
    /// teaches as it is, or learns along with the student.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Training>,
}

/// Another teacher, as any ONNX file that the runtime can run; its answers are asked for once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FurtherTeacher {
    /// The model: token ids and a mask in, the answer as its first output.
    pub onnx: PathBuf,
    /// Its `tokenizer.json`.
    pub tokenizer: PathBuf,
    /// What its answer means.
    pub gives: Gives,
    /// How much it counts against the recipe's first teacher, who counts 1.
    pub weight: f64,
    /// Whose work it is and under which licence, for the report.
    pub licence: String,
}

/// What the first output of a teacher means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gives {
    /// `[1, labels]`, in the byte order of the label names.
    Logits,
    /// `[1, width]`; or `[1, tokens, width]`, whose mean over the tokens is taken.
    Embedding,
}

/// What is taught, and so what the student gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Data {
    /// Texts with labels: the student gives logits.
    Labelled(Labelled),
    /// Texts alone: the student gives an embedding of length 1.
    Sentences(Sentences),
}

/// Labelled texts: TSV files with the header `text<TAB>label`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labelled {
    /// What both learn from.
    pub train: PathBuf,
    /// What both are measured on, and what picks the best epoch. Absent, `hold_out` of the training
    /// texts are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<PathBuf>,
    /// Training texts, drawn by the seed, that nobody learns from: what both are measured on where
    /// there is no `validation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_out: Option<usize>,
    /// Training texts to learn from at most, drawn by the seed; absent, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub take: Option<usize>,
    /// Varied copies of each training text that the student hears the teacher about, without label.
    pub variations: usize,
    /// Whose work it is and under which licence, for the report.
    pub licence: String,
}

/// Sentences without labels, and what the encoder that learns from them is measured on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sentences {
    /// Where they come from. A sentence that a measurement uses is left out, wherever it comes from.
    pub from: Vec<Source>,
    /// Scored pairs, TSV with `sentence1`, `sentence2` and `score`: picks the best epoch.
    pub pairs: PathBuf,
    /// Labelled texts for retrieval and a linear probe, measured once at the end; absent, neither is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrieval: Option<Retrieval>,
    /// Further files, of any kind named here, whose sentences nobody may learn from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_out: Vec<PathBuf>,
    /// Whose work it is and under which licence, for the report.
    pub licence: String,
}

/// A file of sentences: one a line; of a TSV with a header, the columns that hold text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// Sentences to take, drawn by the seed; absent, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub take: Option<usize>,
}

/// Labelled texts that an embedding is tried on: TSV files with the header `text<TAB>label`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retrieval {
    /// What is searched, and what the probe is fitted to.
    pub train: PathBuf,
    /// What is searched for, and what the probe is measured on.
    pub validation: PathBuf,
}

/// The shape of the student, cut out of the teacher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Student {
    /// The teacher's layers that it starts from.
    pub layers: Layers,
    /// Attention heads a layer, the teacher's most important ones; absent, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<usize>,
    /// Width of its feed-forward blocks; the teacher's most important neurons are kept.
    pub feed_forward: usize,
    /// Word pieces that it knows.
    pub vocabulary: usize,
    /// Longest input it can take, in tokens.
    pub positions: usize,
    /// Answers after every layer, trained together; absent, after the last one alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exits: Option<Exits>,
    /// From when on it is trained with the rounding of an int8 bundle; absent, never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub int8: Option<Rounding>,
    /// How it is trained.
    pub training: Training,
}

/// Which layers of the teacher a student starts from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a list of layers `[1, 3, 5]`, or `{ most_important = 3 }`")]
pub enum Layers {
    /// These, counted from 0, in ascending order.
    These(Vec<usize>),
    /// Those that the teacher's embedding misses most.
    Chosen(MostImportant),
}

/// A number of layers, chosen by what the teacher says without each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MostImportant {
    /// Layers to keep.
    pub most_important: usize,
}

/// Early exits: a pooled answer after each layer but the last, which the last one teaches too
/// (Zhang et al. 2019, "Be your own teacher").
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exits {
    /// Weight of each exit's loss against that of the last layer's.
    pub weight: f64,
    /// Weight, within an exit's loss, of the divergence from the last layer's softened distribution.
    pub deepest: f64,
    /// Divides both sides' logits before the softmax of that divergence.
    pub temperature: f64,
}

/// Training through the quantizer: forward with the rounding of an int8 bundle, backward without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rounding {
    /// Passes over the data in f32 before it starts.
    pub after_epochs: usize,
}

/// One training: AdamW under a learning rate that rises linearly, then falls as a cosine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Passes over the data.
    pub epochs: usize,
    /// Examples a step.
    pub batch: usize,
    /// Parts that a batch is computed in, one after the other: as many times less memory. In-batch
    /// losses see one part at a time. Absent, 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<usize>,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Share of all steps during which the learning rate rises, in `[0, 1)`.
    pub warmup: f64,
    /// Decoupled weight decay; biases and normalizations are exempt.
    pub weight_decay: f32,
    /// Global norm to which gradients are cut.
    pub clip_norm: f64,
    /// Passes without a better measurement after which it ends early; absent, it never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<usize>,
}

impl Recipe {
    /// Reads and checks the recipe at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read, [`Error::Recipe`] with line, field and the allowed
    /// fields where it does not parse, [`Error::RecipeValue`] where a value is out of range or does
    /// not go with another.
    pub fn load(path: &Path) -> Result<Recipe> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        Recipe::parse(&text, path)
    }

    /// Parses `text` as the recipe that stands at `path`.
    ///
    /// # Errors
    /// As [`Recipe::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Recipe> {
        let recipe = Recipe { path: path.to_owned(), ..from_toml(text, path)? };
        recipe.check()?;
        Ok(recipe)
    }

    /// Where a path of the recipe lies, seen from the working directory.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }
}

/// `text` as the recipe that stands at `path`, unchecked.
///
/// # Errors
/// [`Error::Recipe`] with line, field and the allowed fields.
pub(crate) fn from_toml<R: DeserializeOwned>(text: &str, path: &Path) -> Result<R> {
    toml::from_str(text).map_err(|error| Error::Recipe {
        path: path.to_owned(),
        reason: error.to_string().trim_end().to_owned(),
    })
}

impl Data {
    /// Whose work it is and under which licence.
    pub fn licence(&self) -> &str {
        match self {
            Data::Labelled(labelled) => &labelled.licence,
            Data::Sentences(sentences) => &sentences.licence,
        }
    }
}

impl Layers {
    /// How many.
    pub fn count(&self) -> usize {
        match self {
            Layers::These(layers) => layers.len(),
            Layers::Chosen(chosen) => chosen.most_important,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Task;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes")
    }

    fn intents() -> (String, PathBuf) {
        let path = folder().join("intents.toml");
        (std::fs::read_to_string(&path).expect("the recipe is part of the crate"), path)
    }

    #[test]
    fn every_recipe_parses() {
        let recipes = std::fs::read_dir(folder()).expect("recipes are part of the crate");
        let paths = recipes.map(|entry| entry.expect("readable").path());
        let mut found = 0;
        for path in paths.filter(|path| path.extension().is_some_and(|kind| kind == "toml")) {
            let name = match Task::load(&path).unwrap_or_else(|error| panic!("{error}")) {
                Task::Text(recipe) => recipe.name,
                Task::Signals(recipe) => recipe.name,
            };
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            assert_eq!(Some(name.as_str()), stem, "a recipe is named like its file");
            found += 1;
        }
        assert!(found > 0);
    }

    #[test]
    fn a_wrong_field_is_named_with_its_line_and_the_allowed_fields() {
        let (text, path) = intents();
        let text = text.replace("temperature", "temprature");
        let message = Recipe::parse(&text, &path).expect_err("a misspelt field").to_string();
        let line = 1 + text.lines().position(|line| line.contains("temprature")).expect("there");
        for part in ["intents.toml", &format!("line {line}"), "temprature", "`temperature`"] {
            assert!(message.contains(part), "no {part} in: {message}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused_by_name() {
        let (text, path) = intents();
        for (from, to, field, expected) in [
            ("3e-4", "3.0", "teacher.training", "`learning_rate` between 0 and 0.1"),
            ("layers = [1, 5]", "layers = [5, 1]", "student.layers", "ascending"),
            ("batch = 64", "batch = 64\nparts = 99", "training", "`parts`"),
            (
                "hard = 0.2",
                "hard = 0.2\nattention = { weight = 1.0, layers = [[0, 1]] }\nwords = { hard = 1.0, soft = 1.0, temperature = 2.0, share = 2.0 }",
                "losses.words",
                "share",
            ),
            (
                "[losses]",
                "[scheme.mutual]\npeers = [[0, 4]]\n[losses]",
                "teacher.training",
                "nobody",
            ),
            ("[losses]", "scheme = \"online\"\n[losses]", "scheme", "unknown field"),
        ] {
            let message = match Recipe::parse(&text.replace(from, to), &path) {
                Ok(_) => panic!("`{to}` was taken"),
                Err(error) => error.to_string(),
            };
            assert!(message.contains(field), "no {field} in: {message}");
            assert!(message.contains(expected), "no {expected} in: {message}");
        }
    }
}
