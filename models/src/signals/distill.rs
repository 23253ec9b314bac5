//! The whole path: train the teacher, keep its answers, train the student, write it out.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use burn::tensor::Device;
use dram_runtime::tensor::Tensor;

use crate::distill::Baseline;
use crate::error::{Error, Result};
use crate::files;
use crate::inputs::hash;
use crate::progress::{Progress, Stage, Watch};
use crate::signals::answers::{accuracy, ask};
use crate::signals::examples::Signals;
use crate::signals::export;
use crate::signals::front::Moments;
use crate::signals::golden::Golden;
use crate::signals::memory::{Answers, Epoch, Trained, json};
use crate::signals::network::Network;
use crate::signals::recipe::{Copies, Learner, Recipe, Training};
use crate::signals::report::{Data, Model, Report, Seconds};
use crate::signals::sources::{self, Recordings};
use crate::signals::train::{Lesson, Objective, train};
use crate::signals::weights::Weights;
use crate::train::Resume;
use crate::weights::Array;

/// Training recordings that are written out for whoever quantizes the student.
const CALIBRATION: usize = 256;

/// Distils the student of `recipe` into the folder `output`, which is created where it is missing.
///
/// A finished stage whose inputs are unchanged is found in `output` and used again; `resume` says
/// whether an unfinished one is continued. `tell` hears of every batch and may stop the run, which
/// then leaves a checkpoint. The same recipe and data give the same student on the same kind of CPU
/// with the same number of threads.
///
/// Written, each whole or not at all: `student.onnx`, `labels.txt`, `golden.json`, `metrics.jsonl`,
/// `report.json`, `report.md`, `checkpoints/`, and as arrays with labels beside them what it was measured
/// on, `validation.npy`, and a few of the training examples, `calibration.npy`.
///
/// # Errors
/// [`Error`]; [`Error::Interrupted`] where `tell` said stop.
pub fn distill(
    recipe: &Recipe,
    output: &Path,
    resume: Resume,
    baseline: Baseline,
    tell: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report> {
    let run = Run::new(recipe, output, resume)?;
    let mut watch = Watch::new(run.work(baseline), tell);
    let teacher = run.teach(&mut watch)?;
    let answers = run.ask(&teacher, &mut watch)?;
    let student = run.learn(&teacher, &answers, &mut watch)?;
    let baseline = match baseline {
        Baseline::Skip => None,
        Baseline::Train => Some(run.learn_alone(&mut watch)?),
    };
    run.write(&Learned { teacher, asking: answers.seconds.into(), student, baseline })
}

/// A distillation under way.
struct Run<'a> {
    recipe: &'a Recipe,
    output: &'a Path,
    resume: Resume,
    /// The recordings and the copies that keep their label.
    labelled: Signals,
    /// The same, and mixtures.
    asked: Signals,
    validation: Signals,
    moments: Moments,
    train_blake3: String,
    validation_blake3: String,
}

/// What the stages gave.
struct Learned {
    teacher: Trained,
    asking: f64,
    student: Trained,
    baseline: Option<Trained>,
}

