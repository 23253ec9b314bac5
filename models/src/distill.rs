//! The whole path: fine-tune the teacher, keep its answers, train the student, write it out.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::Device;
use serde::Serialize;

use crate::answers::{Answers, ask};
use crate::artefacts::{self, Learned, Taught};
use crate::batches::Examples;
use crate::checkpoint::Trained;
use crate::encoder::{Encoder, Mode};
use crate::error::{Error, Result};
use crate::export::{self, Outputs};
use crate::files;
use crate::inputs::{Inputs, hash};
use crate::interview::{self, interview};
use crate::progress::{Progress, Stage, Watch};
use crate::recipe::{CoDistil, Data, FurtherTeacher, Gives, Losses, Recipe, Scheme, Words};
use crate::report::Report;
use crate::student;
use crate::tokens;
use crate::train::{Course, Former, Lesson, Resume, Teaching, Who, WordEmbeddings, Workers, train};
use crate::weights::{Weights, metadata, serialize};

/// How a recipe is run; what comes out is the recipe's alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Whether an unfinished training in the output folder is continued.
    pub resume: Resume,
    /// Whether the same student is trained without a teacher, too.
    pub baseline: Baseline,
    /// Which of the processes of a co-distillation this is, counted from 0.
    pub worker: Option<usize>,
}

/// Whether the same student is trained without a teacher, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// No.
    Skip,
    /// On the labels alone, from the teacher as it was published, for as many steps. Where there are no
    /// labels it is the student before any training.
    Train,
}

impl Default for Options {
    /// From the beginning, without a baseline, alone.
    fn default() -> Options {
        Options { resume: Resume::No, baseline: Baseline::Skip, worker: None }
    }
}

/// Distils the student of `recipe` into the folder `output`, which is created where it is missing.
///
/// A finished stage whose inputs are unchanged is found in `output` and used again; `options` say
/// whether an unfinished one is continued. `tell` hears of every batch and may stop the run, which
/// then leaves a checkpoint. The same recipe, data and teacher give the same student on the same
/// kind of CPU with the same number of threads; but for co-distillation, where it depends on what the
/// other processes had to say, and when.
///
/// Written, each whole or not at all: `student.onnx`, `tokenizer.json`, `labels.txt` where there are labels,
/// `golden.json`, `metrics.jsonl`, `curves.svg`, `report.json`, `report.md`, and `checkpoints/`.
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
    options: Options,
    tell: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report> {
    let inputs = Inputs::load(recipe)?;
    let mut watch = Watch::new(inputs.work(recipe), tell);
    let run = Run { recipe, inputs: &inputs, output, options };
    let teacher = run.teacher(&mut watch)?;
    let asked = match &teacher {
        Some(teacher) => Some(run.ask(teacher, &mut watch)?),
        None => None,
    };
    let further = run.ask_further(&mut watch)?;
    let learned = run.learn(teacher, asked, &further, &mut watch)?;
    artefacts::write(recipe, &inputs, &learned, output)
}

/// A distillation under way.
struct Run<'a> {
    recipe: &'a Recipe,
    inputs: &'a Inputs,
    output: &'a Path,
    options: Options,
}

/// What a teacher says about the training texts.
struct Asked {
    key: String,
    train: Answers,
    weight: f64,
}

/// What the recipe's first teacher says.
struct AskedTeacher {
    asked: Asked,
    taught: Taught,
}

