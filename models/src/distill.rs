//! The whole path: fine-tune the teacher, keep its answers, train the student, write it out.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::Device;
use serde::Serialize;

use crate::answers::{Answers, ask};
use crate::artefacts::{self, Learned};
use crate::batches::Examples;
use crate::checkpoint::Trained;
use crate::encoder::Encoder;
use crate::error::{Error, Result};
use crate::files;
use crate::inputs::{Inputs, hash};
use crate::progress::{Progress, Stage, Watch};
use crate::recipe::Recipe;
use crate::report::Report;
use crate::student;
use crate::train::{Lesson, Objective, Resume, train};
use crate::weights::{Weights, metadata, serialize};

/// Distils the student of `recipe` into the folder `output`, which is created where it is missing.
///
/// A finished stage whose inputs are unchanged is found in `output` and used again; `resume` says
/// whether an unfinished one is continued. `tell` hears of every batch and may stop the run, which
/// then leaves a checkpoint. The same recipe, data and teacher give the same student on the same
/// kind of CPU with the same number of threads.
///
/// Written, each whole or not at all: `student.onnx`, `tokenizer.json`, `labels.txt`,
/// `golden.json`, `metrics.jsonl`, `report.json`, `report.md`, and `checkpoints/`.
///
/// Training is bound by memory traffic on the system allocator; a binary that raises glibc's
/// `M_MMAP_THRESHOLD` and `M_TRIM_THRESHOLD` before it calls this saves a tenth to a third of the
/// time.
///
/// # Errors
/// [`Error`]; [`Error::Interrupted`] where `tell` said stop.
pub fn distill(
    recipe: &Recipe,
    output: &Path,
    resume: Resume,
    tell: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report> {
    let inputs = Inputs::load(recipe)?;
    let mut watch = Watch::new(inputs.work(recipe), tell);
    let run = Run { recipe, inputs: &inputs, output, resume };
    let teacher = run.fine_tune(&mut watch)?;
    let asked = run.ask(&teacher, &mut watch)?;
    let student = run.learn(&teacher, &asked, &mut watch)?;
    let learned = Learned { teacher, answers: asked.validation, asking: asked.seconds, student };
    artefacts::write(recipe, &inputs, &learned, output)
}

/// A distillation under way.
struct Run<'a> {
    recipe: &'a Recipe,
    inputs: &'a Inputs,
    output: &'a Path,
    resume: Resume,
}

/// What the teacher says about both sets of examples.
struct Asked {
    key: String,
    train: Answers,
    validation: Answers,
    seconds: f64,
}

