//! The student learns, by whatever scheme the recipe names.

use std::ops::ControlFlow;
use std::time::Instant;

use burn::tensor::Device;

use super::teachers::Speaker;
use super::{Baseline, Run, course};
use crate::answers::{Answers, ask};
use crate::artefacts::{self, Learned, Taught};
use crate::batches::Examples;
use crate::checkpoint::Trained;
use crate::encoder::Encoder;
use crate::error::{Error, Result};
use crate::inputs::hash;
use crate::interface::{Dataset, Mode, Student};
use crate::progress::{Progress, Stage, Watch};
use crate::recipe::{CoDistil, Data, Losses, Mutual, Recipe, Scheme};
use crate::stages::json;
use crate::student;
use crate::train::{Course, Former, Lesson, Teaching, Who, WordEmbeddings, Workers};
use crate::weights::Weights;

/// Where students learn, whatever the scheme.
struct School<'a> {
    run: &'a Run<'a>,
    /// What the student is cut out of, and those of its layers that it starts from.
    from: &'a Weights,
    layers: &'a [usize],
    /// Whose answers are kept.
    speakers: &'a [&'a Speaker],
    /// What the student depends on, hashed.
    key: String,
}

/// What a scheme gave.
struct Schooled {
    student: Trained,
    /// What is known of a teacher that learned along.
    along: Option<Taught>,
    /// Time that asking students took.
    asking: f64,
}

impl Run<'_> {
    /// Trains by the recipe's scheme; `asked` is what `teacher` says, and what is known of it.
    pub(super) fn learn(
        &self,
        teacher: Option<Trained>,
        asked: Option<(Speaker, Taught)>,
        further: &[Speaker],
        watch: &mut Watch,
    ) -> Result<Learned> {
        let Run { recipe, inputs, .. } = self;
        let from = teacher.as_ref().map_or(&inputs.first, |teacher| &teacher.weights);
        let layers = student::layers(from, &recipe.student.layers, &inputs.of_teacher.originals());
        let layers = layers.map_err(|got| self.no_student(got))?;
        let (speaker, taught) = asked.unzip();
        let speakers: Vec<&Speaker> = speaker.iter().chain(further).collect();
        let key = self.student_key(&speakers, &self.cut(from, &layers)?);
        let school = School { run: self, from, layers: &layers, speakers: &speakers, key };
        let Schooled { student, along, asking } = school.by_scheme(watch)?;
        let taught = along.or(taught);
        let taught = taught.map(|taught| Taught { seconds: taught.seconds + asking, ..taught });
        let baseline = match self.options.baseline {
            Baseline::Skip => None,
            Baseline::Train => Some(self.baseline(&layers, watch)?),
        };
        Ok(Learned { teacher, taught, student, baseline, layers, device: self.options.device })
    }

    /// What a student that starts as `first` depends on, hashed.
    fn student_key(&self, speakers: &[&Speaker], first: &Weights) -> String {
        let Run { recipe, inputs, .. } = self;
        let first = hash(&first.parts());
        let weights: Vec<f64> = speakers.iter().map(|speaker| speaker.weight).collect();
        let settings =
            json(&(&recipe.student, &recipe.losses, &recipe.scheme, recipe.seed, weights));
        let mut parts = vec![&b"student"[..], inputs.facts.train_blake3.as_bytes()];
        parts.extend(speakers.iter().map(|speaker| speaker.key.as_bytes()));
        parts.extend([first.as_bytes(), settings.as_bytes()]);
        hash(&parts)
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
            checkpoint: &self.stages.checkpoint(Stage::Baseline, "unfinished"),
            device: &self.device,
            seed: recipe.seed,
            exam: &reading.exam,
            mask: reading.mask,
        };
        Ok(one(self.stages.learn(&lesson, || Ok(vec![first]), watch)?))
    }

    /// What the student is held to by `teachers`.
    fn course<'c>(&self, teachers: Vec<Teaching<'c>>) -> Course<'c> {
        Course {
            teachers,
            exits: self.recipe.student.exits,
            int8: self.recipe.student.int8,
            ..course(self.recipe.losses.clone())
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
}