impl<'a> Run<'a> {
    fn new(recipe: &'a Recipe, output: &'a Path, resume: Resume) -> Result<Run<'a>> {
        let split = sources::read(recipe)?;
        let [train_blake3, validation_blake3] = [&split.train, &split.validation].map(identity);
        let (train, validation) = (Rc::new(split.train), Rc::new(split.validation));
        let signals =
            |recordings, copies| Signals::new(recordings, &recipe.data, copies, recipe.seed);
        let none = Copies { labelled: 0, mixed: 0 };
        Ok(Run {
            moments: Moments::of(&recipe.data.front(), &signals(&train, none)),
            labelled: signals(&train, Copies { mixed: 0, ..recipe.copies }),
            asked: signals(&train, recipe.copies),
            validation: signals(&validation, none),
            recipe,
            output,
            resume,
            train_blake3,
            validation_blake3,
        })
    }

    /// Multiply-adds of all stages.
    fn work(&self, baseline: Baseline) -> f64 {
        let Recipe { teacher, student, .. } = self.recipe;
        let work = |learner: &Learner| self.recipe.sizes(learner).multiply_adds() as f64;
        let passes = |training: &Training, train: &Signals| {
            (training.epochs * (3 * train.len() + self.validation.len())) as f64
        };
        let alone = match baseline {
            Baseline::Skip => 0.0,
            Baseline::Train => passes(&self.training_alone(), &self.labelled) * work(student),
        };
        passes(&teacher.training, &self.labelled) * work(teacher)
            + self.asked.len() as f64 * work(teacher)
            + passes(&student.training, &self.asked) * work(student)
            + alone
    }

    fn teach(&self, watch: &mut Watch) -> Result<Trained> {
        let Recipe { teacher, copies, .. } = self.recipe;
        let settings = json(&(teacher, copies.labelled));
        let lesson = self.lesson(Stage::Teacher, &teacher.training, Objective::Labels);
        self.finish(lesson, teacher, "teacher", &settings, watch)
    }

    fn learn(&self, teacher: &Trained, answers: &Answers, watch: &mut Watch) -> Result<Trained> {
        let Recipe { student, losses, copies, .. } = self.recipe;
        let settings = json(&(student, losses, copies)) + &weights_hash(&teacher.weights);
        let objective = Objective::Teacher(&answers.logits, *losses);
        let lesson = self.lesson(Stage::Student, &student.training, objective);
        self.finish(lesson, student, "student", &settings, watch)
    }

    fn learn_alone(&self, watch: &mut Watch) -> Result<Trained> {
        let Recipe { student, copies, .. } = self.recipe;
        let training = self.training_alone();
        let settings = json(&(student, &training, copies.labelled));
        let lesson = self.lesson(Stage::Baseline, &training, Objective::Labels);
        self.finish(lesson, student, "student", &settings, watch)
    }

    /// As many steps as with a teacher, over the examples that have labels.
    fn training_alone(&self) -> Training {
        let training = &self.recipe.student.training;
        let passes = (training.epochs * self.asked.len()).div_ceil(self.labelled.len());
        Training { epochs: passes, ..training.clone() }
    }

    fn lesson<'b>(
        &'b self,
        stage: Stage,
        training: &'b Training,
        objective: Objective<'b>,
    ) -> Lesson<'b> {
        let train = match objective {
            Objective::Labels => &self.labelled,
            Objective::Teacher(..) => &self.asked,
        };
        let (seed, validation) = (self.recipe.seed, &self.validation);
        let (key, checkpoint) = (String::new(), self.checkpoint(stage, "unfinished"));
        Lesson { stage, training, seed, train, validation, objective, key, checkpoint }
    }

    /// The finished training of `lesson`, whose `settings` are what it depends on besides seed and data:
    /// the one in the output folder, or a new one.
    fn finish(
        &self,
        mut lesson: Lesson,
        learner: &Learner,
        who: &str,
        settings: &str,
        watch: &mut Watch,
    ) -> Result<Trained> {
        lesson.key = self.key(lesson.stage, settings);
        let sizes = self.recipe.sizes(learner);
        let path = self.checkpoint(lesson.stage, &lesson.key[..16]);
        if let Some(trained) = Trained::load(&path, &lesson.key)? {
            let work = lesson.work_per_epoch(sizes.multiply_adds());
            watch.skip(work * lesson.training.epochs as f64);
            self.reused(lesson.stage, &path, watch)?;
            return Ok(trained);
        }
        let first = Weights::first(&sizes, &self.moments, who, self.recipe.seed);
        let trained = train(&lesson, first, self.resume, watch)?;
        trained.save(&path, &lesson.key)?;
        match std::fs::remove_file(&lesson.checkpoint) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &lesson.checkpoint)(error))
            }
            _ => Ok(trained),
        }
    }

    fn ask(&self, teacher: &Trained, watch: &mut Watch) -> Result<Answers> {
        let settings = json(&self.recipe.copies) + &weights_hash(&teacher.weights);
        let path = self.checkpoint(Stage::Answers, &self.key(Stage::Answers, &settings)[..16]);
        let work = self.asked.len() as f64 * teacher.weights.sizes().multiply_adds() as f64;
        if let Some(answers) = Answers::load(&path)? {
            watch.skip(work);
            self.reused(Stage::Answers, &path, watch)?;
            return Ok(answers);
        }
        let started = Instant::now();
        let network = Network::new(&teacher.weights, &Device::flex());
        let logits = ask(&network, &self.asked, &mut |step, steps| {
            watch.did(work / steps as f64);
            let seconds_left = watch.seconds_left();
            watch.tell(Progress::Asked { step, steps, seconds_left })
        });
        let checkpoint = self.output.join("checkpoints");
        let logits = logits.ok_or(Error::Interrupted { checkpoint })?;
        let answers = Answers { logits, seconds: started.elapsed().as_secs_f32() };
        answers.save(&path)?;
        Ok(answers)
    }

    fn reused(&self, stage: Stage, path: &Path, watch: &mut Watch) -> Result<()> {
        match watch.tell(Progress::Reused { stage }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted { checkpoint: path.to_owned() }),
        }
    }

    /// What a stage with these settings depends on, hashed.
    fn key(&self, stage: Stage, settings: &str) -> String {
        let recipe = json(&(&self.recipe.data, self.recipe.seed));
        let parts = [stage.name(), &recipe, settings, &self.train_blake3, &self.validation_blake3];
        hash(&parts.map(str::as_bytes))
    }

    fn checkpoint(&self, stage: Stage, which: &str) -> PathBuf {
        self.output.join("checkpoints").join(format!("{}-{which}.safetensors", stage.name()))
    }

    /// Writes every artefact, each whole or not at all.
    ///
    /// # Errors
    /// [`Error::Export`] where the runtime does not give the trainer's logits: then nothing is written.
    fn write(&self, learned: &Learned) -> Result<Report> {
        let weights = &learned.student.weights;
        let golden = Golden::new(&Network::new(weights, &Device::flex()), &self.validation);
        let onnx = export::graph(&self.recipe.name, weights, &self.metadata()).to_onnx();
        let path = self.output.join("checkpoints/student.onnx");
        files::write(&path, &onnx)?;
        golden.check(&path)?;
        std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        let report = self.report(learned, onnx.len());
        for (name, bytes) in [
            ("student.onnx", onnx),
            ("labels.txt", lines(self.recipe.data.labels())),
            ("golden.json", json(&golden).into_bytes()),
            ("validation.npy", npy(&self.validation, self.validation.len(), Column::Signals)),
            ("validation.labels.npy", npy(&self.validation, self.validation.len(), Column::Labels)),
            ("calibration.npy", npy(&self.labelled, CALIBRATION, Column::Signals)),
            ("calibration.labels.npy", npy(&self.labelled, CALIBRATION, Column::Labels)),
            ("metrics.jsonl", metrics(learned)),
            ("report.json", json(&report).into_bytes()),
            ("report.md", report.to_markdown().into_bytes()),
        ] {
            files::write(&self.output.join(name), &bytes)?;
        }
        Ok(report)
    }

    /// The properties that the model carries with it.
    fn metadata(&self) -> [(&'static str, String); 3] {
        [
            ("dram.recipe", self.recipe.name.clone()),
            ("dram.seed", self.recipe.seed.to_string()),
            ("dram.data", self.recipe.data.licence().to_owned()),
        ]
    }

    fn report(&self, learned: &Learned, onnx_bytes: usize) -> Report {
        let model = |trained: &Trained| {
            let sizes = trained.weights.sizes();
            let network = Network::new(&trained.weights, &Device::flex());
            let logits = ask(&network, &self.validation, &mut |_, _| ControlFlow::Continue(()));
            Model {
                parameters: sizes.parameters(),
                multiply_adds: sizes.multiply_adds(),
                validation: accuracy(&logits.expect("nobody stops it"), self.validation.labels()),
                architecture: sizes.clone(),
            }
        };
        let (teacher, student) = (model(&learned.teacher), model(&learned.student));
        Report {
            recipe: self.recipe.clone(),
            retention: student.validation.accuracy / teacher.validation.accuracy,
            teacher,
            student,
            baseline: learned.baseline.as_ref().map(model),
            onnx_bytes,
            data: Data {
                train_examples: self.labelled.recordings(),
                train_blake3: self.train_blake3.clone(),
                validation_examples: self.validation.len(),
                validation_blake3: self.validation_blake3.clone(),
            },
            seconds: Seconds {
                teacher: learned.teacher.seconds,
                answers: learned.asking,
                student: learned.student.seconds,
                baseline: learned.baseline.as_ref().map(|trained| trained.seconds),
            },
        }
    }
}

