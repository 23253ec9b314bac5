//! The stages of a distillation and what each leaves on disk, whoever learns.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use crate::answers::{Answers, Each};
use crate::checkpoint::Trained;
use crate::error::{Error, Result};
use crate::files;
use crate::interface::Student;
use crate::progress::{Progress, Stage, Watch};
use crate::train::{Lesson, Resume, train};
use crate::weights::{Weights, metadata, serialize};

/// A folder in which stages find what they gave before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stages<'a> {
    pub(crate) output: &'a Path,
    /// Whether an unfinished training in it is continued.
    pub(crate) resume: Resume,
}

/// What a model said, and how long that took when it was asked.
pub(crate) struct Asked {
    pub(crate) answers: Answers,
    pub(crate) seconds: f64,
}

impl Stages<'_> {
    /// The finished training of `lesson`: the one in the folder, or a new one that starts from `first`.
    ///
    /// # Errors
    /// As [`train`], and [`Error::Io`].
    pub(crate) fn learn<S: Student>(
        &self,
        lesson: &Lesson<S>,
        first: impl FnOnce() -> Result<Vec<Weights<S::Sizes>>>,
        watch: &mut Watch,
    ) -> Result<Vec<Trained<S::Sizes>>> {
        let path = |pupil: usize| match pupil {
            0 => self.checkpoint(lesson.stage, &lesson.key[..16]),
            _ => self.checkpoint(lesson.stage, &format!("{}-{pupil}", &lesson.key[..16])),
        };
        let pupils = 0..lesson.courses.len();
        let found = pupils.clone().map(|pupil| Trained::load(&path(pupil), lesson.key));
        if let Some(trained) = found.collect::<Result<Option<Vec<Trained<S::Sizes>>>>>()? {
            let work = |trained: &Trained<_>| lesson.work_per_epoch(trained.weights.sizes());
            let work: f64 = trained.iter().map(work).sum();
            watch.skip(work * lesson.training.epochs as f64);
            reused(lesson.stage, &path(0), watch)?;
            return Ok(trained);
        }
        let trained = train(lesson, first()?, self.resume, watch)?;
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

    /// The answers that depend on nothing but `key`: those in the folder, or what `ask` gives, where none
    /// means that it was told to stop. `work` is what asking takes, in multiply-adds.
    ///
    /// # Errors
    /// Those of `ask`, [`Error::Interrupted`] and [`Error::Io`].
    pub(crate) fn ask(
        &self,
        key: &str,
        work: f64,
        ask: impl FnOnce(&mut Each) -> Result<Option<Answers>>,
        watch: &mut Watch,
    ) -> Result<Asked> {
        let kept = self.checkpoint(Stage::Answers, &key[..16]);
        if let Some(bytes) = files::read_if_there(&kept)?
            && let Some(answers) = Answers::from_file(&bytes, "")
        {
            let seconds = metadata(&bytes, "seconds").ok().and_then(|text| text.parse().ok());
            watch.skip(work);
            reused(Stage::Answers, &kept, watch)?;
            return Ok(Asked { answers, seconds: seconds.unwrap_or(0.0) });
        }
        let started = Instant::now();
        let answers = ask(&mut |step, steps| {
            watch.did(work / steps as f64);
            let seconds_left = watch.seconds_left();
            watch.tell(Progress::Asked { step, steps, seconds_left })
        })?;
        let checkpoint = self.output.join("checkpoints");
        let answers = answers.ok_or(Error::Interrupted { checkpoint })?;
        let seconds = started.elapsed().as_secs_f64();
        let tensors = answers.tensors("").into_iter();
        files::write(&kept, &serialize(tensors, "seconds", seconds.to_string()))?;
        Ok(Asked { answers, seconds })
    }

    /// The file of a stage, finished or not.
    pub(crate) fn checkpoint(&self, stage: Stage, which: &str) -> PathBuf {
        self.output.join("checkpoints").join(format!("{}-{which}.safetensors", stage.name()))
    }
}

/// `value` as JSON.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data is JSON")
}

fn reused(stage: Stage, path: &Path, watch: &mut Watch) -> Result<()> {
    match watch.tell(Progress::Reused { stage }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Interrupted { checkpoint: path.to_owned() }),
    }
}