impl<'a> School<'a> {
    fn by_scheme(&self, watch: &mut Watch) -> Result<Schooled> {
        let student = match &self.run.recipe.scheme {
            Scheme::Offline => self.offline(watch)?,
            Scheme::Online => return self.online(watch),
            Scheme::Mutual(mutual) => self.mutual(mutual, watch)?,
            Scheme::CoDistil(plan) => self.co_distil(plan, watch)?,
            Scheme::BornAgain { generations } => return self.born_again(*generations, watch),
            Scheme::Average { decay } => self.by_itself(Former::Average(*decay), watch)?,
            Scheme::Snapshots { every } => self.by_itself(Former::Snapshot(*every), watch)?,
            Scheme::Progressive { last } => self.by_itself(Former::Progressive(*last), watch)?,
        };
        Ok(Schooled { student, along: None, asking: 0.0 })
    }

    fn offline(&self, watch: &mut Watch) -> Result<Trained> {
        let encoder = Encoder::new(&self.whole()?, &self.run.device);
        let mut teachers = self.answering();
        if self.run.recipe.losses.looks_inside() {
            teachers.push(Teaching { who: Who::Inside(&encoder), weight: 1.0 });
        }
        self.alone(teachers, &self.key, watch)
    }

    fn online(&self, watch: &mut Watch) -> Result<Schooled> {
        let of_teacher = Course { words: WordEmbeddings::Frozen, ..course(Losses::labels()) };
        let of_student = self.run.course(vec![Teaching { who: Who::Peer(0), weight: 1.0 }]);
        let first = || Ok(vec![self.whole()?, self.first()?]);
        let mut trained = self.train(vec![of_teacher, of_student], first, &self.key, watch)?;
        let student = one(trained.split_off(1));
        Ok(Schooled { student, along: Some(self.examined(&one(trained))), asking: 0.0 })
    }

    fn mutual(&self, mutual: &Mutual, watch: &mut Watch) -> Result<Trained> {
        let count = 1 + mutual.peers.len();
        let others = |own: usize| {
            let others = (0..count).filter(move |&peer| peer != own);
            let weight = 1.0 / (count - 1) as f64;
            others.map(move |peer| Teaching { who: Who::Peer(peer), weight }).collect()
        };
        let courses = (0..count).map(|own| self.run.course(others(own))).collect();
        let first = || {
            let peers = mutual.peers.iter().map(|layers| self.run.cut(self.from, layers));
            std::iter::once(self.first()).chain(peers).collect()
        };
        Ok(best(self.train(courses, first, &self.key, watch)?))
    }

    fn co_distil(&self, plan: &CoDistil, watch: &mut Watch) -> Result<Trained> {
        let Run { recipe, inputs, options, .. } = self.run;
        let me = options.worker.filter(|&worker| worker < plan.workers);
        let me = me.ok_or(Error::Worker { workers: plan.workers })?;
        let folder = recipe.resolve(&plan.folder);
        let workers =
            Workers::new(folder, me, plan.clone(), self.key.clone(), self.run.device.clone());
        let course = self.run.course(vec![Teaching { who: Who::Workers(&workers), weight: 1.0 }]);
        let shard = inputs.of_student.all.shard(me, plan.workers);
        let key = hash(&[self.key.as_bytes(), json(&me).as_bytes()]);
        let first = || Ok(vec![self.first()?]);
        Ok(one(self.train_on(&shard, vec![course], first, &key, watch)?))
    }

