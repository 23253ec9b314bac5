//! Who teaches: the recipe's first teacher, fine-tuned where that is asked for, and any further ones; and
//! what they say.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Run, course};
use crate::answers::{Answers, Each, ask};
use crate::artefacts::Taught;
use crate::batches::Examples;
use crate::checkpoint::Trained;
use crate::device::Device;
use crate::encoder::Encoder;
use crate::error::{Error, Result};
use crate::export::{self, Outputs};
use crate::files;
use crate::inputs::hash;
use crate::interface::{Dataset, Mode, Student};
use crate::interview::{self, interview};
use crate::progress::{Stage, Watch};
use crate::recipe::{Data, FurtherTeacher, Gives, Losses, Words};
use crate::stages::{Asked, json};
use crate::tokens;
use crate::train::{Course, Lesson, WordEmbeddings};

/// What a teacher says about the training texts.
pub(super) struct Speaker {
    /// What that depends on, hashed.
    pub(super) key: String,
    pub(super) answers: Answers,
    /// How much it counts.
    pub(super) weight: f64,
}

impl Run<'_> {
    /// The teacher, ready to teach; none where the scheme has none or it learns along.
    pub(super) fn teacher(&self, watch: &mut Watch) -> Result<Option<Trained>> {
        let Run { recipe, inputs, .. } = self;
        let sentences = matches!(recipe.data, Data::Sentences(_));
        let Some(training) = &recipe.teacher.training else {
            let as_it_is =
                || Trained { weights: inputs.first.clone(), history: Vec::new(), seconds: 0.0 };
            return Ok((sentences && recipe.scheme.has_teacher()).then(as_it_is));
        };
        let settings = json(&(training, recipe.seed, recipe.max_tokens));
        let key = hash(&[
            b"teacher",
            &inputs.teacher.checkpoint,
            &inputs.teacher.tokenizer,
            settings.as_bytes(),
            inputs.facts.train_blake3.as_bytes(),
            inputs.facts.validation_blake3.as_bytes(),
            json(&recipe.data).as_bytes(),
        ]);
        let words = recipe.losses.words.map(|words| Words { hard: 1.0, soft: 0.0, ..words });
        let course = match sentences {
            false => Course { words: WordEmbeddings::Frozen, ..course(Losses::labels()) },
            true => course(Losses { words, ..Losses::default() }),
        };
        let lesson = Lesson {
            stage: Stage::Teacher,
            training,
            seed: recipe.seed,
            train: &inputs.of_teacher.originals(),
            exam: &inputs.of_teacher.exam,
            courses: vec![course],
            mask: inputs.of_teacher.mask,
            key: &key,
            checkpoint: &self.stages.checkpoint(Stage::Teacher, "unfinished"),
            device: &self.device,
        };
        let first = || Ok(vec![inputs.first.clone()]);
        let mut trained = self.stages.learn(&lesson, first, watch)?;
        Ok(trained.pop())
    }

    /// What `teacher` says about the training texts, asked once and kept; and what is known of it.
    pub(super) fn ask(&self, teacher: &Trained, watch: &mut Watch) -> Result<(Speaker, Taught)> {
        let reading = &self.inputs.of_teacher;
        let exam = reading.exam.examples();
        let trial = reading.trial.as_ref();
        let mut rows: Vec<&[u32]> = Vec::new();
        let trials = trial.iter().flat_map(|trial| [&trial.train, &trial.validation]);
        for examples in [&reading.all, exam].into_iter().chain(trials) {
            rows.extend(examples.rows.iter().map(Vec::as_slice));
        }
        let gives = match teacher.weights.architecture().labels {
            0 => interview::Gives::Embedding,
            _ => interview::Gives::Both,
        };
        // Its answers are kept under the hash of this, for every recipe that asks the same teacher.
        let onnx = export::graph("teacher", &teacher.weights, Outputs::Answers, &[]).to_onnx();
        let path = self.stages.checkpoint(Stage::Teacher, "asked").with_extension("onnx");
        let says = |rows: &[&[u32]], each: &mut Each| match self.options.device {
            Device::Cpu => {
                files::write(&path, &onnx)?;
                interview(&path, rows, gives, each)
            }
            Device::Cuda(_) => {
                let encoder = Encoder::new(&teacher.weights, &self.device);
                let rows = rows.iter().map(|row| row.to_vec()).collect();
                let examples = Examples { rows, labels: Vec::new() };
                Ok(ask(&encoder, &self.device, &examples, Mode::default(), each))
            }
        };
        let (key, Asked { answers, seconds }) = self.asked(&onnx, says, &rows, watch)?;
        let mut at = 0;
        let mut next = |examples: &Examples| {
            let rows: Vec<usize> = (at..at + examples.len()).collect();
            at += examples.len();
            answers.at(&rows)
        };
        let train = next(&reading.all);
        let validation = next(exam);
        let trial = trial.map(|trial| [next(&trial.train), next(&trial.validation)]);
        let architecture = teacher.weights.architecture();
        let taught = Taught { architecture, validation, trial, seconds };
        Ok((Speaker { key, answers: train, weight: 1.0 }, taught))
    }

    /// What the recipe's further teachers say about the training texts.
    pub(super) fn ask_further(&self, watch: &mut Watch) -> Result<Vec<Speaker>> {
        let ask = |further: &FurtherTeacher| {
            let [onnx, tokenizer] =
                [&further.onnx, &further.tokenizer].map(|path| self.recipe.resolve(path));
            let read = |path: &Path| std::fs::read(path).map_err(Error::io("read", path));
            let tokenizer = read(&tokenizer)?;
            let rows = tokens::rows(&tokenizer, &self.inputs.texts, self.recipe.max_tokens)?;
            let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
            let gives = match further.gives {
                Gives::Logits => interview::Gives::Logits,
                Gives::Embedding => interview::Gives::Embedding,
            };
            let bytes = read(&onnx)?;
            let says = |rows: &[&[u32]], each: &mut Each| interview(&onnx, rows, gives, each);
            let (key, Asked { answers, .. }) = self.asked(&bytes, says, &rows, watch)?;
            let labels = self.inputs.labels.len();
            match answers.logits.as_ref().map(|logits| logits.shape[1]) {
                Some(width) if width != labels => Err(Error::Further {
                    path: onnx,
                    reason: format!("it gives {width} logits, the data has {labels} labels"),
                }),
                _ => Ok(Speaker { key, answers, weight: further.weight }),
            }
        };
        self.recipe.further_teachers.iter().map(ask).collect()
    }

    /// What the model `onnx`, for which `says` speaks, says about `rows`, from the output folder where it has been
    /// asked before; with the key of that.
    fn asked(
        &self,
        onnx: &[u8],
        says: impl FnOnce(&[&[u32]], &mut Each) -> Result<Option<Answers>>,
        rows: &[&[u32]],
        watch: &mut Watch,
    ) -> Result<(String, Asked)> {
        let key = hash(&[b"interview", onnx, json(&rows).as_bytes()]);
        // A text may be learned from and measured on another task, too.
        let distinct: Vec<&[u32]> = BTreeSet::from_iter(rows).into_iter().copied().collect();
        let ask = |each: &mut Each| {
            let answers = says(&distinct, each)?;
            let place =
                |row: &&[u32]| distinct.binary_search(row).expect("every row was asked about");
            let places: Vec<usize> = rows.iter().map(place).collect();
            Ok(answers.map(|answers| answers.at(&places)))
        };
        let asked = self.stages.ask(&key, self.inputs.answers_work(), ask, watch)?;
        Ok((key, asked))
    }
}
