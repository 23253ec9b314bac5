//! The pipeline: sensor, window, prediction and decision in one object that the caller polls.

use crate::decision::{Change, Decision, Vote};
use crate::sensor::Sensor;
use crate::window::Window;
use core::fmt;

/// Reads `sensor`, cuts windows, asks `predict` about each, and debounces the answers.
///
/// `predict` takes a window `[LEN, CHANNELS]` and gives a [`Vote`]: here a caller runs its model, or
/// features and a threshold. Nothing in here waits, allocates or panics; memory is one [`Window`] and
/// `VOTES` votes.
#[derive(Debug)]
pub struct Pipeline<
    S,
    F,
    const CHANNELS: usize,
    const LEN: usize,
    const HOP: usize,
    const VOTES: usize,
> {
    sensor: S,
    window: Window<CHANNELS, LEN, HOP>,
    predict: F,
    decision: Decision<VOTES>,
    counts: Counts,
    /// Samples that the caller knows to be missing before the next one.
    noted_lost: u32,
}

/// What one [`Pipeline::step`] did.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub enum Step {
    /// The sensor had nothing new.
    Idle,
    /// A sample came; no window was due with it.
    Sampled,
    /// A sample came, a window was due, and it was predicted.
    Predicted {
        /// What this window was taken for.
        vote: Vote,
        /// How the decision changed by it, if it did.
        change: Option<Change>,
    },
}

/// What went wrong in one [`Pipeline::step`]. The pipeline goes on with the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error<S, P> {
    /// The sensor gave no sample.
    Sensor(S),
    /// The prediction failed; its window does not vote.
    Predict(P),
}

/// How often what has happened since the pipeline began. Each saturates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Samples taken.
    pub samples: u64,
    /// Samples known to be missing.
    pub lost: u64,
    /// Windows given to the prediction.
    pub windows: u64,
    /// Steps that ended in [`Error::Sensor`].
    pub sensor_errors: u64,
    /// Steps that ended in [`Error::Predict`].
    pub predict_errors: u64,
}

impl<S, F, P, const CHANNELS: usize, const LEN: usize, const HOP: usize, const VOTES: usize>
    Pipeline<S, F, CHANNELS, LEN, HOP, VOTES>
where
    S: Sensor<CHANNELS>,
    F: FnMut(&[[f32; CHANNELS]; LEN]) -> Result<Vote, P>,
{
    /// A pipeline that has not yet polled its sensor. A driver must have been started.
    pub fn new(
        sensor: S,
        window: Window<CHANNELS, LEN, HOP>,
        predict: F,
        decision: Decision<VOTES>,
    ) -> Self {
        Self { sensor, window, predict, decision, counts: Counts::default(), noted_lost: 0 }
    }

    /// Polls the sensor once and follows the sample, if there is one, as far as it leads. Call it at
    /// the sample rate or faster. A step that predicts takes as long as the prediction does; where that
    /// is longer than a sample lasts, samples pass by, and [`note_lost`](Self::note_lost) should tell.
    ///
    /// # Errors
    /// Whatever the sensor or the prediction says, in their own types. The step after is as good as
    /// any: what was lost meanwhile is bridged or resets the window, as the window was told.
    pub fn step(&mut self) -> Result<Step, Error<S::Error, P>> {
        let sample = match self.sensor.sample() {
            Ok(sample) => sample,
            Err(error) => {
                increase(&mut self.counts.sensor_errors, 1);
                return Err(Error::Sensor(error));
            }
        };
        let Some(mut sample) = sample else {
            return Ok(Step::Idle);
        };
        sample.lost = sample.lost.saturating_add(core::mem::take(&mut self.noted_lost));
        increase(&mut self.counts.samples, 1);
        increase(&mut self.counts.lost, sample.lost.into());
        let Some(window) = self.window.push(sample) else {
            return Ok(Step::Sampled);
        };
        increase(&mut self.counts.windows, 1);
        let vote = (self.predict)(window).map_err(|error| {
            increase(&mut self.counts.predict_errors, 1);
            Error::Predict(error)
        })?;
        Ok(Step::Predicted { vote, change: self.decision.push(vote) })
    }

    /// Says that `lost` samples passed by before the next one: a caller with a clock knows when it
    /// polled too late, most sensors do not.
    pub fn note_lost(&mut self, lost: u32) {
        self.noted_lost = self.noted_lost.saturating_add(lost);
    }

    /// Forgets the samples and votes so far, as after a long outage; the counts go on.
    pub fn reset(&mut self) {
        self.window.reset();
        self.decision.reset();
        self.noted_lost = 0;
    }

    /// The answer: the index of a label, or `None` while undecided. Gaps leave it alone.
    pub fn label(&self) -> Option<usize> {
        self.decision.label()
    }

    /// How often what has happened.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The sensor, to start it again after a power dip.
    pub fn sensor_mut(&mut self) -> &mut S {
        &mut self.sensor
    }

    /// The sensor, for other use.
    pub fn release(self) -> S {
        self.sensor
    }
}

fn increase(count: &mut u64, by: u64) {
    *count = count.saturating_add(by);
}

impl<S: fmt::Display, P: fmt::Display> fmt::Display for Error<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sensor(error) => write!(f, "no sample: {error}"),
            Self::Predict(error) => write!(f, "no prediction: {error}"),
        }
    }
}

impl<S, P> core::error::Error for Error<S, P>
where
    S: core::error::Error + 'static,
    P: core::error::Error + 'static,
{
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Sensor(error) => Some(error),
            Self::Predict(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests;