    fn born_again(&self, generations: usize, watch: &mut Watch) -> Result<Schooled> {
        let mut asking = 0.0;
        let mut last: Option<(Trained, Answers)> = None;
        for generation in 1..=generations {
            let teachers = match &last {
                None => self.answering(),
                Some((_, answers)) => vec![Teaching { who: Who::Answers(answers), weight: 1.0 }],
            };
            let key = hash(&[self.key.as_bytes(), json(&generation).as_bytes()]);
            let born = self.alone(teachers, &key, watch)?;
            let started = Instant::now();
            let answers = self.answers(&born, watch)?;
            asking += started.elapsed().as_secs_f64();
            last = Some((born, answers));
        }
        let (student, _) = last.expect("a recipe has a generation");
        Ok(Schooled { student, along: None, asking })
    }

    fn by_itself(&self, former: Former, watch: &mut Watch) -> Result<Trained> {
        self.alone(vec![Teaching { who: Who::Former(former), weight: 1.0 }], &self.key, watch)
    }

    /// One student, on all examples.
    fn alone(&self, teachers: Vec<Teaching>, key: &str, watch: &mut Watch) -> Result<Trained> {
        let courses = vec![self.run.course(teachers)];
        Ok(one(self.train(courses, || Ok(vec![self.first()?]), key, watch)?))
    }

    fn train(
        &self,
        courses: Vec<Course>,
        first: impl FnOnce() -> Result<Vec<Weights>>,
        key: &str,
        watch: &mut Watch,
    ) -> Result<Vec<Trained>> {
        self.train_on(&self.run.inputs.of_student.all, courses, first, key, watch)
    }

    fn train_on(
        &self,
        train: &Examples,
        courses: Vec<Course>,
        first: impl FnOnce() -> Result<Vec<Weights>>,
        key: &str,
        watch: &mut Watch,
    ) -> Result<Vec<Trained>> {
        let Run { recipe, inputs, stages, .. } = self.run;
        let lesson = Lesson {
            stage: Stage::Student,
            training: &recipe.student.training,
            seed: recipe.seed,
            train,
            exam: &inputs.of_student.exam,
            courses,
            mask: inputs.of_student.mask,
            key,
            checkpoint: &stages.checkpoint(Stage::Student, "unfinished"),
            device: &self.run.device,
        };
        stages.learn(&lesson, first, watch)
    }

    /// The student before its training.
    fn first(&self) -> Result<Weights> {
        self.run.cut(self.from, self.layers)
    }

    /// All that the student is cut out of, reading what it reads.
    fn whole(&self) -> Result<Weights> {
        let whole = student::same_words(self.from, &self.run.inputs.vocabulary.kept);
        whole.map_err(|got| self.run.no_student(got))
    }

    /// Those whose answers are kept.
    fn answering(&self) -> Vec<Teaching<'a>> {
        let teaching = |speaker: &&'a Speaker| Teaching {
            who: Who::Answers(&speaker.answers),
            weight: speaker.weight,
        };
        self.speakers.iter().map(teaching).collect()
    }

    /// A model that reads as the student does, examined.
    fn examined(&self, model: &Trained) -> Taught {
        let encoder = Encoder::new(&model.weights, &Device::flex());
        Taught {
            architecture: model.weights.architecture(),
            validation: artefacts::asked(&encoder, self.run.inputs.of_student.exam.examples()),
            trial: None,
            seconds: 0.0,
        }
    }

    /// What `born` says about the training texts.
    fn answers(&self, born: &Trained, watch: &mut Watch) -> Result<Answers> {
        let Run { inputs, stages, .. } = self.run;
        let encoder = Encoder::new(&born.weights, &self.run.device);
        let each = &mut |step, steps| -> ControlFlow<()> {
            let seconds_left = watch.seconds_left();
            watch.tell(Progress::Asked { step, steps, seconds_left })
        };
        let answers =
            ask(&encoder, &self.run.device, &inputs.of_student.all, Mode::default(), each);
        answers.ok_or(Error::Interrupted { checkpoint: stages.output.join("checkpoints") })
    }
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
