//! Everything that a distillation reads, and nothing that it learns.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::batches::Examples;
use crate::data::{self, Labelled as Texts};
use crate::error::{Error, Result};
use crate::exam::Exam;
use crate::interface::Dataset;
use crate::recipe::{self, Data, Labelled, Recipe, Retrieval, Scheme, Sentences, Training};
use crate::seed::Random;
use crate::teacher::{self, Teacher};
use crate::tokens;
use crate::train::Mask;
use crate::variations;
use crate::vocabulary::{self, Vocabulary};
use crate::weights::{Architecture, Weights};

/// The files of a recipe, parsed and tokenized.
pub(crate) struct Inputs {
    pub(crate) teacher: Teacher,
    /// The teacher before fine-tuning, with a new head where there are labels.
    pub(crate) first: Weights,
    /// In the order of the logits; none for sentences.
    pub(crate) labels: Vec<String>,
    /// What the student hears the teachers about: the training texts, then the variations.
    pub(crate) texts: Vec<String>,
    pub(crate) vocabulary: Vocabulary,
    /// Under the teacher's own tokenizer.
    pub(crate) of_teacher: Reading,
    /// Under the student's.
    pub(crate) of_student: Reading,
    /// The examples that were held out to measure on; none where a file of their own has them.
    pub(crate) held_out: Option<Texts>,
    pub(crate) facts: Facts,
}

/// All texts under one tokenizer.
pub(crate) struct Reading {
    /// The training texts, with their labels where they have any, then the variations.
    pub(crate) all: Examples,
    /// How many of them are no variations.
    pub(crate) originals: usize,
    pub(crate) exam: Exam,
    pub(crate) trial: Option<Trial>,
    /// What stands for a hidden word, where there is such a token.
    pub(crate) mask: Option<Mask>,
}

/// Labelled texts that a sentence encoder is tried on, and nobody learns from.
pub(crate) struct Trial {
    pub(crate) train: Examples,
    pub(crate) validation: Examples,
}

/// The data by content, for the report.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Facts {
    pub(crate) train_examples: usize,
    pub(crate) train_blake3: String,
    pub(crate) validation_examples: usize,
    pub(crate) validation_blake3: String,
    /// Texts of the training files that nobody learns from, since a measurement uses them.
    pub(crate) left_out: usize,
}

/// Texts to learn from and to measure on, whatever they are for.
struct Gathered {
    train: Texts,
    varied: Vec<String>,
    exam: Questions,
    trial: Option<[(Texts, PathBuf); 2]>,
    train_path: PathBuf,
    exam_path: PathBuf,
    facts: Facts,
}

enum Questions {
    Labelled(Texts),
    Pairs(data::Pairs),
}

impl Inputs {
    /// Reads what `recipe` names.
    ///
    /// # Errors
    /// [`Error::NoTeacher`], [`Error::Teacher`], [`Error::Data`], [`Error::Pairs`],
    /// [`Error::Tokenizer`] or [`Error::Io`], each with the file.
    pub(crate) fn load(recipe: &Recipe) -> Result<Inputs> {
        let teacher = teacher::load(&recipe.resolve(&recipe.teacher.folder))?;
        let gathered = match &recipe.data {
            Data::Labelled(labelled) => gather_labelled(recipe, labelled)?,
            Data::Sentences(sentences) => gather_sentences(recipe, sentences)?,
        };
        let labels = data::label_names(&gathered.train);
        let taught = tokens::rows(&teacher.tokenizer, &gathered.train.texts, recipe.max_tokens)?;
        let recipe::Student { vocabulary, positions, .. } = recipe.student;
        let vocabulary = vocabulary::prune(&teacher.tokenizer, &taught, vocabulary, positions)?;
        let first = teacher.with_head(labels.len(), recipe.seed)?;
        let read = |tokenizer: &[u8], words| {
            let reading = gathered.read(tokenizer, &labels, recipe.max_tokens)?;
            let mask = tokens::id(tokenizer, "[MASK]")?.map(|id| Mask { id, words });
            Ok::<Reading, Error>(Reading { mask, ..reading })
        };
        Ok(Inputs {
            of_teacher: read(&teacher.tokenizer, first.architecture().vocabulary)?,
            of_student: read(&vocabulary.json, vocabulary.kept.len())?,
            first,
            texts: [gathered.train.texts, gathered.varied].concat(),
            held_out: match (&recipe.data, gathered.exam) {
                (Data::Labelled(Labelled { hold_out: Some(_), .. }), Questions::Labelled(exam)) => {
                    Some(exam)
                }
                _ => None,
            },
            facts: gathered.facts,
            labels,
            teacher,
            vocabulary,
        })
    }

