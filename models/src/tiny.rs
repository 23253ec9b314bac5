//! A teacher, data and a recipe of a size that trains in a second, for tests.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::device::Device;
use crate::distill::Options;
use crate::error::{Error, Result};
use crate::inputs::hash;
use crate::interface::Sizes;
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::seed::Random;
use crate::train::Resume;
use crate::weights::{Architecture, Array, Weights, serialize, view};

/// Five labels, and a word that gives each away.
const LABELS: [(&str, &str); 5] = [
    ("alarm", "wake"),
    ("music", "song"),
    ("news", "paper"),
    ("time", "clock"),
    ("weather", "rain"),
];

/// The sizes of the tiny teacher.
pub(crate) const ARCHITECTURE: Architecture = Architecture {
    vocabulary: 66,
    positions: 32,
    hidden: 16,
    heads: 2,
    head_width: 8,
    layers: 3,
    feed_forward: 32,
    labels: 5,
    exits: 0,
};

/// A folder of a test's own.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// How a test's recipe is run: on the device that `DRAM_DEVICE` names, on the processor where it names none.
pub(crate) fn options(resume: Resume) -> Options {
    let device = std::env::var("DRAM_DEVICE").map_or(Ok(Device::Cpu), |name| name.parse());
    Options { resume, device: device.expect("`DRAM_DEVICE`"), ..Options::default() }
}

/// Asserts that two trainings gave the same, where the device promises that.
pub(crate) fn assert_same<T: PartialEq + std::fmt::Debug>(one: T, two: T) {
    if options(Resume::No).device == Device::Cpu {
        assert_eq!(one, two);
    }
}

/// The files `names` of a distillation's folder as hashes, but for the line that tells the time.
pub(crate) fn hashes(output: &Path, names: &[&'static str]) -> Vec<(&'static str, String)> {
    let read = |&name| {
        let bytes = std::fs::read(output.join(name)).expect(name);
        let lines = bytes.split(|&byte| byte == b'\n');
        let timeless: Vec<&[u8]> = lines.filter(|line| !line.starts_with(b"- time:")).collect();
        (name, hash(&timeless))
    };
    names.iter().map(read).collect()
}

/// Calls `train` until it is done, and stops it each time when it has told of its progress `every` times. Gives how
/// often it was stopped, which is less than `most`.
pub(crate) fn interrupted(
    every: usize,
    most: usize,
    mut train: impl FnMut(&mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<()>,
) -> usize {
    for interruptions in 0..most {
        let mut left = every;
        let result = train(&mut |_| {
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match result {
            Err(Error::Interrupted { .. }) => {}
            result => {
                result.expect("a student");
                return interruptions;
            }
        }
    }
    panic!("it never ends");
}

/// A WordPiece tokenizer of 66 pieces: five special tokens, an unused slot, a Cyrillic letter, the
/// Latin letters alone and as continuations, and a few words.
pub(crate) fn tokenizer() -> Vec<u8> {
    let letters: Vec<String> = ('a'..='z').flat_map(|c| [c.into(), format!("##{c}")]).collect();
    let special = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "я"];
    let words = ["the", "play", "##ing", "song", "rain", "##er", "clock"];
    let letters = letters.iter().map(String::as_str);
    let pieces = special.into_iter().chain(letters).chain(words);
    let vocabulary: Map<String, Value> =
        pieces.enumerate().map(|(id, piece)| (piece.to_owned(), json!(id))).collect();
    let added = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(|name| {
        json!({"id": vocabulary[name], "content": name, "special": true, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false})
    });
    let special = |name: &str| json!({"id": name, "ids": [vocabulary[name]], "tokens": [name]});
    let part = |name: &str| json!({"SpecialToken": {"id": name, "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true,
            "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [part("[CLS]"), text, part("[SEP]")], "pair": [text],
            "special_tokens": {"[CLS]": special("[CLS]"), "[SEP]": special("[SEP]")}},
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary},
    });
    serde_json::to_vec(&json).expect("JSON")
}

/// Random weights of moderate size: gains near 1, everything else near 0.
pub(crate) fn weights(architecture: Architecture, seed: u64) -> Weights {
    let arrays = architecture.layout().into_iter().map(|(name, shape)| {
        let mut random = Random::new(seed, &name, 0);
        let gain = if name.ends_with("gamma") { 1.0 } else { 0.0 };
        let values = (0..shape.iter().product()).map(|_| gain + 0.2 * random.normal()).collect();
        (name, Array { shape, values })
    });
    Weights::new(architecture, arrays.collect()).expect("its own layout")
}

/// Writes a teacher of three layers and a recipe into `folder`; returns the recipe's path.
pub(crate) fn workplace(folder: &Path) -> PathBuf {
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.join(name), bytes).expect("a writable folder");
    };
    write("model.safetensors", &checkpoint(&weights(ARCHITECTURE, 1)));
    write("tokenizer.json", &tokenizer());
    write("config.json", CONFIG.as_bytes());
    write("train.tsv", texts(20).as_bytes());
    write("val.tsv", texts(4).as_bytes());
    write("pairs.tsv", pairs().as_bytes());
    write("recipe.toml", RECIPE.as_bytes());
    folder.join("recipe.toml")
}

/// The recipe of a [`workplace`].
pub(crate) fn recipe(folder: &Path) -> Recipe {
    changed(folder, &[])
}