/// One line a pass, in the order of the stages.
fn metrics(learned: &Learned) -> Vec<u8> {
    let stages = [
        (Stage::Teacher, Some(&learned.teacher)),
        (Stage::Student, Some(&learned.student)),
        (Stage::Baseline, learned.baseline.as_ref()),
    ];
    let passes = stages.map(|(stage, trained)| {
        let line = |(index, Epoch { loss, accuracy }): (usize, &Epoch)| {
            let (stage, epoch) = (stage.name(), index + 1);
            serde_json::json!({"stage": stage, "epoch": epoch, "loss": loss, "accuracy": accuracy})
                .to_string()
        };
        let history = trained.map_or(&[][..], |trained| &trained.history);
        history.iter().enumerate().map(line).collect::<Vec<_>>()
    });
    lines(&passes.concat())
}

/// What an `.npy` file holds of examples.
#[derive(Clone, Copy)]
enum Column {
    Signals,
    Labels,
}

/// So many recordings of `examples`, spread evenly over them, or their labels, as an `.npy` file.
fn npy(examples: &Signals, count: usize, column: Column) -> Vec<u8> {
    let count = count.min(examples.recordings());
    let rows: Vec<usize> = (0..count).map(|row| row * examples.recordings() / count).collect();
    let tensor = match column {
        Column::Signals => {
            let Array { shape, values } = examples.batch(&rows);
            Tensor::from_f32(&shape, &values)
        }
        Column::Labels => {
            let labels: Vec<i64> = rows.iter().map(|&row| examples.labels()[row] as i64).collect();
            Tensor::from_i64(&[count], &labels)
        }
    };
    dram_runtime::npy::to_bytes(&tensor)
}

