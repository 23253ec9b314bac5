//! A training on disk: unfinished, to be continued bit for bit, or finished, to be used again.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files;
use crate::weights::{self, Architecture, Weights};

/// How far a training has come.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Passes finished.
    pub(crate) epoch: usize,
    /// Steps done in the running pass.
    pub(crate) step: usize,
    /// Sum of the losses of those steps; f32 for the reason given at [`Epoch`].
    pub(crate) loss_sum: f32,
    /// Time spent so far, over all runs.
    pub(crate) seconds: f64,
    /// The finished passes.
    pub(crate) history: Vec<Epoch>,
}

/// One pass over the data. The numbers are f32 because the decimal form of an f32 comes back from
/// JSON unchanged; serde_json may read an f64 one bit off, and a resumed run would show it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Epoch {
    /// Mean loss.
    pub(crate) loss: f32,
    /// Share of the validation examples that were labelled rightly after it, in `[0, 1]`.
    pub(crate) accuracy: f32,
}

/// Everything that an interrupted training needs to go on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Checkpoint {
    /// What the training depends on, hashed.
    pub(crate) key: String,
    pub(crate) position: Position,
    pub(crate) weights: Weights,
    /// The weights with the best accuracy so far; those it started from before the first pass.
    pub(crate) best: Weights,
    /// The optimizer's own record.
    pub(crate) optimizer: Vec<u8>,
}

/// A finished training.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trained {
    /// After the pass with the best validation accuracy, the first of several.
    pub(crate) weights: Weights,
    pub(crate) history: Vec<Epoch>,
    pub(crate) seconds: f64,
}

#[derive(Serialize, Deserialize)]
struct State {
    key: String,
    architecture: Architecture,
    position: Position,
}

impl Checkpoint {
    /// Writes it to `path`, whole or not at all.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let state = State {
            key: self.key.clone(),
            architecture: self.weights.architecture(),
            position: self.position.clone(),
        };
        let record = safetensors::tensor::TensorView::new(
            safetensors::Dtype::U8,
            vec![self.optimizer.len()],
            &self.optimizer,
        );
        let record = ("optimizer".to_owned(), record.expect("one byte an element"));
        let tensors = tensors("weights.", &self.weights).chain(tensors("best.", &self.best));
        files::write(path, &serialize(tensors.chain([record]), &state))
    }

    /// The checkpoint at `path` of the training with this `key`; `None` where there is no file.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it is damaged or belongs to another training.
    pub(crate) fn load(path: &Path, key: &str) -> Result<Option<Checkpoint>> {
        let Some(bytes) = files::read_if_there(path)? else { return Ok(None) };
        let fault = |reason: String| Error::Checkpoint { path: path.to_owned(), reason };
        let state = state(&bytes).map_err(fault)?;
        if state.key != key {
            return Err(fault("it belongs to another recipe, teacher or data".to_owned()));
        }
        let weights = |prefix| {
            weights::arrays(&bytes, prefix)
                .and_then(|arrays| Weights::new(state.architecture, arrays))
                .map_err(fault)
        };
        let file = safetensors::SafeTensors::deserialize(&bytes)
            .map_err(|error| fault(error.to_string()))?;
        let optimizer = file.tensor("optimizer").map_err(|error| fault(error.to_string()))?;
        Ok(Some(Checkpoint {
            weights: weights("weights.")?,
            best: weights("best.")?,
            optimizer: optimizer.data().to_vec(),
            key: state.key,
            position: state.position,
        }))
    }
}

impl Trained {
    /// Writes it to `path`, whole or not at all.
    pub(crate) fn save(&self, path: &Path, key: &str) -> Result<()> {
        let position = Position {
            epoch: self.history.len(),
            seconds: self.seconds,
            history: self.history.clone(),
            ..Position::default()
        };
        let architecture = self.weights.architecture();
        let state = State { key: key.to_owned(), architecture, position };
        files::write(path, &serialize(tensors("", &self.weights), &state))
    }

    /// The finished training at `path` with this `key`; `None` where there is none, or the file is
    /// another's or damaged: it can always be trained again.
    pub(crate) fn load(path: &Path, key: &str) -> Result<Option<Trained>> {
        let Some(bytes) = files::read_if_there(path)? else { return Ok(None) };
        let Some(state) = state(&bytes).ok().filter(|state| state.key == key) else {
            return Ok(None);
        };
        let arrays = weights::arrays(&bytes, "");
        let weights = arrays.and_then(|arrays| Weights::new(state.architecture, arrays)).ok();
        let Position { history, seconds, .. } = state.position;
        Ok(weights.map(|weights| Trained { weights, history, seconds }))
    }
}

fn tensors<'a>(
    prefix: &'a str,
    weights: &'a Weights,
) -> impl Iterator<Item = (String, safetensors::tensor::TensorView<'a>)> {
    let named = move |(name, array)| (format!("{prefix}{name}"), weights::view(array));
    weights.arrays().iter().map(named)
}

fn serialize<'a>(
    tensors: impl Iterator<Item = (String, safetensors::tensor::TensorView<'a>)>,
    state: &State,
) -> Vec<u8> {
    let state = serde_json::to_string(state).expect("plain numbers are JSON");
    weights::serialize(tensors, "training", state)
}

fn state(bytes: &[u8]) -> Result<State, String> {
    let state = weights::metadata(bytes, "training")?;
    serde_json::from_str(&state).map_err(|error| error.to_string())
}