impl Run<'_> {
    /// The teacher, ready to teach; none where the scheme has none or it learns along.
    fn teacher(&self, watch: &mut Watch) -> Result<Option<Trained>> {
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
            checkpoint: &self.checkpoint(Stage::Teacher, "unfinished"),
        };
        let mut trained = self.finish(&lesson, || Ok(vec![inputs.first.clone()]), watch)?;
        Ok(trained.pop())
    }

    /// What the teacher says about every text, asked once and kept.
    fn ask(&self, teacher: &Trained, watch: &mut Watch) -> Result<AskedTeacher> {
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
        let onnx =
            export::graph(&self.recipe.name, &teacher.weights, Outputs::Answers, &[]).to_onnx();
        let path = self.checkpoint(Stage::Teacher, "asked").with_extension("onnx");
        let model = || files::write(&path, &onnx).map(|()| path.clone());
        let (key, answers, seconds) = self.interview(&onnx, model, &rows, gives, watch)?;
        let mut at = 0;
        let mut next = |examples: &Examples| {
            let part = answers.rows(at, examples.len());
            at += examples.len();
            part
        };
        let train = next(&reading.all);
        let validation = next(exam);
        let trial = trial.map(|trial| [next(&trial.train), next(&trial.validation)]);
        let architecture = teacher.weights.architecture();
        Ok(AskedTeacher {
            asked: Asked { key, train, weight: 1.0 },
            taught: Taught { architecture, validation, trial, seconds },
        })
    }

    fn ask_further(&self, watch: &mut Watch) -> Result<Vec<Asked>> {
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
            let (key, train, _) =
                self.interview(&bytes, || Ok(onnx.clone()), &rows, gives, watch)?;
            let labels = self.inputs.labels.len();
            match train.logits.as_ref().map(|logits| logits.shape[1]) {
                Some(width) if width != labels => Err(Error::Further {
                    path: onnx,
                    reason: format!("it gives {width} logits, the data has {labels} labels"),
                }),
                _ => Ok(Asked { key, train, weight: further.weight }),
            }
        };
        self.recipe.further_teachers.iter().map(ask).collect()
    }

    /// What the model `onnx`, which `path` puts into a file, says about `rows`, from the output folder where
    /// it has been asked before; with the key of that and the time that it took.
    fn interview(
        &self,
        onnx: &[u8],
        path: impl FnOnce() -> Result<PathBuf>,
        rows: &[&[u32]],
        gives: interview::Gives,
        watch: &mut Watch,
    ) -> Result<(String, Answers, f64)> {
        let key = hash(&[b"interview", onnx, json(&rows).as_bytes()]);
        let kept = self.checkpoint(Stage::Answers, &key[..16]);
        if let Some(bytes) = files::read_if_there(&kept)?
            && let Some(answers) = Answers::from_file(&bytes, "")
        {
            let seconds = metadata(&bytes, "seconds").ok().and_then(|text| text.parse().ok());
            watch.skip(self.inputs.answers_work());
            self.told(watch.tell(Progress::Reused { stage: Stage::Answers }), &kept)?;
            return Ok((key, answers, seconds.unwrap_or(0.0)));
        }
        let started = Instant::now();
        let work = self.inputs.answers_work();
        let answers = interview(&path()?, rows, gives, &mut |step, steps| {
            watch.did(work / steps as f64);
            let seconds_left = watch.seconds_left();
            watch.tell(Progress::Asked { step, steps, seconds_left })
        })?;
        let checkpoint = self.output.join("checkpoints");
        let answers = answers.ok_or(Error::Interrupted { checkpoint })?;
        let seconds = started.elapsed().as_secs_f64();
        let tensors = answers.tensors("").into_iter();
        files::write(&kept, &serialize(tensors, "seconds", seconds.to_string()))?;
        Ok((key, answers, seconds))
    }

    /// Trains by the recipe's scheme.
    fn learn(
        &self,
        teacher: Option<Trained>,
        asked: Option<AskedTeacher>,
        further: &[Asked],
        watch: &mut Watch,
    ) -> Result<Learned> {
        let Run { recipe, inputs, .. } = self;
        let from = teacher.as_ref().map_or(&inputs.first, |teacher| &teacher.weights);
        let layers = student::layers(from, &recipe.student.layers, &inputs.of_teacher.originals());
        let layers = layers.map_err(|got| self.no_student(got))?;
        let first = self.cut(from, &layers)?;
        let (asked, mut taught) = match asked {
            Some(AskedTeacher { asked, taught }) => (Some(asked), Some(taught)),
            None => (None, None),
        };
        let mut speakers: Vec<&Asked> = asked.iter().collect();
        speakers.extend(further);
        let mut parts = vec![b"student".to_vec(), inputs.facts.train_blake3.clone().into_bytes()];
        parts.extend(speakers.iter().map(|asked| asked.key.clone().into_bytes()));
        parts.push(hash(&first.parts()).into_bytes());
        let weights: Vec<f64> = speakers.iter().map(|asked| asked.weight).collect();
        let settings = (&recipe.student, &recipe.losses, &recipe.scheme, recipe.seed, weights);
        parts.push(json(&settings).into_bytes());
        let key = hash(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let whole = student::same_words(from, &inputs.vocabulary.kept);
        let whole = whole.map_err(|got| self.no_student(got))?;
        let answering = || {
            let answers = speakers
                .iter()
                .map(|asked| Teaching { who: Who::Answers(&asked.train), weight: asked.weight });
            answers.collect::<Vec<Teaching>>()
        };
        let school = School { run: self, key: &key, train: &inputs.of_student.all };
        let mut further_seconds = 0.0;
        let student = match &recipe.scheme {
            Scheme::Offline => {
                let encoder = Encoder::new(&whole, &Device::flex());
                let mut teachers = answering();
                if recipe.losses.looks_inside() {
                    teachers.push(Teaching { who: Who::Inside(&encoder), weight: 1.0 });
                }
                one(school.train(vec![self.course(teachers)], || Ok(vec![first]), watch)?)
            }
            Scheme::Online => {
                let of_teacher =
                    Course { words: WordEmbeddings::Frozen, ..course(Losses::labels()) };
                let of_student = self.course(vec![Teaching { who: Who::Peer(0), weight: 1.0 }]);
                let both = vec![of_teacher, of_student];
                let mut trained = school.train(both, || Ok(vec![whole, first]), watch)?;
                let student = one(trained.split_off(1));
                taught = Some(self.examined(&one(trained)));
                student
            }
            Scheme::Mutual(mutual) => {
                let count = 1 + mutual.peers.len();
                let others = |own: usize| {
                    let others = (0..count).filter(move |&peer| peer != own);
                    let weight = 1.0 / (count - 1) as f64;
                    others.map(move |peer| Teaching { who: Who::Peer(peer), weight }).collect()
                };
                let courses = (0..count).map(|own| self.course(others(own))).collect();
                let peers = || {
                    let peers = mutual.peers.iter().map(|layers| self.cut(from, layers));
                    std::iter::once(Ok(first)).chain(peers).collect()
                };
                best(school.train(courses, peers, watch)?)
            }
            Scheme::CoDistil(plan) => {
                let me = self.worker(plan)?;
                let folder = recipe.resolve(&plan.folder);
                let workers = Workers::new(folder, me, plan.clone(), key.clone());
                let teachers = vec![Teaching { who: Who::Workers(&workers), weight: 1.0 }];
                let shard = inputs.of_student.all.shard(me, plan.workers);
                let key = hash(&[key.as_bytes(), json(&me).as_bytes()]);
                let school = School { key: &key, train: &shard, ..school };
                one(school.train(vec![self.course(teachers)], || Ok(vec![first]), watch)?)
            }
            Scheme::BornAgain { generations } => {
                let mut last: Option<(Trained, Answers)> = None;
                for generation in 1..=*generations {
                    let teachers = match &last {
                        None => answering(),
                        Some((_, answers)) => {
                            vec![Teaching { who: Who::Answers(answers), weight: 1.0 }]
                        }
                    };
                    let key = hash(&[key.as_bytes(), json(&generation).as_bytes()]);
                    let school = School { key: &key, ..school };
                    let courses = vec![self.course(teachers)];
                    let born = one(school.train(courses, || Ok(vec![first.clone()]), watch)?);
                    let encoder = Encoder::new(&born.weights, &Device::flex());
                    let started = Instant::now();
                    let answers = self.answers(&encoder, &inputs.of_student.all, watch)?;
                    further_seconds += started.elapsed().as_secs_f64();
                    last = Some((born, answers));
                }
                last.expect("a recipe has a generation").0
            }
            Scheme::Average { decay } => {
                self.by_itself(&school, Former::Average(*decay), first, watch)?
            }
            Scheme::Snapshots { every } => {
                self.by_itself(&school, Former::Snapshot(*every), first, watch)?
            }
            Scheme::Progressive { last } => {
                self.by_itself(&school, Former::Progressive(*last), first, watch)?
            }
        };
        if let Some(taught) = &mut taught {
            taught.seconds += further_seconds;
        }
        let baseline = match self.options.baseline {
            Baseline::Skip => None,
            Baseline::Train => Some(self.baseline(&layers, watch)?),
        };
        Ok(Learned { teacher, taught, student, baseline, layers })
    }

    fn by_itself(
        &self,
        school: &School,
        former: Former,
        first: Weights,
        watch: &mut Watch,
    ) -> Result<Trained> {
        let teachers = vec![Teaching { who: Who::Former(former), weight: 1.0 }];
        Ok(one(school.train(vec![self.course(teachers)], || Ok(vec![first]), watch)?))
    }

    /// The same student without a teacher.
    fn baseline(&self, layers: &[usize], watch: &mut Watch) -> Result<Trained> {
        let Run { recipe, inputs, .. } = self;
        let first = self.cut(&inputs.first, layers)?;
        if matches!(recipe.data, Data::Sentences(_)) {
            return Ok(Trained { weights: first, history: Vec::new(), seconds: 0.0 });
        }
        let reading = &inputs.of_student;
        let mut training = recipe.student.training.clone();
        training.epochs = training.epochs * reading.all.len() / reading.originals;
        let settings = json(&(&recipe.student, &training, recipe.seed));
        let key = hash(&[
            b"baseline",
            &hash(&first.parts()).into_bytes(),
            settings.as_bytes(),
            inputs.facts.train_blake3.as_bytes(),
        ]);
        let alone = Course { losses: Losses::labels(), ..self.course(Vec::new()) };
        let lesson = Lesson {
            stage: Stage::Baseline,
            training: &training,
            train: &reading.originals(),
            courses: vec![alone],
            key: &key,
            checkpoint: &self.checkpoint(Stage::Baseline, "unfinished"),
            seed: recipe.seed,
            exam: &reading.exam,
            mask: reading.mask,
        };
        Ok(one(self.finish(&lesson, || Ok(vec![first]), watch)?))
    }

    /// What the student is held to by `teachers`.
    fn course<'c>(&self, teachers: Vec<Teaching<'c>>) -> Course<'c> {
        Course {
            losses: self.recipe.losses.clone(),
            teachers,
            exits: self.recipe.student.exits,
            int8: self.recipe.student.int8,
            words: WordEmbeddings::Trained,
        }
    }

    fn cut(&self, from: &Weights, layers: &[usize]) -> Result<Weights> {
        let Recipe { student, seed, .. } = self.recipe;
        let cut = student::cut(from, student, layers, &self.inputs.vocabulary.kept, *seed);
        cut.map_err(|got| self.no_student(got))
    }

    fn no_student(&self, got: String) -> Error {
        Error::Teacher {
            path: self.recipe.resolve(&self.recipe.teacher.folder),
            expected: "a teacher that holds the student".to_owned(),
            got,
        }
    }

    fn worker(&self, plan: &CoDistil) -> Result<usize> {
        let worker = self.options.worker.filter(|&worker| worker < plan.workers);
        worker.ok_or(Error::Worker { workers: plan.workers })
    }

    /// A model that reads as the student does, examined.
    fn examined(&self, model: &Trained) -> Taught {
        let reading = &self.inputs.of_student;
        let encoder = Encoder::new(&model.weights, &Device::flex());
        Taught {
            architecture: model.weights.architecture(),
            validation: artefacts::asked(&encoder, reading.exam.examples()),
            trial: None,
            seconds: 0.0,
        }
    }

    fn answers(
        &self,
        encoder: &Encoder,
        examples: &Examples,
        watch: &mut Watch,
    ) -> Result<Answers> {
        let answers = ask(encoder, examples, Mode::default(), &mut |step, steps| {
            let seconds_left = watch.seconds_left();
            watch.tell(Progress::Asked { step, steps, seconds_left })
        });
        answers.ok_or(Error::Interrupted { checkpoint: self.output.join("checkpoints") })
    }

    /// The finished training of `lesson`: the one in the output folder, or a new one.
    fn finish(
        &self,
        lesson: &Lesson,
        first: impl FnOnce() -> Result<Vec<Weights>>,
        watch: &mut Watch,
    ) -> Result<Vec<Trained>> {
        let path = |pupil: usize| match pupil {
            0 => self.checkpoint(lesson.stage, &lesson.key[..16]),
            _ => self.checkpoint(lesson.stage, &format!("{}-{pupil}", &lesson.key[..16])),
        };
        let pupils = 0..lesson.courses.len();
        let found = pupils.clone().map(|pupil| Trained::load(&path(pupil), lesson.key));
        if let Some(trained) = found.collect::<Result<Option<Vec<Trained>>>>()? {
            let parameters =
                |trained: &Trained| trained.weights.architecture().encoder_parameters();
            let parameters = trained.iter().map(parameters).sum();
            watch.skip(lesson.work_per_epoch(parameters) * lesson.training.epochs as f64);
            self.told(watch.tell(Progress::Reused { stage: lesson.stage }), &path(0))?;
            return Ok(trained);
        }
        let trained = train(lesson, first()?, self.options.resume, watch)?;
        for (pupil, trained) in pupils.zip(&trained) {
            trained.save(&path(pupil), lesson.key)?;
        }
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

/// Where students learn, whatever the scheme: the same examples, exam and settings.
#[derive(Clone, Copy)]
struct School<'a> {
    run: &'a Run<'a>,
    key: &'a str,
    train: &'a Examples,
}