    /// Multiply-adds of the whole distillation, but for what depends on the figures.
    pub(crate) fn work(&self, recipe: &Recipe) -> f64 {
        let from = self.first.architecture();
        let to = Architecture {
            layers: recipe.student.layers.count(),
            feed_forward: recipe.student.feed_forward,
            heads: recipe.student.heads.unwrap_or(from.heads),
            ..from
        };
        let reading = &self.of_teacher;
        let work = |training: &Training, tokens: usize, sizes: Architecture| {
            let tokens = 3 * tokens + reading.exam.examples().tokens();
            (training.epochs * tokens) as f64 * sizes.encoder_parameters() as f64
        };
        let originals = reading.originals().tokens();
        let taught = recipe.teacher.training.as_ref();
        let taught = taught.map_or(0.0, |training| work(training, originals, from));
        let student = work(&recipe.student.training, reading.all.tokens(), to);
        let asked = if recipe.scheme.has_teacher() { self.answers_work() } else { 0.0 };
        taught
            + asked
            + match &recipe.scheme {
                Scheme::Online => student + work(&recipe.student.training, originals, from),
                Scheme::Mutual(mutual) => student * (1 + mutual.peers.len()) as f64,
                Scheme::CoDistil(plan) => student / plan.workers as f64,
                Scheme::BornAgain { generations } => student * *generations as f64,
                _ => student,
            }
    }

    /// Multiply-adds of asking the teacher about every example.
    pub(crate) fn answers_work(&self) -> f64 {
        let tokens = self.of_teacher.all.tokens() + self.of_teacher.exam.examples().tokens();
        tokens as f64 * self.first.architecture().encoder_parameters() as f64
    }
}

impl Reading {
    /// The training texts without the variations.
    pub(crate) fn originals(&self) -> Examples {
        let rows = self.all.rows[..self.originals].to_vec();
        Examples { rows, labels: self.all.labels.clone() }
    }
}

impl Gathered {
    fn read(&self, tokenizer: &[u8], labels: &[String], max_tokens: usize) -> Result<Reading> {
        let rows = |texts: &[String]| tokens::rows(tokenizer, texts, max_tokens);
        let labelled = |texts: &Texts, labels: &[String], path: &Path| -> Result<Examples> {
            let labels = data::label_indices(texts, labels, path)?;
            Ok(Examples { rows: rows(&texts.texts)?, labels })
        };
        let exam = match &self.exam {
            Questions::Labelled(texts) => Exam::Labels(labelled(texts, labels, &self.exam_path)?),
            Questions::Pairs(pairs) => Exam::Pairs {
                examples: Examples {
                    rows: [rows(&pairs.first)?, rows(&pairs.second)?].concat(),
                    labels: Vec::new(),
                },
                scores: pairs.scores.clone(),
            },
        };
        let trial = match &self.trial {
            None => None,
            Some([(train, train_path), (validation, path)]) => {
                let names = data::label_names(train);
                Some(Trial {
                    train: labelled(train, &names, train_path)?,
                    validation: labelled(validation, &names, path)?,
                })
            }
        };
        let mut all = labelled(&self.train, labels, &self.train_path)?;
        let originals = all.len();
        all.rows.extend(rows(&self.varied)?);
        Ok(Reading { all, originals, exam, trial, mask: None })
    }
}

