//! What a training minimizes where it looks inside of two encoders. All are means over what the mask
//! keeps, so that padding neither counts nor dilutes.

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Int, Tensor};

use crate::interface::Attention;
use crate::losses;
use crate::recipe::Distance;

/// Which tokens of a batch count.
pub(crate) struct Tokens {
    /// `[batch, tokens]`: 1 for a token, 0 for padding.
    pub(crate) mask: Tensor<2>,
    /// `[batch, 1, 1, tokens]`: added to the scores of keys.
    pub(crate) bias: Tensor<4>,
}

impl Tokens {
    /// Mean of `values` `[batch, 1 or heads, tokens, 1]` over the tokens that count.
    fn mean(&self, values: Tensor<4>) -> Tensor<1> {
        let [batch, heads, tokens, _] = values.dims();
        let mask = self.mask.clone().reshape([batch, 1, tokens, 1]);
        (values * mask.clone()).sum() / (mask.sum() * heads as f64)
    }
}

/// Distance of the token vectors `student` and `teacher`, both `[batch * tokens, width]`.
pub(crate) fn hidden(
    student: Tensor<2>,
    teacher: Tensor<2>,
    distance: Distance,
    tokens: &Tokens,
) -> Tensor<1> {
    let [batch, length] = tokens.mask.dims();
    let apart = match distance {
        Distance::Cosine => {
            (losses::unit(student) * losses::unit(teacher)).sum_dim(1).neg().add_scalar(1.0)
        }
        Distance::MeanSquared | Distance::Relative => (student - teacher).square().mean_dim(1),
    };
    tokens.mean(apart.reshape([batch, 1, length, 1]))
}

/// Squared difference of the scores of every query that counts to every key that counts (TinyBERT,
/// equation 7): averaged over heads, queries and keys.
pub(crate) fn attention(student: &Attention, teacher: &Attention, tokens: &Tokens) -> Tensor<1> {
    let [batch, length] = tokens.mask.dims();
    let keys = tokens.mask.clone().reshape([batch, 1, 1, length]);
    let squared = (student.scores.clone() - teacher.scores.clone()).square() * keys.clone();
    tokens.mean(squared.sum_dim(3) / keys.sum_dim(3))
}

/// Divergence of the student's relations from the teacher's: `softmax(Q·Qᵀ/√w)`, and the same for keys
/// and values, each cut into `heads` anew (MiniLMv2, equation 3), averaged over the three, heads and
/// queries.
pub(crate) fn relations(
    student: &Attention,
    teacher: &Attention,
    heads: usize,
    tokens: &Tokens,
) -> Tensor<1> {
    let pairs = [
        (&student.queries, &teacher.queries),
        (&student.keys, &teacher.keys),
        (&student.values, &teacher.values),
    ];
    let divergence = |(student, teacher): (&Tensor<4>, &Tensor<4>)| {
        let teacher = related(teacher, heads, tokens);
        let (shares, teacher) = (softmax(teacher.clone(), 3), log_softmax(teacher, 3));
        let student = log_softmax(related(student, heads, tokens), 3);
        tokens.mean((shares * (teacher - student)).sum_dim(3))
    };
    let sum = pairs.into_iter().map(divergence).reduce(|a, b| a + b);
    sum.expect("three pairs").div_scalar(3.0)
}

/// Scaled, masked products of the vectors of `part` with each other: `[batch, heads, tokens, tokens]`.
fn related(part: &Tensor<4>, heads: usize, tokens: &Tokens) -> Tensor<4> {
    let [batch, own, length, width] = part.dims();
    let anew = own * width / heads;
    let flat = part.clone().swap_dims(1, 2).reshape([batch, length, heads, anew]).swap_dims(1, 2);
    let scale = 1.0 / (anew as f64).sqrt();
    flat.clone().matmul(flat.swap_dims(2, 3)).mul_scalar(scale) + tokens.bias.clone()
}

/// Cross-entropy of the guesses `[masked, words]` with the words that were there, `[masked, 1]`.
pub(crate) fn words(guesses: Tensor<2>, words: Tensor<2, Int>) -> Tensor<1> {
    log_softmax(guesses, 1).gather(1, words).mean().neg()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    fn tokens(mask: [[f32; 2]; 1]) -> Tokens {
        let device = Device::flex();
        let mask = Tensor::<2>::from_data(mask, &device);
        let bias = (mask.clone() - 1.0).mul_scalar(1e4).reshape([1, 1, 1, 2]);
        Tokens { mask, bias }
    }

    fn four(values: [f32; 4], shape: [usize; 4]) -> Tensor<4> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    fn inside(values: [f32; 4]) -> Attention {
        // One head of two tokens, width 2.
        let part = four(values, [1, 1, 2, 2]);
        Attention { queries: part.clone(), keys: part.clone(), values: part.clone(), scores: part }
    }

    fn value(loss: Tensor<1>) -> f32 {
        loss.into_scalar()
    }

    #[test]
    fn padding_counts_in_no_term() {
        let device = Device::flex();
        let one = tokens([[1.0, 0.0]]);
        // The second token differs wildly, and is padding.
        let student = Tensor::<2>::from_data([[1.0, 2.0], [99.0, -7.0]], &device);
        let teacher = Tensor::<2>::from_data([[2.0, 2.0], [0.0, 0.0]], &device);
        let apart = hidden(student, teacher, Distance::MeanSquared, &one);
        assert!((value(apart) - 0.5).abs() < 1e-6);
        let (student, teacher) = (inside([1.0, 5.0, 7.0, 8.0]), inside([3.0, 9.0, 0.0, 0.0]));
        // Of the scores only the first query's for the first key counts.
        assert!((value(attention(&student, &teacher, &one)) - 4.0).abs() < 1e-6);
        // A single key takes everything, on both sides.
        assert!(value(relations(&student, &teacher, 1, &one)).abs() < 1e-6);
    }

    #[test]
    fn relations_are_the_divergence_of_softmaxed_products() {
        let both = tokens([[1.0, 1.0]]);
        // Student: orthogonal rows of length 0: every relation is even. Teacher: rows (a, 0) and (0, 0)
        // with a² / √2 = ln 3: the first row relates 3/4 to itself, the second evenly.
        let a = (3.0_f32.ln() * 2.0_f32.sqrt()).sqrt();
        let (student, teacher) = (inside([0.0; 4]), inside([a, 0.0, 0.0, 0.0]));
        let expected = (0.75 * 1.5_f32.ln() + 0.25 * 0.5_f32.ln()) / 2.0;
        assert!((value(relations(&student, &teacher, 1, &both)) - expected).abs() < 1e-6);
        // Two heads of width 1: the second sees zeros on both sides.
        let a = 3.0_f32.ln().sqrt();
        let teacher = inside([a, 0.0, 0.0, 0.0]);
        let split = value(relations(&student, &teacher, 2, &both));
        assert!((split - expected / 2.0).abs() < 1e-6, "{split}");
    }

    #[test]
    fn hidden_cosine_is_the_mean_over_tokens() {
        let device = Device::flex();
        let student = Tensor::<2>::from_data([[4.0, 3.0], [1.0, 0.0]], &device);
        let teacher = Tensor::<2>::from_data([[3.0, 4.0], [0.0, 1.0]], &device);
        let apart = hidden(student, teacher, Distance::Cosine, &tokens([[1.0, 1.0]]));
        // (1 - 24/25 + 1) / 2
        assert!((value(apart) - 0.52).abs() < 1e-6);
    }
}