impl School<'_> {
    fn train(
        &self,
        courses: Vec<Course>,
        first: impl FnOnce() -> Result<Vec<Weights>>,
        watch: &mut Watch,
    ) -> Result<Vec<Trained>> {
        let Run { recipe, inputs, .. } = self.run;
        let lesson = Lesson {
            stage: Stage::Student,
            training: &recipe.student.training,
            seed: recipe.seed,
            train: self.train,
            exam: &inputs.of_student.exam,
            courses,
            mask: inputs.of_student.mask,
            key: self.key,
            checkpoint: &self.run.checkpoint(Stage::Student, "unfinished"),
        };
        self.run.finish(&lesson, first, watch)
    }
}

/// A course of `losses` without teachers.
fn course<'a>(losses: Losses) -> Course<'a> {
    let words = WordEmbeddings::Trained;
    Course { losses, teachers: Vec::new(), exits: None, int8: None, words }
}

fn one(trained: Vec<Trained>) -> Trained {
    trained.into_iter().next().expect("a class has a pupil")
}

/// The one with the best score, the first of several.
fn best(trained: Vec<Trained>) -> Trained {
    let better =
        |best: Trained, next: Trained| if next.score() > best.score() { next } else { best };
    trained.into_iter().reduce(better).expect("a class has a pupil")
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data is JSON")
}

