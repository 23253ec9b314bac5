//! A training on disk: unfinished, to be continued bit for bit, or finished, to be used again; and what
//! a teacher said.

use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files;
use crate::signals::network::Convolutional;
use crate::signals::weights::Weights;
use crate::weights::{Array, arrays, metadata, serialize, view};

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
pub(crate) struct Unfinished {
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

/// What a teacher said about the training examples.
pub(crate) struct Answers {
    /// `[examples, labels]`.
    pub(crate) logits: Array,
    /// Time that asking took when it was done.
    pub(crate) seconds: f32,
}

#[derive(Serialize, Deserialize)]
struct State {
    key: String,
    sizes: Convolutional,
    position: Position,
}

impl Unfinished {
    /// Writes it to `path`, whole or not at all; `key` is what the training depends on, hashed.
    pub(crate) fn save(&self, path: &Path, key: &str) -> Result<()> {
        let (sizes, position) = (self.weights.sizes().clone(), self.position.clone());
        let state = json(&State { key: key.to_owned(), sizes, position });
        let record = TensorView::new(Dtype::U8, vec![self.optimizer.len()], &self.optimizer);
        let record = ("optimizer".to_owned(), record.expect("one byte an element"));
        let tensors = self.weights.tensors("weights.").chain(self.best.tensors("best."));
        files::write(path, &serialize(tensors.chain([record]), "training", state))
    }

    /// The one at `path` of the training with this `key`; `None` where there is no file.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it is damaged or belongs to another training.
    pub(crate) fn load(path: &Path, key: &str) -> Result<Option<Unfinished>> {
        let Some(bytes) = files::read_if_there(path)? else { return Ok(None) };
        let fault = |reason: String| Error::Checkpoint { path: path.to_owned(), reason };
        let state = state(&bytes).map_err(fault)?;
        if state.key != key {
            return Err(fault("it belongs to another recipe or other data".to_owned()));
        }
        let weights = |prefix| {
            arrays(&bytes, prefix)
                .and_then(|arrays| Weights::new(state.sizes.clone(), arrays))
                .map_err(fault)
        };
        let file = SafeTensors::deserialize(&bytes).map_err(|error| fault(error.to_string()))?;
        let optimizer = file.tensor("optimizer").map_err(|error| fault(error.to_string()))?;
        Ok(Some(Unfinished {
            weights: weights("weights.")?,
            best: weights("best.")?,
            optimizer: optimizer.data().to_vec(),
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
        let sizes = self.weights.sizes().clone();
        let state = json(&State { key: key.to_owned(), sizes, position });
        files::write(path, &serialize(self.weights.tensors(""), "training", state))
    }

    /// The finished training at `path` with this `key`; `None` where there is none, or the file is
    /// another's or damaged: it can always be trained again.
    pub(crate) fn load(path: &Path, key: &str) -> Result<Option<Trained>> {
        let Some(bytes) = files::read_if_there(path)? else { return Ok(None) };
        let Some(state) = state(&bytes).ok().filter(|state| state.key == key) else {
            return Ok(None);
        };
        let weights = arrays(&bytes, "").and_then(|arrays| Weights::new(state.sizes, arrays)).ok();
        let Position { history, seconds, .. } = state.position;
        Ok(weights.map(|weights| Trained { weights, history, seconds }))
    }
}

impl Answers {
    /// Writes them to `path`, whole or not at all.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let logits = [("logits".to_owned(), view(&self.logits))];
        files::write(path, &serialize(logits.into_iter(), "seconds", json(&self.seconds)))
    }

    /// The answers at `path`; `None` where there are none, or the file is damaged.
    pub(crate) fn load(path: &Path) -> Result<Option<Answers>> {
        let Some(bytes) = files::read_if_there(path)? else { return Ok(None) };
        let logits = arrays(&bytes, "").ok().and_then(|mut arrays| arrays.remove("logits"));
        let seconds = metadata(&bytes, "seconds").ok().and_then(|text| text.parse().ok());
        let answers = logits.zip(seconds);
        Ok(answers.map(|(logits, seconds)| Answers { logits, seconds }))
    }
}

/// `value` as JSON.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data is JSON")
}

fn state(bytes: &[u8]) -> Result<State, String> {
    serde_json::from_str(&metadata(bytes, "training")?).map_err(|error| error.to_string())
}
