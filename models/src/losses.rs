//! What a training minimizes. All are means over the rows of a batch.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};

/// Cross-entropy of `logits` `[batch, labels]` with the label indices `labels` `[batch, 1]`, over
/// the rows where `known` `[batch, 1]` is 1; 0 where it is 0 for all.
pub(crate) fn hard(logits: Tensor<2>, labels: Tensor<2, Int>, known: Tensor<2>) -> Tensor<1> {
    let rows = known.clone().sum().clamp_min(1.0);
    let likelihood = log_softmax(logits, 1).gather(1, labels) * known;
    likelihood.sum().neg() / rows
}

/// Divergence of the student's softened distribution from the teacher's, both `[batch, labels]`:
/// `T^2 KL(teacher || student)`. The factor keeps the size of the gradients when the temperature
/// changes (Hinton, Vinyals and Dean 2015, section 2).
pub(crate) fn soft(student: Tensor<2>, teacher: Tensor<2>, temperature: f64) -> Tensor<1> {
    let rows = student.dims()[0] as f64;
    let student = log_softmax(student.div_scalar(temperature), 1);
    let teacher = log_softmax(teacher.div_scalar(temperature), 1);
    let divergence = teacher.clone().exp() * (teacher - student);
    divergence.sum().mul_scalar(temperature * temperature / rows)
}

/// Squared distance between embeddings `[batch, hidden]`, relative to the teacher's squared length:
/// 0 where they agree, 1 where the student says nothing.
pub(crate) fn embedding(student: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
    let distance = (student - teacher.clone()).square().sum_dim(1);
    (distance / teacher.square().sum_dim(1).add_scalar(1e-12)).mean()
}

/// One less the cosine of each pair of rows.
pub(crate) fn cosine(student: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
    (unit(student) * unit(teacher)).sum_dim(1).mean().neg() + 1.0
}

/// Squared difference of the two matrices of cosines within the batch, averaged over its elements. The
/// widths may differ.
pub(crate) fn similarity(student: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
    let cosines = |x: Tensor<2>| {
        let x = unit(x);
        x.clone().matmul(x.swap_dims(0, 1))
    };
    (cosines(student) - cosines(teacher)).square().mean()
}

/// Each row at length 1.
pub(crate) fn unit(x: Tensor<2>) -> Tensor<2> {
    let length = x.clone().square().sum_dim(1).add_scalar(1e-24).sqrt();
    x / length
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn value(loss: Tensor<1>) -> f32 {
        loss.into_scalar()
    }

    // Worked by hand with p = (1/4, 3/4): logits (0, ln 3).
    const LN_3: f32 = 1.098_612_3;

    #[test]
    fn hard_is_the_negative_log_of_the_labels_probability() {
        let device = Device::flex();
        let logits = Tensor::<2>::from_data([[0.0, LN_3], [0.0, LN_3]], &device);
        let labels = Tensor::<2, Int>::from_data([[0], [1]], &device);
        // (ln 4 + ln 4/3) / 2, then ln 4/3 alone, then nothing.
        for (known, expected) in
            [([[1.0], [1.0]], 0.836_988), ([[0.0], [1.0]], 0.287_682), ([[0.0], [0.0]], 0.0)]
        {
            let known = Tensor::<2>::from_data(known, &device);
            let loss = value(hard(logits.clone(), labels.clone(), known));
            assert!((loss - expected).abs() < 1e-6, "{loss}, expected {expected}");
        }
    }

    #[test]
    fn soft_is_the_scaled_divergence() {
        let device = Device::flex();
        let teacher = Tensor::<2>::from_data([[0.0, 2.0 * LN_3]], &device);
        let student = Tensor::<2>::from_data([[0.0, 0.0]], &device);
        // At T = 2: 4 (1/4 ln(1/2) + 3/4 ln(3/2)) = 4 * 0.130812
        assert!((value(soft(student, teacher.clone(), 2.0)) - 0.523_248).abs() < 1e-6);
        assert!(value(soft(teacher.clone(), teacher, 2.0)).abs() < 1e-6);
    }

    #[test]
    fn embedding_is_relative_to_the_teachers_length() {
        let device = Device::flex();
        let teacher = Tensor::<2>::from_data([[3.0, 4.0], [0.0, 2.0]], &device);
        let student = Tensor::<2>::from_data([[0.0, 0.0], [0.0, 1.0]], &device);
        // (25/25 + 1/4) / 2
        assert!((value(embedding(student, teacher)) - 0.625).abs() < 1e-6);
    }

    #[test]
    fn cosine_and_similarity_look_at_directions_alone() {
        let device = Device::flex();
        let teacher = Tensor::<2>::from_data([[3.0, 4.0], [0.0, 2.0]], &device);
        let student = Tensor::<2>::from_data([[4.0, 3.0], [0.0, 9.0]], &device);
        // Cosines 24/25 and 1.
        assert!((value(cosine(student.clone(), teacher.clone())) - 0.02).abs() < 1e-6);
        // The cosines between the rows: 0.8 and 0.6, twice among four.
        assert!((value(similarity(student, teacher.clone())) - 0.02).abs() < 1e-6);
        // Width 3, the same angles.
        let wide = Tensor::<2>::from_data([[0.0, 3.0, 4.0], [0.0, 0.0, 1.0]], &device);
        assert!(value(similarity(wide, teacher)).abs() < 1e-6);
    }
}
