//! Everything that a distillation reads, and nothing that it learns.

use std::path::Path;

use crate::batches::Examples;
use crate::data::{self, Labelled};
use crate::error::{Error, Result};
use crate::recipe::{Recipe, Training};
use crate::teacher::{self, Teacher};
use crate::tokens;
use crate::variations;
use crate::vocabulary::{self, Vocabulary};
use crate::weights::{Architecture, Weights};

/// The files of a recipe, parsed and tokenized.
pub(crate) struct Inputs {
    pub(crate) teacher: Teacher,
    /// The teacher before fine-tuning, with a new head.
    pub(crate) first: Weights,
    /// In the order of the logits.
    pub(crate) labels: Vec<String>,
    /// What the teacher is fine-tuned on, under its own tokenizer.
    pub(crate) train: Examples,
    /// What it is asked about: the same, then the variations.
    pub(crate) asked: Examples,
    pub(crate) validation: Examples,
    pub(crate) vocabulary: Vocabulary,
    /// What it was asked about, under the student's tokenizer.
    pub(crate) student_train: Examples,
    pub(crate) student_validation: Examples,
    pub(crate) train_blake3: String,
    pub(crate) validation_blake3: String,
}

impl Inputs {
    /// Reads what `recipe` names.
    ///
    /// # Errors
    /// [`Error::NoTeacher`], [`Error::Teacher`], [`Error::Data`], [`Error::Tokenizer`] or
    /// [`Error::Io`], each with the file.
    pub(crate) fn load(recipe: &Recipe) -> Result<Inputs> {
        let teacher = teacher::load(&recipe.resolve(&recipe.teacher.folder))?;
        let paths = [&recipe.data.train, &recipe.data.validation].map(|path| recipe.resolve(path));
        let [train, validation] = [data::read(&paths[0])?, data::read(&paths[1])?];
        let labels = data::label_names(&train);
        let varied = variations::vary(&train.texts, recipe.data.variations, recipe.seed);
        let everything = Labelled { texts: [&train.texts[..], &varied].concat(), ..train.clone() };
        let examples = |tokenizer: &[u8], texts: &Labelled, path: &Path| -> Result<Examples> {
            let labels = data::label_indices(texts, &labels, path)?;
            let rows = tokens::rows(tokenizer, &texts.texts, recipe.max_tokens)?;
            Ok(Examples { rows, labels })
        };
        let taught = examples(&teacher.tokenizer, &train, &paths[0])?;
        let size = recipe.student.vocabulary;
        let vocabulary =
            vocabulary::prune(&teacher.tokenizer, &taught.rows, size, recipe.student.positions)?;
        Ok(Inputs {
            first: teacher.with_head(labels.len(), recipe.seed)?,
            validation: examples(&teacher.tokenizer, &validation, &paths[1])?,
            asked: examples(&teacher.tokenizer, &everything, &paths[0])?,
            student_train: examples(&vocabulary.json, &everything, &paths[0])?,
            student_validation: examples(&vocabulary.json, &validation, &paths[1])?,
            train_blake3: hash_file(&paths[0])?,
            validation_blake3: hash_file(&paths[1])?,
            train: taught,
            labels,
            teacher,
            vocabulary,
        })
    }

    /// Multiply-adds of the whole distillation.
    pub(crate) fn work(&self, recipe: &Recipe) -> f64 {
        let from = self.first.architecture();
        let to = Architecture {
            layers: recipe.student.layers.len(),
            feed_forward: recipe.student.feed_forward,
            ..from
        };
        let work = |training: &Training, examples: &Examples, sizes: Architecture| {
            let tokens = 3 * examples.tokens() + self.validation.tokens();
            (training.epochs * tokens) as f64 * sizes.encoder_parameters() as f64
        };
        work(&recipe.teacher.training, &self.train, from)
            + self.answers_work()
            + work(&recipe.student.training, &self.asked, to)
    }

    /// Multiply-adds of asking the teacher about every example.
    pub(crate) fn answers_work(&self) -> f64 {
        let tokens = self.asked.tokens() + self.validation.tokens();
        tokens as f64 * self.first.architecture().encoder_parameters() as f64
    }
}

/// BLAKE3 of `parts`, each with its length, so that no two lists of parts run together.
pub(crate) fn hash(parts: &[&[u8]]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.finalize().to_hex().to_string()
}

fn hash_file(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}