fn gather_labelled(recipe: &Recipe, labelled: &Labelled) -> Result<Gathered> {
    let train_path = recipe.resolve(&labelled.train);
    let all = data::read(&train_path)?;
    let before = all.texts.len();
    let (mut train, exam, exam_path) = match (&labelled.validation, labelled.hold_out) {
        (Some(validation), _) => {
            let path = recipe.resolve(validation);
            (all, data::read(&path)?, path)
        }
        (None, count) => {
            let mut random = Random::new(recipe.seed, "hold out", 0);
            let [train, held] = data::hold_out(all, count.unwrap_or(0), &mut random);
            (train, held, train_path.clone())
        }
    };
    let left_out = before - train.texts.len();
    if let Some(count) = labelled.take {
        let pairs = train.texts.into_iter().zip(train.labels).collect();
        let drawn = data::draw(pairs, count, &mut Random::new(recipe.seed, "take", 0));
        let (texts, labels) = drawn.into_iter().unzip();
        train = Texts { texts, labels };
    }
    Ok(Gathered {
        varied: variations::vary(&train.texts, labelled.variations, recipe.seed),
        facts: Facts {
            train_examples: train.texts.len(),
            train_blake3: hash_files(&[&train_path])?,
            validation_examples: exam.texts.len(),
            validation_blake3: hash_files(&[&exam_path])?,
            left_out,
        },
        train,
        exam: Questions::Labelled(exam),
        trial: None,
        train_path,
        exam_path,
    })
}

fn gather_sentences(recipe: &Recipe, sentences: &Sentences) -> Result<Gathered> {
    let exam_path = recipe.resolve(&sentences.pairs);
    let pairs = data::read_pairs(&exam_path)?;
    let trial = match &sentences.retrieval {
        None => None,
        Some(Retrieval { train, validation }) => {
            let [train, validation] = [recipe.resolve(train), recipe.resolve(validation)];
            Some([(data::read(&train)?, train), (data::read(&validation)?, validation)])
        }
    };
    let mut held_out: BTreeSet<String> =
        pairs.first.iter().chain(&pairs.second).map(|sentence| data::bare(sentence)).collect();
    if let Some([_, (validation, _)]) = &trial {
        held_out.extend(validation.texts.iter().map(|text| data::bare(text)));
    }
    for path in &sentences.held_out {
        let held = data::sentences(&recipe.resolve(path))?;
        held_out.extend(held.iter().map(|sentence| data::bare(sentence)));
    }
    let (mut texts, mut seen, mut left_out) = (Vec::new(), BTreeSet::new(), 0);
    for (number, source) in sentences.from.iter().enumerate() {
        let found = data::sentences(&recipe.resolve(&source.path))?;
        let (kept, held) = data::without(found, &held_out, &mut seen);
        left_out += held;
        let mut random = Random::new(recipe.seed, "take", number);
        let count = source.take.unwrap_or(usize::MAX);
        texts.extend(data::draw(kept, count, &mut random));
    }
    let paths: Vec<PathBuf> =
        sentences.from.iter().map(|source| recipe.resolve(&source.path)).collect();
    if texts.is_empty() {
        let path = paths.into_iter().next().unwrap_or_default();
        let expected = "a sentence that no measurement uses".to_owned();
        return Err(Error::Data { path, line: 1, expected, got: "none".to_owned() });
    }
    Ok(Gathered {
        facts: Facts {
            train_examples: texts.len(),
            train_blake3: hash_files(&paths.iter().map(PathBuf::as_path).collect::<Vec<_>>())?,
            validation_examples: pairs.scores.len(),
            validation_blake3: hash_files(&[&exam_path])?,
            left_out,
        },
        train: Texts { texts, labels: Vec::new() },
        varied: Vec::new(),
        exam: Questions::Pairs(pairs),
        trial,
        train_path: paths.into_iter().next().unwrap_or_default(),
        exam_path,
    })
}

/// BLAKE3 of `parts`, each with its length, so that no two lists of parts run together.
pub(crate) fn hash(parts: &[&[u8]]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.finalize().to_hex().to_string()
}

/// BLAKE3 of a file; of several, that of their hashes in order.
fn hash_files(paths: &[&Path]) -> Result<String> {
    let hashes = paths.iter().map(|path| {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        Ok(blake3::hash(&bytes).to_hex().to_string())
    });
    let mut hashes: Vec<String> = hashes.collect::<Result<_>>()?;
    match hashes.len() {
        1 => Ok(hashes.remove(0)),
        _ => Ok(blake3::hash(hashes.join("\n").as_bytes()).to_hex().to_string()),
    }
}