#[cfg(test)]
mod tests {
    use dram_runtime::Session;
    use dram_runtime::evaluate::{Evaluation, Examples};

    use super::*;
    use crate::recipe;
    use crate::report::Validation;
    use crate::rounding::Arithmetic;
    use crate::tiny;
    use crate::weights::{self, Architecture};

    const ARTEFACTS: [&str; 7] = [
        "curves.svg",
        "student.onnx",
        "tokenizer.json",
        "labels.txt",
        "golden.json",
        "metrics.jsonl",
        "report.md",
    ];

    fn run(recipe: &Recipe, output: &Path, resume: Resume) -> Result<Report> {
        distill(recipe, output, with(resume), &mut |_| ControlFlow::Continue(()))
    }

    fn with(resume: Resume) -> Options {
        Options { resume, ..Options::default() }
    }

    fn once(recipe: &Recipe) -> Report {
        let output = recipe.path.with_file_name("out");
        run(recipe, &output, Resume::No).expect("a student")
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
        let teacher = report.teacher.as_ref().expect("it was fine-tuned");
        assert_eq!(teacher.validation.score(), 1.0);
        assert!(report.student.validation.score() > 0.9, "{report:?}");
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
            let result = distill(&recipe, &parts, with(Resume::Yes), &mut |_| {
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
        recipe.losses.hard = Some(0.4);
        let mut reused = Vec::new();
        distill(&recipe, &output, with(Resume::No), &mut |progress| {
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
        let stop = distill(&recipe, &output, with(Resume::No), &mut |_| ControlFlow::Break(()));
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

    #[test]
    fn a_sentence_encoder_keeps_its_teachers_geometry() {
        let folder = folder();
        let recipe = tiny::changed(folder.path(), &tiny::SENTENCES);
        let report = once(&recipe);
        let Validation::Sentences { spearman, tried: Some(tried) } = &report.student.validation
        else {
            panic!("an encoder is measured on pairs and tried on labels: {report:?}")
        };
        let teacher = report.teacher.as_ref().expect("it teaches as it is").validation.score();
        assert!(*spearman > 0.8 * teacher, "{spearman} of {teacher}");
        assert!(tried.recall_at_1 > 0.5 && tried.linear_probe > 0.5, "{tried:?}");
        assert_eq!(report.student.architecture.labels, 0);
        // `a b c d e f g h i j` is the first of every pair, and no line of val.tsv is taken either.
        assert!(report.data.left_out > 20, "{report:?}");
        assert!(!folder.path().join("out/labels.txt").exists());
    }

    #[test]
    fn every_loss_that_looks_inside_is_learned_from_and_resumed() {
        let folder = folder();
        let inside = "hard = 0.5\nhidden = { weight = 0.5, layers = [[0, 0], [1, 1], [2, 3]], distance = \
             \"mean_squared\" }\nattention = { weight = 0.1, layers = [[1, 1], [2, 3]] }\n\
             relations = { weight = 1.0, student_layer = 2, teacher_layer = 3, heads = 4 }\n";
        let recipe = tiny::changed(folder.path(), &[("hard = 0.5\n", inside)]);
        let report = once(&recipe);
        assert!(report.student.validation.score() > 0.9, "{report:?}");
        // Projections are part of the checkpoint.
        let parts = folder.path().join("parts");
        let mut rounds = 0;
        loop {
            let mut left = 40;
            let result = distill(&recipe, &parts, with(Resume::Yes), &mut |_| {
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            match result {
                Err(Error::Interrupted { .. }) => rounds += 1,
                result => break result.map(drop).expect("a student"),
            }
            assert!(rounds < 20, "it never ends");
        }
        assert_eq!(artefacts(&parts), artefacts(&folder.path().join("out")));
    }

    #[test]
    fn words_are_guessed_as_the_teacher_guesses_them() {
        let folder = folder();
        let words = (
            "similarity = 1.0\n",
            "hidden = { weight = 1.0, layers = [[2, 3]], distance = \"cosine\" }\n\
             words = { hard = 1.0, soft = 1.0, temperature = 2.0, share = 0.3 }\n",
        );
        // The teacher learns to guess words before it teaches.
        let changes = [tiny::SENTENCES[1], tiny::SENTENCES[2], words];
        let recipe = tiny::changed(folder.path(), &changes);
        let report = once(&recipe);
        let metrics = std::fs::read_to_string(folder.path().join("out/metrics.jsonl")).expect("it");
        let losses: Vec<f64> = metrics
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
            .filter(|line| line["stage"] == "student")
            .map(|line| line["loss"].as_f64().expect("a number"))
            .collect();
        assert!(losses.last() < losses.first(), "{losses:?}");
        assert!(report.teacher.is_some());
    }

    #[test]
    fn a_further_teacher_is_any_onnx_file_that_the_runtime_runs() {
        let folder = folder();
        let first = tiny::recipe(folder.path());
        once(&first);
        let out = folder.path().join("out");
        let further = "[[further_teachers]]\nonnx = \"out/student.onnx\"\n\
             tokenizer = \"out/tokenizer.json\"\ngives = \"logits\"\nweight = 0.5\n\
             licence = \"a student\"\n[data.labelled]";
        let recipe = tiny::changed(folder.path(), &[("[data.labelled]", further)]);
        let report = run(&recipe, &out, Resume::No).expect("a student");
        assert!(report.student.validation.score() > 0.9, "{report:?}");
        assert!(report.to_markdown().contains("further teacher: a student"));
        std::fs::write(folder.path().join("out/student.onnx"), b"no model").expect("writable");
        let error = run(&recipe, &out, Resume::No).expect_err("no model").to_string();
        assert!(error.contains("student.onnx") && error.contains("`dram check`"), "{error}");
    }

    /// The tiny recipe without a finished teacher, under `scheme`, for twice as many passes.
    fn by_scheme(folder: &Path, scheme: &str) -> Recipe {
        let scheme = format!("{scheme}\n[losses]");
        let labels = ("embedding = { weight = 1.0, distance = \"relative\" }\n", "");
        let changes = [tiny::SENTENCES[0], labels, ("epochs = 8", "epochs = 16")];
        tiny::changed(folder, &[&changes[..], &[("[losses]", &scheme)]].concat())
    }

    #[test]
    fn students_learn_without_a_finished_teacher() {
        for scheme in [
            "[scheme.mutual]\npeers = [[0, 1], [1, 2]]",
            "[scheme.average]\ndecay = 0.9",
            "[scheme.snapshots]\nevery = 2",
            "[scheme.progressive]\nlast = 0.8",
            "[scheme.born_again]\ngenerations = 2",
        ] {
            let folder = folder();
            let report = once(&by_scheme(folder.path(), scheme));
            assert!(report.teacher.is_none(), "{scheme}");
            assert!(report.student.validation.score() > 0.8, "{scheme}: {report:?}");
        }
    }

    #[test]
    fn a_teacher_and_its_student_learn_together() {
        let folder = folder();
        let online = ("name = \"tiny\"", "name = \"tiny\"\nscheme = \"online\"");
        let labels = ("embedding = { weight = 1.0, distance = \"relative\" }\n", "");
        let changes = [tiny::SENTENCES[0], online, labels, ("epochs = 8", "epochs = 20")];
        let recipe = tiny::changed(folder.path(), &changes);
        let report = once(&recipe);
        let teacher = report.teacher.as_ref().expect("it learned along");
        assert_eq!(teacher.architecture.layers, 3);
        assert!(teacher.validation.score() > 0.9, "{report:?}");
        // One label of five by chance.
        assert!(report.student.validation.score() > 0.7, "{report:?}");
    }

    #[test]
    fn generations_after_the_first_learn_from_the_one_before() {
        let folder = folder();
        let mut recipe = tiny::recipe(folder.path());
        recipe.scheme = Scheme::BornAgain { generations: 2 };
        let mut trainings = 0;
        let output = folder.path().join("out");
        let report = distill(&recipe, &output, with(Resume::No), &mut |progress| {
            if let Progress::Step { stage: Stage::Student, epoch: 1, step: 1, .. } = progress {
                trainings += 1;
            }
            ControlFlow::Continue(())
        });
        assert!(report.expect("a student").student.validation.score() > 0.9);
        assert_eq!(trainings, 2);
    }

    #[test]
    fn exits_answer_after_every_layer_and_are_exported() {
        let folder = folder();
        let exits =
            "exits = { weight = 0.5, deepest = 1.0, temperature = 2.0 }\n[student.training]";
        let recipe = tiny::changed(folder.path(), &[("[student.training]", exits)]);
        let report = once(&recipe);
        let Validation::Labels { exits, .. } = &report.student.validation else {
            panic!("a classifier: {report:?}")
        };
        assert_eq!(exits.len(), 1);
        assert!(exits[0] > 0.8, "{report:?}");
        let bytes = std::fs::read(folder.path().join("out/student.onnx")).expect("a student");
        let graph = dram_runtime::Graph::from_onnx(&bytes).expect("a model");
        let outputs: Vec<&str> = graph.outputs.iter().map(|output| output.name.as_str()).collect();
        assert_eq!(outputs, ["logits", "exit.1"]);
        // In the runtime, an exit that is always taken answers as the trainer's does, for less.
        let bundle = packed(&folder.path().join("out"), dram_runtime::Precision::F32);
        let open = || Session::open(&bundle, &dram_runtime::Options::default()).expect("a bundle");
        let examples = Examples::read(&folder.path().join("val.tsv")).expect("labelled");
        let evaluated = |session: Session| match dram_runtime::evaluate::evaluate(
            &session,
            &examples,
            &mut |_| {},
        ) {
            Ok(Evaluation::Classification { accuracy, depth: Some(depth), .. }) => {
                (accuracy, depth)
            }
            other => panic!("no depth: {other:?}"),
        };
        let early = evaluated(open().with_exit_threshold(0.0).expect("it has exits"));
        assert_eq!((early.0, early.1.mean_exit), (exits[0], 1.0));
        assert!(early.1.mean_compute < 0.7, "{early:?}");
        let full = evaluated(open().with_exit_threshold(1.0).expect("it has exits"));
        assert_eq!(full.0, report.student.validation.score());
        assert_eq!((full.1.mean_exit, full.1.mean_compute), (2.0, 1.0));
        // Calibrated on these examples, it loses nothing on them.
        let calibrated = evaluated(open());
        assert!(calibrated.0 >= full.0 - 0.003, "{calibrated:?}");
    }

    /// The student in `out` as a bundle, with what is known of the validation examples.
    fn packed(out: &Path, precision: dram_runtime::Precision) -> PathBuf {
        let bundle = out.join("student.dram");
        let options = dram_runtime::pack::PackOptions {
            tokenizer: Some(out.join("tokenizer.json")),
            labels: Some(out.join("labels.txt")),
            task: None,
            sequences: Some(vec![16]),
            shapes: Vec::new(),
            heap: None,
            precision,
            calibrate: None,
            evaluate: Some(out.with_file_name("val.tsv")),
            max_drop: 100.0,
            exit_drop: 0.3,
            require_int8: None,
        };
        let onnx = out.join("student.onnx");
        dram_runtime::pack::pack(&onnx, &bundle, &options, &mut |_| {}).expect("a bundle");
        bundle
    }

    #[test]
    fn heads_and_layers_are_chosen_by_importance() {
        let folder = folder();
        let chosen = "layers = { most_important = 2 }\nheads = 1\n";
        let recipe = tiny::changed(folder.path(), &[("layers = [0, 2]\n", chosen)]);
        let report = once(&recipe);
        assert_eq!((report.student.architecture.heads, report.layers.len()), (1, 2));
        assert!(report.student.validation.score() > 0.9, "{report:?}");
    }

    #[test]
    fn an_int8_student_is_measured_as_its_bundle_computes() {
        let folder = folder();
        let rounding = "int8 = { after_epochs = 4 }\n[student.training]";
        let recipe = tiny::changed(folder.path(), &[("[student.training]", rounding)]);
        once(&recipe);
        let out = folder.path().join("out");
        // The bundle's logits are the trainer's but for the order of sums.
        let bundle = packed(&out, dram_runtime::Precision::Int8);
        let inputs = Inputs::load(&recipe).expect("readable");
        let exam = inputs.of_student.exam.examples();
        let rows: Vec<&[u32]> = exam.rows.iter().map(Vec::as_slice).collect();
        let said = interview(&bundle, &rows, interview::Gives::Logits, &mut |_, _| {
            ControlFlow::Continue(())
        });
        let said = said.expect("it runs").and_then(|said| said.logits).expect("nobody stops it");
        let entries = std::fs::read_dir(out.join("checkpoints")).expect("checkpoints");
        let student = entries.map(|entry| entry.expect("readable").path()).find(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("student-"))
        });
        let bytes = std::fs::read(student.expect("a finished student")).expect("readable");
        let architecture = Architecture {
            vocabulary: inputs.vocabulary.kept.len(),
            layers: 2,
            feed_forward: 24,
            positions: 16,
            ..tiny::ARCHITECTURE
        };
        let arrays = weights::arrays(&bytes, "").expect("weights");
        let weights = Weights::new(architecture, arrays).expect("the student's");
        let encoder = Encoder::new(&weights, &Device::flex());
        let mode = Mode { arithmetic: Arithmetic::Int8, ..Mode::default() };
        let own = ask(&encoder, exam, mode, &mut |_, _| ControlFlow::Continue(()));
        let own = own.and_then(|own| own.logits).expect("nobody stops it");
        // A sum in another order may carry an activation over the edge of a step; that moves a logit by
        // about a step of a weight times a step of an activation.
        let largest = own.values.iter().fold(0.0_f32, |most, logit| most.max(logit.abs()));
        let apart: Vec<f32> =
            own.values.iter().zip(&said.values).map(|(a, b)| (a - b).abs() / largest).collect();
        let mean = apart.iter().sum::<f32>() / apart.len() as f32;
        assert!(mean < 2e-3, "off by {mean} of the largest logit in the mean");
    }

    #[test]
    fn a_baseline_and_early_stopping_and_parts_of_batches() {
        let folder = folder();
        let more = "batch = 16\nparts = 4\npatience = 2";
        let mut recipe = tiny::recipe(folder.path());
        let text = std::fs::read_to_string(folder.path().join("recipe.toml")).expect("it");
        let place = text.rfind("batch = 16").expect("the student's");
        let text = format!("{}{more}{}", &text[..place], &text[place + 10..]);
        recipe = Recipe::parse(&text, &recipe.path).expect("a good recipe");
        recipe.student.training.epochs = 40;
        let options = Options { baseline: Baseline::Train, ..Options::default() };
        let mut passes = 0;
        let output = folder.path().join("out");
        let report = distill(&recipe, &output, options, &mut |progress| {
            passes +=
                usize::from(matches!(progress, Progress::Epoch { stage: Stage::Student, .. }));
            ControlFlow::Continue(())
        });
        let report = report.expect("a student");
        assert!(report.baseline.is_some() && report.to_markdown().contains("without teacher"));
        assert!(passes < 40, "it never stopped early");
    }

    #[test]
    fn parts_of_a_batch_have_the_gradients_of_the_whole() {
        let folder = folder();
        let mut recipe = tiny::recipe(folder.path());
        recipe.student.training.epochs = 1;
        recipe.student.training.clip_norm = 1e6;
        // A mean over the labelled rows of a part is no mean over those of the whole; the rest is.
        recipe.losses.hard = None;
        recipe.data = match recipe.data {
            Data::Labelled(labelled) => {
                Data::Labelled(recipe::Labelled { variations: 0, ..labelled })
            }
            sentences => sentences,
        };
        let loss = |recipe: &Recipe, name: &str| {
            let output = folder.path().join(name);
            run(recipe, &output, Resume::No).expect("a student");
            let metrics = std::fs::read_to_string(output.join("metrics.jsonl")).expect("metrics");
            let last = metrics.lines().last().expect("a pass").to_owned();
            let line: serde_json::Value = serde_json::from_str(&last).expect("JSON");
            line["loss"].as_f64().expect("a number")
        };
        let whole = loss(&recipe, "whole");
        recipe.student.training.parts = Some(4);
        let parts = loss(&recipe, "parts");
        // Sums in another order, over a pass of steps.
        assert!((whole - parts).abs() < 1e-3 * whole, "{whole} and {parts}");
    }

    const CO_DISTIL: &str =
        "[scheme.co_distil]\nfolder = \"shared\"\nworkers = 2\nevery = 1\nburn_in = 0";

    /// Names the folder in which [`the_other_process`] learns.
    const OTHER: &str = "DRAM_TEST_OTHER_PROCESS";

    #[test]
    #[ignore = "the other process of two_processes_learn_from_each_other_and_one_is_killed"]
    fn the_other_process() {
        let Some(folder) = std::env::var_os(OTHER).map(PathBuf::from) else { return };
        let recipe = Recipe::load(&folder.join("recipe.toml")).expect("a good recipe");
        let options = Options { worker: Some(1), ..Options::default() };
        let go_on = &mut |_| ControlFlow::Continue(());
        distill(&recipe, &folder.join("other"), options, go_on).expect("a student");
    }

    #[test]
    fn two_processes_learn_from_each_other_and_one_is_killed() {
        let folder = folder();
        let recipe = by_scheme(folder.path(), CO_DISTIL);
        let alone = |name: &str, tell: &mut dyn FnMut(Progress) -> ControlFlow<()>| {
            let options = Options { worker: Some(0), ..Options::default() };
            let output = folder.path().join(name);
            let report = distill(&recipe, &output, options, tell).expect("a student");
            assert!(report.student.validation.score() > 0.8, "{name}: {report:?}");
            artefacts(&output)
        };
        let never_heard = alone("alone", &mut |_| ControlFlow::Continue(()));
        let own = std::env::current_exe().expect("a test runs from a file");
        let mut other = std::process::Command::new(own)
            .args(["--exact", "distill::tests::the_other_process", "--ignored"])
            .env(OTHER, folder.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("the test's own binary runs");
        let left = folder.path().join("shared/worker-1.safetensors");
        while !left.exists() {
            let ended = other.try_wait().expect("a child");
            assert!(
                ended.is_none() || left.exists(),
                "it ended before it left anything: {ended:?}"
            );
            std::thread::yield_now();
        }
        // It is killed within the first steps; what it left is listened to for a while, then no more.
        let heard = alone("heard", &mut |progress| {
            if let Progress::Step { step: 3, epoch: 1, .. } = progress {
                other.kill().expect("a child");
            }
            ControlFlow::Continue(())
        });
        other.wait().expect("a child");
        assert_ne!(heard, never_heard, "nobody listened to it");
    }

    #[test]
    fn co_distillation_needs_to_know_which_worker_it_is() {
        let folder = folder();
        let recipe = by_scheme(
            folder.path(),
            "[scheme.co_distil]\nfolder = \"shared\"\nworkers = 2\nevery = 2\nburn_in = 4",
        );
        let error = run(&recipe, &folder.path().join("out"), Resume::No).expect_err("which one?");
        assert!(error.to_string().contains("`--worker N`, 0 to 1"), "{error}");
        // One of them alone still learns: the other is late for ever.
        let options = Options { worker: Some(1), ..Options::default() };
        let output = folder.path().join("out");
        let report = distill(&recipe, &output, options, &mut |_| ControlFlow::Continue(()));
        assert!(report.expect("a student").student.validation.score() > 0.8);
        assert!(folder.path().join("shared/worker-1.safetensors").exists());
    }
}
