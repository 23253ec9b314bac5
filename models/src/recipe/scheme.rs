//! Who teaches whom, and when.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The scheme of a distillation. `docs/distillation.md` describes each, with its source.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Scheme {
    /// The teacher is finished first, its answers are kept, the student learns from them.
    #[default]
    Offline,
    /// The teacher learns the labels in the same steps in which the student learns from it.
    Online,
    /// Several students learn the labels, and from each other in every step.
    Mutual(Mutual),
    /// Several processes learn on shares of the data, and from each other's checkpoints.
    CoDistil(CoDistil),
    /// Each generation learns from the one before; the first from the teacher, where it is trained.
    BornAgain {
        /// Students one after the other; the last one is delivered.
        generations: usize,
    },
    /// The student learns the labels, and from a moving average of its own weights.
    Average {
        /// Share of the average that each step keeps.
        decay: f64,
    },
    /// The student learns the labels, and from itself as it was some passes ago.
    Snapshots {
        /// Passes from one snapshot to the next; the first of them have nobody to learn from.
        every: usize,
    },
    /// The student learns the labels mixed with what it said one pass ago.
    Progressive {
        /// Share of its own earlier answer in the last pass; it grows evenly up to it from 0.
        last: f64,
    },
}

/// Deep mutual learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutual {
    /// The teacher's layers that each further student starts from; the first one's are
    /// `student.layers`. The best on the validation examples is delivered.
    pub peers: Vec<Vec<usize>>,
}

/// Co-distillation over a folder that all processes see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoDistil {
    /// Where the workers leave their checkpoints; relative to the recipe.
    pub folder: PathBuf,
    /// Processes that may take part. Each is told with `--worker` which one it is.
    pub workers: usize,
    /// Steps from one exchange to the next.
    pub every: usize,
    /// Steps before which nobody listens to the others.
    pub burn_in: usize,
}

impl Scheme {
    /// Whether a finished teacher speaks before the student learns.
    pub(crate) fn has_teacher(&self) -> bool {
        matches!(self, Scheme::Offline | Scheme::BornAgain { .. })
    }
}
