//! What those who teach say about a batch. Nothing here carries gradients.

use burn::tensor::{Device, Tensor, TensorData};

use super::pupil::Pupil;
use super::{Course, Former, Teaching, Who};
use crate::interface::{Attention, Dataset, Keep, Mode, Said, State, Student};
use crate::weights::Array;

/// What a student reads in one step.
type Batch<S> = <<S as Student>::Examples as Dataset>::Batch;

/// What one teacher says, and how much it counts; a teacher need not speak about everything.
pub(super) struct Taught<S> {
    pub(super) weight: f64,
    pub(super) logits: Option<Tensor<2>>,
    pub(super) embeddings: Option<Tensor<2>>,
    pub(super) states: Vec<State>,
    /// Its guesses of the masked words, as a function of token vectors.
    pub(super) words: Option<S>,
}

/// What the teachers of `course` say about `batch`, which holds the examples `rows`, where `said` is what
/// the pupils say and `progress` the share of the training that is behind, 0 to 1.
pub(super) fn taught<S: Student>(
    course: &Course<S>,
    pupil: &Pupil<S>,
    said: &[Said],
    (batch, rows): (&Batch<S>, &[usize]),
    progress: f64,
    device: &Device,
) -> Vec<Taught<S>> {
    let plain = &device.clone().inner();
    let by = |teaching: &Teaching<S>| {
        let weight = teaching.weight;
        match &teaching.who {
            Who::Answers(answers) => {
                let answers_to = |array: &Array| {
                    let Array { shape, values } = array.rows(rows);
                    Tensor::<2>::from_data(TensorData::new(values, shape), device)
                };
                vec![Taught {
                    logits: answers.logits.as_ref().map(answers_to),
                    embeddings: answers.embeddings.as_ref().map(answers_to),
                    ..silent(weight)
                }]
            }
            Who::Inside(network) => {
                let mode = Mode { keep: Keep::Layers, ..Mode::default() };
                let said = network.forward(batch, plain, mode);
                let states = said.states.into_iter().map(lifted).collect();
                vec![Taught { states, words: Some((*network).clone()), ..silent(weight) }]
            }
            Who::Peer(peer) => vec![overheard(&said[*peer], weight)],
            Who::Former(former) => {
                let weight = match former {
                    Former::Progressive(last) => weight * last * progress,
                    Former::Average(_) | Former::Snapshot(_) => weight,
                };
                let past = pupil.past.as_ref();
                past.map(|past| asked(&past.network, plain, batch, weight)).into_iter().collect()
            }
            Who::Workers(workers) => {
                let others = workers.listened();
                let weight = weight / others.len().max(1) as f64;
                others.iter().map(|network| asked(network, plain, batch, weight)).collect()
            }
        }
    };
    course.teachers.iter().flat_map(by).collect()
}

fn silent<S>(weight: f64) -> Taught<S> {
    Taught { weight, logits: None, embeddings: None, states: Vec::new(), words: None }
}

/// The answers of a network on `device`.
fn asked<S: Student>(network: &S, device: &Device, batch: &Batch<S>, weight: f64) -> Taught<S> {
    let said = network.forward(batch, device, Mode::default());
    Taught {
        logits: said.logits.into_iter().next_back().map(Tensor::from_inner),
        embeddings: Some(Tensor::from_inner(said.embeddings)),
        ..silent(weight)
    }
}

/// What another pupil says in this step.
fn overheard<S>(said: &Said, weight: f64) -> Taught<S> {
    let detached = |state: &State| State {
        hidden: state.hidden.clone().detach(),
        attention: state.attention.clone().map(|inside| Attention {
            queries: inside.queries.detach(),
            keys: inside.keys.detach(),
            values: inside.values.detach(),
            scores: inside.scores.detach(),
        }),
    };
    Taught {
        logits: said.logits.last().map(|logits| logits.clone().detach()),
        embeddings: Some(said.embeddings.clone().detach()),
        states: said.states.iter().map(detached).collect(),
        ..silent(weight)
    }
}

/// A state of the plain device on the one that keeps gradients.
fn lifted(state: State) -> State {
    State {
        hidden: Tensor::from_inner(state.hidden),
        attention: state.attention.map(|inside| Attention {
            queries: Tensor::from_inner(inside.queries),
            keys: Tensor::from_inner(inside.keys),
            values: Tensor::from_inner(inside.values),
            scores: Tensor::from_inner(inside.scores),
        }),
    }
}
