//! A training on disk: unfinished, to be continued bit for bit, or finished, to be used again.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files;
use crate::interface::Sizes;
use crate::weights::{self, Architecture, Array, Weights};

/// How far a training has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Passes finished.
    pub(crate) epoch: usize,
    /// Steps done in the running pass.
    pub(crate) step: usize,
    /// Sum of the losses of those steps, by pupil; f32 for the reason given at [`Epoch`].
    pub(crate) loss_sums: Vec<f32>,
    /// Time spent so far, over all runs.
    pub(crate) seconds: f64,
    /// The finished passes, by pupil.
    pub(crate) histories: Vec<Vec<Epoch>>,
}

/// One pass over the data. The numbers are f32 because the decimal form of an f32 comes back from
/// JSON unchanged; serde_json may read an f64 one bit off, and a resumed run would show it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Epoch {
    /// Mean loss.
    pub(crate) loss: f32,
    /// What the exam gave after it, 1 at best.
    pub(crate) score: f32,
}

/// Everything that an interrupted training needs to go on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Checkpoint<S = Architecture> {
    /// What the training depends on, hashed.
    pub(crate) key: String,
    pub(crate) position: Position,
    pub(crate) pupils: Vec<PupilState<S>>,
}

/// One pupil of an interrupted training.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PupilState<S = Architecture> {
    pub(crate) weights: Weights<S>,
    /// The weights with the best score so far; those it started from before the first pass.
    pub(crate) best: Weights<S>,
    /// As it was, where that teaches it.
    pub(crate) former: Option<Weights<S>>,
    /// What it is compared through, by name.
    pub(crate) projections: BTreeMap<String, Array>,
    /// The optimizer's own record.
    pub(crate) optimizer: Vec<u8>,
}

/// A finished training.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trained<S = Architecture> {
    /// After the pass with the best score, the first of several.
    pub(crate) weights: Weights<S>,
    pub(crate) history: Vec<Epoch>,
    pub(crate) seconds: f64,
}

#[derive(Serialize, Deserialize)]
struct State<S> {
    key: String,
    /// One a pupil.
    sizes: Vec<S>,
    position: Position,
}

impl Position {
    /// Before the first step of so many pupils.
    pub(crate) fn new(pupils: usize) -> Position {
        Position {
            epoch: 0,
            step: 0,
            loss_sums: vec![0.0; pupils],
            seconds: 0.0,
            histories: vec![Vec::new(); pupils],
        }
    }
}

impl<S: Sizes> Checkpoint<S> {
    /// Writes it to `path`, whole or not at all.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let state = State {
            key: self.key.clone(),
            sizes: self.pupils.iter().map(|pupil| pupil.weights.sizes().clone()).collect(),
            position: self.position.clone(),
        };
        let pupils = self.pupils.iter().enumerate();
        files::write(path, &serialize(pupils.flat_map(|(n, pupil)| pupil.tensors(n)), &state))
    }

    /// The checkpoint at `path` of the training with this `key`; `None` where there is no file.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it is damaged or belongs to another training.
    pub(crate) fn load(path: &Path, key: &str) -> Result<Option<Checkpoint<S>>> {
        let Some(bytes) = files::read_if_there(path)? else { return Ok(None) };
        let fault = |reason: String| Error::Checkpoint { path: path.to_owned(), reason };
        let State { key: found, sizes, position } = state(&bytes).map_err(fault)?;
        if found != key {
            return Err(fault("it belongs to another recipe, teacher or data".to_owned()));
        }
        let pupils = sizes.into_iter().enumerate();
        let pupils = pupils.map(|(n, sizes)| PupilState::read(&bytes, n, sizes));
        let pupils = pupils.collect::<Result<_, String>>().map_err(fault)?;
        Ok(Some(Checkpoint { key: found, position, pupils }))
    }
}

impl<S: Sizes> PupilState<S> {
    fn tensors(&self, number: usize) -> Vec<(String, TensorView<'_>)> {
        let record = TensorView::new(Dtype::U8, vec![self.optimizer.len()], &self.optimizer);
        let mut tensors =
            vec![(format!("{number}.optimizer"), record.expect("one byte an element"))];
        let weights = [("weights", Some(&self.weights)), ("best", Some(&self.best))];
        for (part, weights) in weights.into_iter().chain([("former", self.former.as_ref())]) {
            let arrays = weights.into_iter().flat_map(|weights| weights.arrays());
            let named = |(name, array)| (format!("{number}.{part}.{name}"), weights::view(array));
            tensors.extend(arrays.map(named));
        }
        let projections = self.projections.iter();
        let named = |(name, array)| (format!("{number}.projections.{name}"), weights::view(array));
        tensors.extend(projections.map(named));
        tensors
    }

    fn read(bytes: &[u8], number: usize, sizes: S) -> Result<PupilState<S>, String> {
        let arrays = |part: &str| weights::arrays(bytes, &format!("{number}.{part}."));
        let weights = |part: &str| Weights::new(sizes.clone(), arrays(part)?);
        let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let optimizer = file.tensor(&format!("{number}.optimizer"));
        let former = arrays("former")?;
        Ok(PupilState {
            weights: weights("weights")?,
            best: weights("best")?,
            former: match former.is_empty() {
                true => None,
                false => Some(Weights::new(sizes, former)?),
            },
            projections: arrays("projections")?,
            optimizer: optimizer.map_err(|error| error.to_string())?.data().to_vec(),
        })
    }
}

impl<S: Sizes> Trained<S> {
    /// Writes it to `path`, whole or not at all.
    pub(crate) fn save(&self, path: &Path, key: &str) -> Result<()> {
        let position = Position {
            epoch: self.history.len(),
            seconds: self.seconds,
            histories: vec![self.history.clone()],
            ..Position::new(1)
        };
        let sizes = vec![self.weights.sizes().clone()];
        let state = State { key: key.to_owned(), sizes, position };
        let named = |(name, array): (&String, _)| (name.clone(), weights::view(array));
        files::write(path, &serialize(self.weights.arrays().iter().map(named), &state))
    }

    /// The finished training at `path` with this `key`; `None` where there is none, or the file is
    /// another's or damaged: it can always be trained again.
    pub(crate) fn load(path: &Path, key: &str) -> Result<Option<Trained<S>>> {
        let Some(bytes) = files::read_if_there(path)? else { return Ok(None) };
        let Some(state) = state::<S>(&bytes).ok().filter(|state| state.key == key) else {
            return Ok(None);
        };
        let Position { mut histories, seconds, .. } = state.position;
        let (Some(history), Some(sizes)) = (histories.pop(), state.sizes.into_iter().next()) else {
            return Ok(None);
        };
        let arrays = weights::arrays(&bytes, "");
        let weights = arrays.and_then(|arrays| Weights::new(sizes, arrays)).ok();
        Ok(weights.map(|weights| Trained { weights, history, seconds }))
    }

    /// Its best score; 0 before the first pass.
    pub(crate) fn score(&self) -> f32 {
        self.history.iter().map(|epoch| epoch.score).fold(0.0, f32::max)
    }
}

fn serialize<'a>(
    tensors: impl IntoIterator<Item = (String, TensorView<'a>)>,
    state: &State<impl Sizes>,
) -> Vec<u8> {
    let state = serde_json::to_string(state).expect("plain numbers are JSON");
    weights::serialize(tensors.into_iter(), "training", state)
}

fn state<S: Sizes>(bytes: &[u8]) -> Result<State<S>, String> {
    let state = weights::metadata(bytes, "training")?;
    serde_json::from_str(&state).map_err(|error| error.to_string())
}
