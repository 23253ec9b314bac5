//! What a student is held to: each term with its weight and what it needs besides.

use serde::{Deserialize, Serialize};

/// The terms of the student's loss; an absent term is not computed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Losses {
    /// Divergence from the teacher's softened distribution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft: Option<Soft>,
    /// Weight of the cross-entropy with the label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hard: Option<f64>,
    /// Distance from the teacher's sentence embedding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding: Option<Embedding>,
    /// Weight of the squared difference between the two matrices of cosines within a batch (Tung and
    /// Mori 2019, "Similarity-preserving knowledge distillation").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub similarity: Option<f64>,
    /// Distance from the teacher's token vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<Hidden>,
    /// Distance from the teacher's attention scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<Attention>,
    /// Divergence from how the teacher's queries, keys and values relate to each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relations: Option<Relations>,
    /// Guessing masked words, as the text has them and as the teacher guesses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<Words>,
}

/// Softened distributions (Hinton, Vinyals and Dean 2015).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Soft {
    /// Weight of the term.
    pub weight: f64,
    /// Divides both sides' logits before the softmax.
    pub temperature: f64,
}

/// Sentence embeddings. A teacher of another width is met by a learned projection.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedding {
    /// Weight of the term.
    pub weight: f64,
    /// How far two vectors are apart.
    pub distance: Distance,
}

/// How far two vectors are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distance {
    /// The squared difference over the teacher's squared length.
    Relative,
    /// One less the cosine.
    Cosine,
    /// The squared difference, averaged over the elements.
    MeanSquared,
}

/// Token vectors of chosen layers, the student's through a learned projection, which starts as the
/// identity where the widths agree (Jiao et al. 2020, "TinyBERT").
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hidden {
    /// Weight of the term.
    pub weight: f64,
    /// Pairs of the student's layer and the teacher's, counted from 1; 0 is the embedding layer.
    pub layers: Vec<[usize; 2]>,
    /// How far two token vectors are apart.
    pub distance: Distance,
}

/// Attention scores before the softmax (TinyBERT); both sides need as many heads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attention {
    /// Weight of the term.
    pub weight: f64,
    /// Pairs of the student's layer and the teacher's, counted from 1.
    pub layers: Vec<[usize; 2]>,
}

/// Self-attention relations: the softened products of queries with queries, keys with keys and values
/// with values (Wang et al. 2021, "MiniLMv2").
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relations {
    /// Weight of the term.
    pub weight: f64,
    /// The student's layer, counted from 1.
    pub student_layer: usize,
    /// The teacher's layer, counted from 1.
    pub teacher_layer: usize,
    /// Heads that both sides' vectors are cut into anew.
    pub heads: usize,
}

/// Two terms of DistilBERT's triple loss (Sanh et al. 2019); `hidden` with `cosine` is the third. The
/// word embeddings serve as output layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Words {
    /// Weight of the cross-entropy with the word that was there.
    pub hard: f64,
    /// Weight of the divergence from the teacher's softened distribution over words.
    pub soft: f64,
    /// Divides both sides' logits before the softmax of that divergence.
    pub temperature: f64,
    /// Share of the tokens that are masked.
    pub share: f64,
}

impl Losses {
    /// The labels alone.
    pub(crate) fn labels() -> Losses {
        Losses { hard: Some(1.0), ..Losses::default() }
    }

    /// Whether a term compares what lies inside of both encoders.
    pub(crate) fn looks_inside(&self) -> bool {
        self.hidden.is_some()
            || self.attention.is_some()
            || self.relations.is_some()
            || self.words.is_some_and(|words| words.soft > 0.0)
    }
}
