//! The sum that one pupil minimizes on one batch.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::masked::Masked;
use super::pupil::Trainee;
use super::taught::Taught;
use super::{Course, Former};
use crate::features::{self, Tokens};
use crate::interface::{Batched, Said, Student};
use crate::losses;
use crate::recipe::{Distance, Embedding, Losses};

/// What a batch is known to be, whoever is asked.
pub(super) struct Truth {
    /// `[rows, 1]`, and 1 where a row has a label.
    labels: Tensor<2, Int>,
    known: Tensor<2>,
    /// Which tokens count, where there are any.
    tokens: Option<Tokens>,
    masked: Option<Masked>,
    device: Device,
}

impl Truth {
    /// Of `batch`, which holds the examples `rows`, where the first of all examples have `labels`.
    pub(super) fn new(
        batch: &impl Batched,
        rows: &[usize],
        labels: &[usize],
        masked: Option<Masked>,
        device: &Device,
    ) -> Truth {
        let label = |&row: &usize| labels.get(row).map(|&label| label as i64);
        let labels: Vec<Option<i64>> = rows.iter().map(label).collect();
        let shape = [rows.len(), 1];
        let known = labels.iter().map(|label| if label.is_some() { 1.0 } else { 0.0 }).collect();
        let labels = labels.iter().map(|label| label.unwrap_or(0)).collect();
        Truth {
            labels: Tensor::from_data(TensorData::new::<i64, _>(labels, shape), device),
            known: Tensor::from_data(TensorData::new::<f32, _>(known, shape), device),
            tokens: batch.tokens(device),
            masked: masked.filter(|masked| !masked.is_empty()),
            device: device.clone(),
        }
    }
}

/// What `trainee` loses by having `said` this, where its teachers say `taught` and `progress` of the
/// training is behind; 0 where nothing compares.
pub(super) fn loss<S: Student>(
    course: &Course<S>,
    trainee: &Trainee<S>,
    said: &Said,
    taught: &[Taught<S>],
    truth: &Truth,
    progress: f64,
) -> Tensor<1> {
    let mut sum = Sum(None);
    let labels = label_weight(course, taught, progress);
    let answers = |logits: &Tensor<2>, sum: &mut Sum| {
        answer_terms(&course.losses, logits, taught, truth, labels, sum);
    };
    if let Some((deepest, early)) = said.logits.split_last() {
        answers(deepest, &mut sum);
        vector_terms(&course.losses, trainee, said, taught, &mut sum);
        if let Some(exits) = course.exits {
            for exit in early {
                let mut of_exit = Sum(None);
                answers(exit, &mut of_exit);
                let deepest = deepest.clone().detach();
                of_exit
                    .add(exits.deepest, || losses::soft(exit.clone(), deepest, exits.temperature));
                sum.0 = sum.0.zip(of_exit.0).map(|(sum, exit)| sum + exit.mul_scalar(exits.weight));
            }
        }
    } else {
        vector_terms(&course.losses, trainee, said, taught, &mut sum);
    }
    if let Some(tokens) = &truth.tokens {
        inside_terms(&course.losses, trainee, said, taught, tokens, &mut sum);
    }
    word_terms(&course.losses, trainee, said, taught, truth, &mut sum);
    sum.0.unwrap_or_else(|| Tensor::zeros([1], &truth.device))
}

/// Terms that are there, added in the order in which they come.
struct Sum(Option<Tensor<1>>);

impl Sum {
    fn add(&mut self, weight: f64, term: impl FnOnce() -> Tensor<1>) {
        if weight > 0.0 {
            let term = term().mul_scalar(weight);
            self.0 = Some(match self.0.take() {
                Some(sum) => sum + term,
                None => term,
            });
        }
    }
}

/// The label's part, where the pupil's own past takes the other one.
fn label_weight<S: Student>(course: &Course<S>, taught: &[Taught<S>], progress: f64) -> f64 {
    let weight = course.losses.hard.unwrap_or(0.0);
    match course.former() {
        Some(Former::Progressive(last)) if !taught.is_empty() => weight * (1.0 - last * progress),
        _ => weight,
    }
}

