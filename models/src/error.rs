//! What can go wrong between a recipe and a student, with the place, the fact and the next step.

use std::path::{Path, PathBuf};

use crate::device::Device;

/// Anything that keeps a recipe from becoming a student.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was attempted: "read", "write" ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// The recipe is no TOML, or has a field that is missing, unknown or of the wrong type.
    #[error("recipe `{}`: {reason}", path.display())]
    Recipe {
        /// The recipe file.
        path: PathBuf,
        /// Line, field and the fields allowed there.
        reason: String,
    },

    /// A value of the recipe lies outside its range.
    #[error("recipe `{}`: `{field}` is {got}, expected {expected}", path.display())]
    RecipeValue {
        /// The recipe file.
        path: PathBuf,
        /// The field, with the tables around it.
        field: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        got: String,
    },

    /// The teacher's folder does not hold a teacher.
    #[error("no teacher in `{}`: {reason}; run `models/fetch.sh`, or set `teacher.folder`", folder.display())]
    NoTeacher {
        /// The folder that the recipe names.
        folder: PathBuf,
        /// The file that is missing.
        reason: String,
    },

    /// The teacher is there, but it is no encoder that can be distilled here.
    #[error("teacher `{}`: expected {expected}, got {got}", path.display())]
    Teacher {
        /// The checkpoint or its configuration.
        path: PathBuf,
        /// What can be distilled.
        expected: String,
        /// What the file says.
        got: String,
    },

    /// A data file does not read as labelled texts.
    #[error("`{}` line {line}: expected {expected}, got {got}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// What should stand there.
        expected: String,
        /// What stands there.
        got: String,
    },

    /// A file of signals does not hold what the recipe says.
    #[error("`{}`: expected {expected}, got {got}", path.display())]
    Signals {
        /// The file, or the folder of files.
        path: PathBuf,
        /// What should be there.
        expected: String,
        /// What is.
        got: String,
    },

    /// A file does not read as scored pairs.
    #[error("`{}`: {reason}", path.display())]
    Pairs {
        /// The file.
        path: PathBuf,
        /// The place and what should stand there.
        reason: String,
    },

    /// A teacher cannot be asked through the runtime.
    #[error("teacher `{}`: {reason}; `dram check` tells what of it will run", path.display())]
    Further {
        /// Its ONNX file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },

    /// The scheme needs to know which of several processes this is.
    #[error("the scheme `co_distil` has {workers} workers: say which one this is with `--worker N`, 0 to {}", workers - 1)]
    Worker {
        /// How many there are.
        workers: usize,
    },

    /// The device that a training was to compute on cannot be used.
    #[error("device `{device}`: {reason}; `--device cpu` always works")]
    Device {
        /// Which.
        device: Device,
        /// What is missing.
        reason: String,
    },

    /// The teacher's tokenizer cannot be used or cut.
    #[error("tokenizer: {reason}; distillation needs a BERT WordPiece `tokenizer.json`")]
    Tokenizer {
        /// What is wrong.
        reason: String,
    },

    /// A checkpoint cannot be continued from.
    #[error("checkpoint `{}`: {reason}; leave out `--resume` to start afresh", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// The loss is no number any more.
    #[error(
        "the loss of the {stage} became {loss} in epoch {epoch}; lower `learning_rate` or `clip_norm`"
    )]
    Diverged {
        /// Which training.
        stage: &'static str,
        /// Epoch, counted from 1.
        epoch: usize,
        /// The loss.
        loss: f32,
    },

    /// The caller asked to stop; everything so far is on disk.
    #[error("stopped; `{}` holds everything so far, `--resume` continues from it", checkpoint.display())]
    Interrupted {
        /// What a resumed run reads.
        checkpoint: PathBuf,
    },

    /// The exported student is not the student that was trained.
    #[error("the exported student differs from the trained one: {0}")]
    Export(String),
}

impl Error {
    /// For `map_err`: what was being done to `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    }
}

/// The result of everything that can fail in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
