//! Output tensors to what a caller asked for: labels with probabilities, or a vector.

/// What a model says of a text.
#[derive(Clone, Debug, PartialEq)]
pub enum Prediction {
    /// Every label, the likeliest first.
    Labels(Vec<Scored>),
    /// The text as a vector.
    Embedding(Vec<f32>),
}

/// A label and how likely it is.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Scored {
    /// The label.
    pub label: String,
    /// Its probability, 0 to 1; those of all labels add up to 1.
    pub probability: f32,
}

/// Probabilities that add up to 1, from logits: `[labels]` to `[labels]`.
pub(crate) fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = logits.iter().map(|logit| (logit - largest).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// Labels with their probabilities, the likeliest first, equal ones in the order of `labels`.
///
/// # Panics
/// Where there are not as many labels as probabilities; a session checks that.
pub(crate) fn ranked(labels: &[String], probabilities: &[f32]) -> Prediction {
    assert_eq!(labels.len(), probabilities.len(), "a session has as many labels as probabilities");
    let scored = labels.iter().zip(probabilities);
    let mut scored: Vec<Scored> =
        scored.map(|(label, &probability)| Scored { label: label.clone(), probability }).collect();
    scored.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    Prediction::Labels(scored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_add_up_and_large_logits_do_not_overflow() {
        let names = ["a", "b", "c"].map(str::to_owned);
        // softmax(0, ln 3, -inf) = 1/4, 3/4, 0.
        let Prediction::Labels(scored) =
            ranked(&names, &softmax(&[1000.0, 1000.0 + 3.0_f32.ln(), f32::NEG_INFINITY]))
        else {
            unreachable!("labels were asked for")
        };
        let found: Vec<(&str, f32)> = scored
            .iter()
            .map(|s| (s.label.as_str(), (s.probability * 1e4).round() / 1e4))
            .collect();
        assert_eq!(found, [("b", 0.75), ("a", 0.25), ("c", 0.0)]);
    }
}
