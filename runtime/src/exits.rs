//! Early exits: answers of a classifier after some of its layers, taken where they are certain enough.
//!
//! A model has them where outputs named `exit.1`, `exit.2` and so on stand beside its first output and have the
//! same shape. The probability of an exit's likeliest label is its certainty; the first exit that reaches the
//! threshold gives the answer, and nothing behind it is computed.

use crate::decode::softmax;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::manifest::Task;
use crate::session::Session;
use crate::tensor::Tensor;

/// Most accuracy that exits may cost where nothing else is said, in points.
pub const DEFAULT_EXIT_DROP: f64 = 0.3;

/// Thresholds are tried in steps of one in so many.
const STEPS: u32 = 500;

/// The early exits of a bundle.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exits {
    /// Outputs of the graph that are exits, the earliest first.
    pub outputs: Vec<String>,
    /// Certainty from which an exit is taken, above 0; 1 where nobody calibrated it, and none is taken.
    pub threshold: f32,
}

/// How far a session computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Depth {
    /// The exit that answered, counted from 1; exits and one more where it was the last layer.
    pub exit: usize,
    /// Multiply-accumulates that ran, as a share of those that run where no exit is taken.
    pub compute: f64,
}

impl Exits {
    /// The exits of `graph`, uncalibrated; `None` where it has none, or is no classifier.
    pub(crate) fn of(graph: &Graph, task: Task) -> Option<Exits> {
        let first = graph.outputs.first().filter(|_| task == Task::Classify)?;
        let named = (1..).map(|exit| format!("exit.{exit}"));
        let found = named.map_while(|name| {
            graph.outputs.iter().find(|it| it.name == name && it.shape == first.shape)
        });
        let outputs: Vec<String> = found.map(|output| output.name.clone()).collect();
        (!outputs.is_empty()).then_some(Exits { outputs, threshold: 1.0 })
    }

    /// The same with the lowest threshold at which `answers` lose at most `max_drop` points of accuracy
    /// against the last layer, and do so at every higher threshold too.
    pub(crate) fn calibrated(self, answers: &[Answered], max_drop: f64) -> Exits {
        let right =
            |threshold: f32| answers.iter().filter(|answered| answered.is_right(threshold)).count();
        let full = right(1.0) as f64;
        let allowed = max_drop / 100.0 * answers.len() as f64;
        let steps = (1..STEPS).rev().map(|step| step as f32 / STEPS as f32);
        let held = steps.take_while(|&threshold| full - right(threshold) as f64 <= allowed);
        Exits { threshold: held.last().unwrap_or(1.0), ..self }
    }
}

/// `exits` of the model in `session` with a threshold at which the examples, texts with their labels, lose at most
/// `max_drop` points; as they are where there are no examples.
///
/// # Errors
/// Those of running it.
pub(crate) fn calibrate(
    exits: Exits,
    session: &Session,
    examples: Option<&[(String, String)]>,
    max_drop: f64,
) -> Result<Exits> {
    let Some(examples) = examples else { return Ok(exits) };
    let answers = examples.iter().map(|(text, label)| {
        let outputs = session.run(&session.text_inputs(text)?.into_iter().collect())?;
        Answered::new(session, &exits, &outputs, label)
    });
    let answers: Vec<Answered> = answers.collect::<Result<_>>()?;
    Ok(exits.calibrated(&answers, max_drop))
}

/// What all exits and the last layer said about one labelled example.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answered {
    /// Certainty of each exit, and whether it was right; the last layer at the end.
    said: Vec<(f32, bool)>,
}

impl Answered {
    /// From the outputs of `session` for the inputs of an example whose label is `label`.
    ///
    /// # Errors
    /// [`Error::Graph`] where an output holds no logits.
    pub(crate) fn new(
        session: &Session,
        exits: &Exits,
        outputs: &[(String, Tensor)],
        label: &str,
    ) -> Result<Answered> {
        let labels = &session.manifest().labels;
        let said = |name: Option<&String>| {
            let output = match name {
                Some(name) => outputs.iter().find(|(output, _)| output == name),
                None => outputs.first(),
            };
            let logits = output.and_then(|(_, tensor)| tensor.to_f32());
            let logits = logits.filter(|logits| logits.len() == labels.len());
            let logits = logits
                .ok_or_else(|| Error::graph("an exit", "a number for each label", "another"))?;
            let (place, certainty) = likeliest(&logits);
            Ok((certainty, labels[place] == label))
        };
        let names = exits.outputs.iter().map(Some).chain([None]);
        Ok(Answered { said: names.map(said).collect::<Result<_>>()? })
    }

    /// Whether the first exit that reaches `threshold`, or else the last layer, was right.
    fn is_right(&self, threshold: f32) -> bool {
        let (last, early) = self.said.split_last().expect("the last layer always answers");
        let taken = early.iter().find(|(certainty, _)| is_certain(*certainty, threshold));
        taken.unwrap_or(last).1
    }
}

/// Whether an exit is taken: at a threshold of 1 none is.
pub(crate) fn is_certain(certainty: f32, threshold: f32) -> bool {
    threshold < 1.0 && certainty >= threshold
}

/// The place of the highest of `logits`, and the probability there.
pub(crate) fn likeliest(logits: &[f32]) -> (usize, f32) {
    let probabilities = softmax(logits).into_iter().enumerate();
    probabilities.fold((0, 0.0), |best, next| if next.1 > best.1 { next } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Dim, ValueSpec};
    use crate::tensor::DType;

    fn answered(said: &[(f32, bool)]) -> Answered {
        Answered { said: said.into() }
    }

    fn exits() -> Exits {
        Exits { outputs: vec!["exit.1".to_owned()], threshold: 1.0 }
    }

    #[test]
    fn the_lowest_threshold_that_holds_is_found() {
        // The exit is wrong at 0.6 and right from 0.8 on, where the last layer always is.
        let answers = [
            answered(&[(0.95, true), (0.9, true)]),
            answered(&[(0.8, true), (0.9, true)]),
            answered(&[(0.6, false), (0.9, true)]),
            answered(&[(0.3, true), (0.9, true)]),
        ];
        let threshold = exits().calibrated(&answers, 0.0).threshold;
        assert!(threshold > 0.6 && threshold <= 0.61, "{threshold}");
        // A quarter of the examples may go wrong.
        let threshold = exits().calibrated(&answers, 25.0).threshold;
        assert!(threshold < 0.01, "{threshold}");
    }

    #[test]
    fn exits_that_err_when_they_are_sure_are_never_taken() {
        let answers = [answered(&[(0.9999, false), (0.9, true)])];
        assert_eq!(exits().calibrated(&answers, 0.0).threshold, 1.0);
        assert!(!is_certain(1.0, 1.0) && is_certain(0.5, 0.5) && !is_certain(0.4, 0.5));
    }

    #[test]
    fn exits_are_outputs_of_that_name_shaped_like_the_first() {
        let spec = |name: &str, width| {
            ValueSpec::new(name, DType::F32, &[Dim::Symbol("batch".to_owned()), Dim::Fixed(width)])
        };
        let graph = |outputs: Vec<ValueSpec>| Graph { outputs, ..Graph::default() };
        let both = graph(vec![spec("logits", 3), spec("exit.1", 3), spec("exit.2", 4)]);
        assert_eq!(Exits::of(&both, Task::Classify), Some(exits()));
        assert_eq!(Exits::of(&both, Task::Raw), None);
        assert_eq!(
            Exits::of(&graph(vec![spec("logits", 3), spec("exit.2", 3)]), Task::Classify),
            None
        );
    }
}