/// Labels and softened distributions, for one answer.
fn answer_terms<S>(
    terms: &Losses,
    logits: &Tensor<2>,
    taught: &[Taught<S>],
    truth: &Truth,
    label_weight: f64,
    sum: &mut Sum,
) {
    if let Some(soft) = terms.soft {
        for teacher in taught {
            let Some(theirs) = &teacher.logits else { continue };
            sum.add(soft.weight * teacher.weight, || {
                losses::soft(logits.clone(), theirs.clone(), soft.temperature)
            });
        }
    }
    sum.add(label_weight, || {
        losses::hard(logits.clone(), truth.labels.clone(), truth.known.clone())
    });
}

/// Sentence embeddings, one by one and against each other.
fn vector_terms<S: Student>(
    terms: &Losses,
    trainee: &Trainee<S>,
    said: &Said,
    taught: &[Taught<S>],
    sum: &mut Sum,
) {
    let mut projections = trainee.embeddings.iter();
    for teacher in taught {
        let Some(theirs) = &teacher.embeddings else { continue };
        let ours = &said.embeddings;
        if let Some(embedding) = terms.embedding {
            sum.add(embedding.weight * teacher.weight, || {
                let ours = match ours.dims()[1] == theirs.dims()[1] {
                    true => ours.clone(),
                    false => {
                        let projection = projections.next();
                        projection.expect("one for each other width").forward(ours.clone())
                    }
                };
                apart(embedding, ours, theirs.clone())
            });
        }
        sum.add(terms.similarity.unwrap_or(0.0) * teacher.weight, || {
            losses::similarity(ours.clone(), theirs.clone())
        });
    }
}

fn apart(embedding: Embedding, ours: Tensor<2>, theirs: Tensor<2>) -> Tensor<1> {
    match embedding.distance {
        Distance::Relative => losses::embedding(ours, theirs),
        Distance::Cosine => losses::cosine(ours, theirs),
        Distance::MeanSquared => (ours - theirs).square().mean(),
    }
}

/// Token vectors, attention scores and relations.
fn inside_terms<S: Student>(
    terms: &Losses,
    trainee: &Trainee<S>,
    said: &Said,
    taught: &[Taught<S>],
    tokens: &Tokens,
    sum: &mut Sum,
) {
    for teacher in taught.iter().filter(|teacher| !teacher.states.is_empty()) {
        let (ours, theirs) = (&said.states, &teacher.states);
        if let Some(hidden) = &terms.hidden {
            let share = teacher.weight * hidden.weight / hidden.layers.len() as f64;
            for (&[student, teacher], projection) in hidden.layers.iter().zip(&trainee.hidden) {
                sum.add(share, || {
                    let ours = projection.forward(ours[student].hidden.clone());
                    let theirs = theirs[teacher].hidden.clone();
                    features::hidden(ours, theirs, hidden.distance, tokens)
                });
            }
        }
        if let Some(attention) = &terms.attention {
            let share = teacher.weight * attention.weight / attention.layers.len() as f64;
            for &[student, teacher] in &attention.layers {
                let (Some(ours), Some(theirs)) =
                    (&ours[student].attention, &theirs[teacher].attention)
                else {
                    continue;
                };
                sum.add(share, || features::attention(ours, theirs, tokens));
            }
        }
        if let Some(relations) = terms.relations
            && let (Some(ours), Some(theirs)) = (
                &ours[relations.student_layer].attention,
                &theirs[relations.teacher_layer].attention,
            )
        {
            sum.add(teacher.weight * relations.weight, || {
                features::relations(ours, theirs, relations.heads, tokens)
            });
        }
    }
}

/// Guesses of the hidden words.
fn word_terms<S: Student>(
    terms: &Losses,
    trainee: &Trainee<S>,
    said: &Said,
    taught: &[Taught<S>],
    truth: &Truth,
    sum: &mut Sum,
) {
    let (Some(words), Some(masked), Some(last)) = (terms.words, &truth.masked, said.states.last())
    else {
        return;
    };
    let hidden = masked.of(last.hidden.clone(), &truth.device);
    let Some(guesses) = trainee.network.guesses(hidden) else { return };
    sum.add(words.hard, || features::words(guesses.clone(), masked.words(&truth.device)));
    for teacher in taught {
        let (Some(network), Some(last)) = (&teacher.words, teacher.states.last()) else {
            continue;
        };
        let theirs = masked.of(last.hidden.clone().inner(), &truth.device.clone().inner());
        let Some(theirs) = network.guesses(theirs).map(Tensor::from_inner) else { continue };
        sum.add(words.soft * teacher.weight, || {
            losses::soft(guesses.clone(), theirs, words.temperature)
        });
    }
}