impl Run<'_> {
    fn fine_tune(&self, watch: &mut Watch) -> Result<Trained> {
        let Run { recipe, inputs, .. } = self;
        let settings = json(&(&recipe.teacher.training, recipe.seed, recipe.max_tokens));
        let key = hash(&[
            b"teacher",
            &inputs.teacher.checkpoint,
            &inputs.teacher.tokenizer,
            settings.as_bytes(),
            inputs.train_blake3.as_bytes(),
            inputs.validation_blake3.as_bytes(),
        ]);
        let lesson = Lesson {
            stage: Stage::Teacher,
            training: &recipe.teacher.training,
            seed: recipe.seed,
            train: &inputs.train,
            validation: &inputs.validation,
            objective: Objective::Labels,
            key: &key,
            checkpoint: &self.checkpoint(Stage::Teacher, "unfinished"),
        };
        self.finish(&lesson, || Ok(inputs.first.clone()), watch)
    }

    fn ask(&self, teacher: &Trained, watch: &mut Watch) -> Result<Asked> {
        let inputs = self.inputs;
        let weights: Vec<&[u8]> = teacher
            .weights
            .arrays()
            .values()
            .map(|array| bytemuck::cast_slice(&array.values))
            .collect();
        let examples = json(&(&inputs.asked.rows, &inputs.validation.rows));
        let key = hash(&[&weights[..], &[examples.as_bytes()]].concat());
        let path = self.checkpoint(Stage::Answers, &key[..16]);
        if let Some(bytes) = files::read_if_there(&path)? {
            let parts = ["train.", "validation."].map(|part| Answers::from_file(&bytes, part));
            if let [Some(train), Some(validation)] = parts {
                let seconds = metadata(&bytes, "seconds").ok().and_then(|text| text.parse().ok());
                watch.skip(inputs.answers_work());
                self.told(watch.tell(Progress::Reused { stage: Stage::Answers }), &path)?;
                let seconds = seconds.unwrap_or(0.0);
                return Ok(Asked { key, train, validation, seconds });
            }
        }
        let started = Instant::now();
        let encoder = Encoder::new(&teacher.weights, &Device::flex());
        let train = self.ask_about(&encoder, &inputs.asked, watch)?;
        let validation = self.ask_about(&encoder, &inputs.validation, watch)?;
        let tensors = train.tensors("train.").into_iter().chain(validation.tensors("validation."));
        let seconds = started.elapsed().as_secs_f64();
        files::write(&path, &serialize(tensors, "seconds", seconds.to_string()))?;
        Ok(Asked { key, train, validation, seconds })
    }

    fn ask_about(
        &self,
        encoder: &Encoder,
        examples: &Examples,
        watch: &mut Watch,
    ) -> Result<Answers> {
        let parameters = self.inputs.first.architecture().encoder_parameters();
        let work = examples.tokens() as f64 * parameters as f64;
        let answers = ask(encoder, examples, &mut |step, steps| {
            watch.did(work / steps as f64);
            let seconds_left = watch.seconds_left();
            watch.tell(Progress::Asked { step, steps, seconds_left })
        });
        let checkpoint = self.output.join("checkpoints");
        answers.ok_or(Error::Interrupted { checkpoint })
    }

    fn learn(&self, teacher: &Trained, asked: &Asked, watch: &mut Watch) -> Result<Trained> {
        let Run { recipe, inputs, .. } = self;
        let settings = json(&(&recipe.student, &recipe.losses, recipe.seed));
        let key = hash(&[b"student", asked.key.as_bytes(), settings.as_bytes()]);
        let lesson = Lesson {
            stage: Stage::Student,
            training: &recipe.student.training,
            seed: recipe.seed,
            train: &inputs.student_train,
            validation: &inputs.student_validation,
            objective: Objective::Teacher(&asked.train, &recipe.losses),
            key: &key,
            checkpoint: &self.checkpoint(Stage::Student, "unfinished"),
        };
        let first = || {
            student::cut(&teacher.weights, &recipe.student, &inputs.vocabulary.kept).map_err(
                |got| Error::Teacher {
                    path: recipe.resolve(&recipe.teacher.folder),
                    expected: "a teacher that holds the student".to_owned(),
                    got,
                },
            )
        };
        self.finish(&lesson, first, watch)
    }

    /// The finished training of `lesson`: the one in the output folder, or a new one.
    fn finish(
        &self,
        lesson: &Lesson,
        first: impl FnOnce() -> Result<Weights>,
        watch: &mut Watch,
    ) -> Result<Trained> {
        let path = self.checkpoint(lesson.stage, &lesson.key[..16]);
        if let Some(trained) = Trained::load(&path, lesson.key)? {
            let parameters = trained.weights.architecture().encoder_parameters();
            watch.skip(lesson.work_per_epoch(parameters) * lesson.training.epochs as f64);
            self.told(watch.tell(Progress::Reused { stage: lesson.stage }), &path)?;
            return Ok(trained);
        }
        let trained = train(lesson, first()?, self.resume, watch)?;
        trained.save(&path, lesson.key)?;
        match std::fs::remove_file(lesson.checkpoint) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", lesson.checkpoint)(error))
            }
            _ => Ok(trained),
        }
    }

    fn checkpoint(&self, stage: Stage, which: &str) -> PathBuf {
        self.output.join("checkpoints").join(format!("{}-{which}.safetensors", stage.name()))
    }

    fn told(&self, flow: ControlFlow<()>, checkpoint: &Path) -> Result<()> {
        match flow {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted { checkpoint: checkpoint.to_owned() }),
        }
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiny;

    const ARTEFACTS: [&str; 6] = [
        "student.onnx",
        "tokenizer.json",
        "labels.txt",
        "golden.json",
        "metrics.jsonl",
        "report.md",
    ];

    fn run(recipe: &Recipe, output: &Path, resume: Resume) -> Result<Report> {
        distill(recipe, output, resume, &mut |_| ControlFlow::Continue(()))
    }

    /// The artefacts of a folder as hashes, but for the line that tells the time.
    fn artefacts(output: &Path) -> Vec<(&'static str, String)> {
        let read = |name| {
            let bytes = std::fs::read(output.join(name)).expect(name);
            let lines = bytes.split(|&byte| byte == b'\n');
            let timeless: Vec<&[u8]> = lines.filter(|line| !line.starts_with(b"- time:")).collect();
            (name, hash(&timeless))
        };
        ARTEFACTS.map(read).into()
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    #[test]
    fn a_tiny_student_learns_what_its_teacher_knows() {
        let folder = folder();
        let recipe = tiny::recipe(folder.path());
        let report = run(&recipe, &folder.path().join("out"), Resume::No).expect("a student");
        assert_eq!(report.teacher.validation.accuracy, 1.0);
        assert!(report.student.validation.accuracy > 0.9, "{report:?}");
        assert_eq!(report.student.architecture.vocabulary, 64);
        let card = std::fs::read_to_string(folder.path().join("out/report.md")).expect("a card");
        assert!(card.contains("| accuracy | 100.00 % |"), "{card}");
    }

    #[test]
    fn the_same_recipe_gives_the_same_bytes() {
        let folder = folder();
        let recipe = tiny::recipe(folder.path());
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        run(&recipe, &one, Resume::No).expect("a student");
        run(&recipe, &two, Resume::No).expect("a student");
        assert_eq!(artefacts(&one), artefacts(&two));
    }

    #[test]
    fn an_interrupted_run_continues_bit_for_bit() {
        let folder = folder();
        let recipe = tiny::recipe(folder.path());
        let whole = folder.path().join("whole");
        run(&recipe, &whole, Resume::No).expect("a student");
        let parts = folder.path().join("parts");
        let mut interruptions = 0;
        loop {
            // Stops within passes and between them, in either training.
            let mut left = 7;
            let result = distill(&recipe, &parts, Resume::Yes, &mut |_| {
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            match result {
                Err(Error::Interrupted { .. }) => interruptions += 1,
                result => break result.map(drop).expect("a student"),
            }
            assert!(interruptions < 100, "it never ends");
        }
        assert!(interruptions > 5, "only {interruptions} interruptions");
        assert_eq!(artefacts(&parts), artefacts(&whole));
    }

    #[test]
    fn finished_stages_are_used_again() {
        let folder = folder();
        let mut recipe = tiny::recipe(folder.path());
        let output = folder.path().join("out");
        run(&recipe, &output, Resume::No).expect("a student");
        recipe.losses.temperature = 3.0;
        let mut reused = Vec::new();
        distill(&recipe, &output, Resume::No, &mut |progress| {
            if let Progress::Reused { stage } = progress {
                reused.push(stage);
            }
            ControlFlow::Continue(())
        })
        .expect("another student");
        assert_eq!(reused, [Stage::Teacher, Stage::Answers]);
    }

    #[test]
    fn an_unfinished_training_of_another_recipe_is_not_continued() {
        let folder = folder();
        let mut recipe = tiny::recipe(folder.path());
        let output = folder.path().join("out");
        let stop = distill(&recipe, &output, Resume::No, &mut |_| ControlFlow::Break(()));
        assert!(matches!(stop, Err(Error::Interrupted { .. })), "{stop:?}");
        recipe.seed += 1;
        let error = run(&recipe, &output, Resume::Yes).expect_err("another seed");
        assert!(error.to_string().contains("leave out `--resume`"), "{error}");
    }

    #[test]
    fn a_missing_teacher_and_missing_data_are_named_with_the_next_step() {
        let folder = folder();
        let recipe = tiny::recipe(folder.path());
        let output = folder.path().join("out");
        std::fs::remove_file(folder.path().join("val.tsv")).expect("it was there");
        let error = run(&recipe, &output, Resume::No).expect_err("no data").to_string();
        assert!(error.contains("val.tsv"), "{error}");
        std::fs::remove_file(folder.path().join("model.safetensors")).expect("it was there");
        let error = run(&recipe, &output, Resume::No).expect_err("no teacher").to_string();
        assert!(error.contains("`models/fetch.sh`"), "{error}");
    }
}