fn lines(lines: &[String]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect()
}

fn identity(recordings: &Recordings) -> String {
    let values = bytemuck::cast_slice(&recordings.signals.values);
    hash(&[values, json(&recordings.labels).as_bytes()])
}

fn weights_hash(weights: &Weights) -> String {
    let arrays = weights.arrays().values();
    hash(&arrays.map(|array| bytemuck::cast_slice(&array.values)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::tiny;

    const ARTEFACTS: [&str; 5] =
        ["student.onnx", "labels.txt", "golden.json", "metrics.jsonl", "report.md"];

    fn recipe(folder: &Path, kind: &str) -> Recipe {
        let path = tiny::workplace(folder, kind);
        let text = std::fs::read_to_string(&path).expect("just written");
        Recipe::parse(&text, &path).expect("a good recipe")
    }

    fn run(recipe: &Recipe, output: &Path) -> Result<Report> {
        distill(recipe, output, Resume::No, Baseline::Train, &mut |_| ControlFlow::Continue(()))
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
    fn a_tiny_student_of_every_kind_learns_what_its_teacher_knows() {
        for kind in tiny::KINDS {
            let folder = folder();
            let recipe = recipe(folder.path(), kind);
            let report = run(&recipe, &folder.path().join("out")).expect(kind);
            assert!(report.teacher.validation.accuracy > 0.9, "{kind}: {report:?}");
            assert!(report.student.validation.accuracy > 0.9, "{kind}: {report:?}");
            assert!(report.baseline.is_some(), "{kind}");
            let card = std::fs::read_to_string(folder.path().join("out/report.md")).expect(kind);
            assert!(card.contains("| | teacher | student | student from labels alone |"), "{card}");
        }
    }

    #[test]
    fn the_same_recipe_gives_the_same_bytes_and_an_interrupted_run_does_too() {
        let folder = folder();
        let recipe = recipe(folder.path(), "windows");
        let [whole, again, parts] = ["whole", "again", "parts"].map(|it| folder.path().join(it));
        run(&recipe, &whole).expect("a student");
        run(&recipe, &again).expect("a student");
        assert_eq!(artefacts(&whole), artefacts(&again));
        let mut interruptions = 0;
        loop {
            // Stops within passes and between them, in every training.
            let mut left = 11;
            let result = distill(&recipe, &parts, Resume::Yes, Baseline::Train, &mut |_| {
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
        assert_eq!(artefacts(&whole), artefacts(&parts));
    }

    #[test]
    fn finished_stages_are_used_again() {
        let folder = folder();
        let mut recipe = recipe(folder.path(), "windows");
        let output = folder.path().join("out");
        run(&recipe, &output).expect("a student");
        recipe.losses.temperature = 3.0;
        let mut reused = Vec::new();
        distill(&recipe, &output, Resume::No, Baseline::Train, &mut |progress| {
            if let Progress::Reused { stage } = progress {
                reused.push(stage);
            }
            ControlFlow::Continue(())
        })
        .expect("another student");
        assert_eq!(reused, [Stage::Teacher, Stage::Answers, Stage::Baseline]);
    }

    #[test]
    fn missing_data_is_named() {
        let folder = folder();
        let recipe = recipe(folder.path(), "windows");
        std::fs::remove_file(folder.path().join("data.npz")).expect("it was there");
        let error = run(&recipe, &folder.path().join("out")).expect_err("no data").to_string();
        assert!(error.contains("data.npz"), "{error}");
    }
}