/// The recipe of a [`workplace`] with the parts of its text that are named first replaced by the second.
pub(crate) fn changed(folder: &Path, changes: &[(&str, &str)]) -> Recipe {
    let path = workplace(folder);
    let mut text = RECIPE.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "no {from} in the tiny recipe");
        text = text.replacen(from, to, 1);
    }
    std::fs::write(&path, text).expect("a writable folder");
    Recipe::load(&path).expect("a good recipe")
}

/// What turns the tiny recipe into one for a sentence encoder: training, data, losses.
pub(crate) const SENTENCES: [(&str, &str); 3] = [
    (
        "[teacher.training]\nepochs = 8\nbatch = 16\nlearning_rate = 1e-2\nwarmup = 0.1\n\
         weight_decay = 0.01\nclip_norm = 1.0\n",
        "",
    ),
    (
        "[data.labelled]\ntrain = \"train.tsv\"\nvalidation = \"val.tsv\"\nvariations = 1\n",
        "[data.sentences]\nfrom = [{ path = \"train.tsv\" }, { path = \"pairs.tsv\", take = 9 }]\n\
         pairs = \"pairs.tsv\"\nretrieval = { train = \"train.tsv\", validation = \"val.tsv\" }\n",
    ),
    (
        "soft = { weight = 1.0, temperature = 2.0 }\nhard = 0.5\n\
         embedding = { weight = 1.0, distance = \"relative\" }\n",
        "embedding = { weight = 1.0, distance = \"cosine\" }\nsimilarity = 1.0\n",
    ),
];

/// Scored pairs: the more letters they share, the more alike.
fn pairs() -> String {
    let lines = (0..20).map(|n| {
        let letters: String = ('a'..='t').take(n + 1).flat_map(|c| [c, ' ']).collect();
        format!("a b c d e f g h i j\t{letters}rain\t{}\n", 10 - n.abs_diff(9))
    });
    std::iter::once("sentence1\tsentence2\tscore\n".to_owned()).chain(lines).collect()
}

/// `weights` as Hugging Face stores a BERT: linear layers `[output, input]`, token types apart.
fn checkpoint(weights: &Weights) -> Vec<u8> {
    let types = Array { shape: vec![2, 16], values: vec![0.0; 32] };
    let mut arrays = vec![("embeddings.token_type_embeddings.weight".to_owned(), types)];
    for (name, array) in weights.arrays() {
        let Some(published) = published(name) else { continue };
        let linear = name.starts_with("layers.") && name.ends_with("weight");
        arrays.push((published, if linear { array.transposed() } else { array.clone() }));
    }
    let tensors = arrays.iter().map(|(name, array)| (name.clone(), view(array)));
    serialize(tensors, "format", "pt".to_owned())
}

fn published(name: &str) -> Option<String> {
    let name = name.replace("gamma", "weight").replace("beta", "bias");
    let Some(rest) = name.strip_prefix("layers.") else {
        return match name.as_str() {
            "words.weight" => Some("embeddings.word_embeddings.weight".to_owned()),
            "positions.weight" => Some("embeddings.position_embeddings.weight".to_owned()),
            _ => name.strip_prefix("norm.").map(|kind| format!("embeddings.LayerNorm.{kind}")),
        };
    };
    let (layer, rest) = rest.split_once('.')?;
    let (part, kind) = rest.split_once('.')?;
    let part = match part {
        "attended" => "attention.output.dense".to_owned(),
        "attention_norm" => "attention.output.LayerNorm".to_owned(),
        "expand" => "intermediate.dense".to_owned(),
        "contract" => "output.dense".to_owned(),
        "feed_forward_norm" => "output.LayerNorm".to_owned(),
        projection => format!("attention.self.{projection}"),
    };
    Some(format!("encoder.layer.{layer}.{part}.{kind}"))
}

/// `each` examples of every label, as TSV.
fn texts(each: usize) -> String {
    let fillers = ["the", "play the", "a", "my", "in the"];
    let line = |number: usize| {
        let (label, word) = LABELS[number % LABELS.len()];
        format!("{} {word}\t{label}\n", fillers[number / LABELS.len() % fillers.len()])
    };
    let lines = (0..each * LABELS.len()).map(line);
    std::iter::once("text\tlabel\n".to_owned()).chain(lines).collect()
}

const CONFIG: &str = r#"{
    "model_type": "bert", "hidden_act": "gelu", "hidden_size": 16, "intermediate_size": 32,
    "layer_norm_eps": 1e-12, "max_position_embeddings": 32, "num_attention_heads": 2,
    "num_hidden_layers": 3, "vocab_size": 66
}"#;

const RECIPE: &str = r#"
name = "tiny"
seed = 3
max_tokens = 12

[teacher]
folder = "."
licence = "none"

[teacher.training]
epochs = 8
batch = 16
learning_rate = 1e-2
warmup = 0.1
weight_decay = 0.01
clip_norm = 1.0

[data.labelled]
train = "train.tsv"
validation = "val.tsv"
variations = 1
licence = "none"

[student]
layers = [0, 2]
feed_forward = 24
vocabulary = 200
positions = 16

[student.training]
epochs = 8
batch = 16
learning_rate = 1e-2
warmup = 0.1
weight_decay = 0.01
clip_norm = 1.0

[losses]
soft = { weight = 1.0, temperature = 2.0 }
hard = 0.5
embedding = { weight = 1.0, distance = "relative" }
"#;
