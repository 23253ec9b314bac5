//! A pre-trained teacher from its folder, as `sentence-transformers` publishes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::seed::Random;
use crate::weights::{Architecture, Array, NORM_EPSILON, Weights, arrays};

/// The files of a teacher, read but not yet an encoder.
pub(crate) struct Teacher {
    /// The bytes of `model.safetensors`.
    pub(crate) checkpoint: Vec<u8>,
    /// The bytes of `tokenizer.json`.
    pub(crate) tokenizer: Vec<u8>,
    config: Config,
    folder: PathBuf,
}

#[derive(Deserialize)]
struct Config {
    model_type: String,
    hidden_act: String,
    hidden_size: usize,
    intermediate_size: usize,
    layer_norm_eps: f64,
    max_position_embeddings: usize,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    vocab_size: usize,
}

/// Reads the teacher in `folder`.
///
/// # Errors
/// [`Error::NoTeacher`] where a file is missing, [`Error::Teacher`] where it is no BERT.
pub(crate) fn load(folder: &Path) -> Result<Teacher> {
    let read = |name: &str| {
        std::fs::read(folder.join(name)).map_err(|error| Error::NoTeacher {
            folder: folder.to_owned(),
            reason: format!("`{name}`: {error}"),
        })
    };
    let config = read("config.json")?;
    let path = folder.join("config.json");
    let config: Config = serde_json::from_slice(&config).map_err(|error| Error::Teacher {
        path: path.clone(),
        expected: "the configuration of a BERT".to_owned(),
        got: error.to_string(),
    })?;
    check(&config, &path)?;
    Ok(Teacher {
        checkpoint: read("model.safetensors")?,
        tokenizer: read("tokenizer.json")?,
        config,
        folder: folder.to_owned(),
    })
}

impl Teacher {
    /// The encoder with a new head of `labels` classes, where there are any, drawn from a normal
    /// distribution with deviation 0.02 (BERT's own initialization).
    ///
    /// # Errors
    /// [`Error::Teacher`] with the first parameter that is missing or has another shape.
    pub(crate) fn with_head(&self, labels: usize, seed: u64) -> Result<Weights> {
        let fault = |got| Error::Teacher {
            path: self.folder.join("model.safetensors"),
            expected: "the parameters of a BERT".to_owned(),
            got,
        };
        let checkpoint = arrays(&self.checkpoint, "").map_err(fault)?;
        let architecture = self.architecture(labels);
        let mut renamed: BTreeMap<String, Array> =
            checkpoint.iter().filter_map(|(name, array)| rename(name, array)).collect();
        add_token_type(&mut renamed, checkpoint.get("embeddings.token_type_embeddings.weight"));
        renamed.extend(new_head("head", architecture, seed));
        Weights::new(architecture, renamed).map_err(fault)
    }

    fn architecture(&self, labels: usize) -> Architecture {
        Architecture {
            vocabulary: self.config.vocab_size,
            positions: self.config.max_position_embeddings,
            hidden: self.config.hidden_size,
            heads: self.config.num_attention_heads,
            head_width: self.config.hidden_size / self.config.num_attention_heads,
            layers: self.config.num_hidden_layers,
            feed_forward: self.config.intermediate_size,
            labels,
            exits: 0,
        }
    }
}

fn check(config: &Config, path: &Path) -> Result<()> {
    let found = [
        ("`model_type` bert", &config.model_type, config.model_type == "bert"),
        ("`hidden_act` gelu", &config.hidden_act, config.hidden_act == "gelu"),
        (
            "`layer_norm_eps` 1e-12",
            &config.layer_norm_eps.to_string(),
            config.layer_norm_eps == NORM_EPSILON,
        ),
        (
            "`hidden_size` a multiple of `num_attention_heads`",
            &format!("{} and {}", config.hidden_size, config.num_attention_heads),
            config.num_attention_heads > 0
                && config.hidden_size.is_multiple_of(config.num_attention_heads),
        ),
    ];
    match found.into_iter().find(|(.., good)| !good) {
        None => Ok(()),
        Some((expected, got, _)) => Err(Error::Teacher {
            path: path.to_owned(),
            expected: expected.to_owned(),
            got: got.clone(),
        }),
    }
}

/// A parameter under our name and in our layout; `None` for those that the encoder has no use for.
fn rename(name: &str, array: &Array) -> Option<(String, Array)> {
    let name = name.strip_prefix("bert.").unwrap_or(name);
    let (place, kind) = name.rsplit_once('.')?;
    let place = match place.strip_prefix("encoder.layer.") {
        None => match place {
            "embeddings.word_embeddings" => "words".to_owned(),
            "embeddings.position_embeddings" => "positions".to_owned(),
            "embeddings.LayerNorm" => "norm".to_owned(),
            _ => return None,
        },
        Some(place) => {
            let (layer, part) = place.split_once('.')?;
            let part = match part {
                "attention.self.query" => "query",
                "attention.self.key" => "key",
                "attention.self.value" => "value",
                "attention.output.dense" => "attended",
                "attention.output.LayerNorm" => "attention_norm",
                "intermediate.dense" => "expand",
                "output.dense" => "contract",
                "output.LayerNorm" => "feed_forward_norm",
                _ => return None,
            };
            format!("layers.{layer}.{part}")
        }
    };
    let norm = place.ends_with("norm");
    let embedding = matches!(place.as_str(), "words" | "positions");
    match kind {
        "weight" if norm => Some((format!("{place}.gamma"), array.clone())),
        "bias" if norm => Some((format!("{place}.beta"), array.clone())),
        "weight" if !embedding && array.shape.len() == 2 => {
            Some((format!("{place}.weight"), array.transposed()))
        }
        _ => Some((format!("{place}.{kind}"), array.clone())),
    }
}

/// A single text has token type 0 throughout, so that row is part of every position.
fn add_token_type(arrays: &mut BTreeMap<String, Array>, types: Option<&Array>) {
    let (Some(types), Some(positions)) = (types, arrays.get_mut("positions.weight")) else {
        return;
    };
    let width = positions.shape.last().copied().unwrap_or(1).max(1);
    for row in positions.values.chunks_mut(width) {
        row.iter_mut().zip(&types.values).for_each(|(value, kind)| *value += kind);
    }
}

/// A linear layer from `hidden` to the labels, as [`Teacher::with_head`] draws it.
pub(crate) fn new_head(name: &str, architecture: Architecture, seed: u64) -> [(String, Array); 2] {
    let Architecture { hidden, labels, .. } = architecture;
    let mut random = Random::new(seed, name, 0);
    let values = (0..hidden * labels).map(|_| 0.02 * random.normal()).collect();
    [
        (format!("{name}.weight"), Array { shape: vec![hidden, labels], values }),
        (format!("{name}.bias"), Array { shape: vec![labels], values: vec![0.0; labels] }),
    ]
}
