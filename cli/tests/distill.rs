//! `dram distill --worker` through the command: two processes that learn from each other over a folder.
#![cfg(feature = "distill")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Map, Value, json};

/// Width of a token's vector; the feed-forward blocks are twice as wide.
const WIDTH: usize = 16;

const CONFIG: &str = r#"{
    "model_type": "bert", "hidden_act": "gelu", "hidden_size": 16, "intermediate_size": 32,
    "layer_norm_eps": 1e-12, "max_position_embeddings": 32, "num_attention_heads": 2,
    "num_hidden_layers": 2, "vocab_size": 6000
}"#;

const RECIPE: &str = r#"
name = "tiny"
seed = 3
max_tokens = 12

[teacher]
folder = "."
licence = "none"

[data.labelled]
train = "texts.tsv"
validation = "texts.tsv"
variations = 0
licence = "none"

[student]
layers = [0]
feed_forward = 24
vocabulary = 600
positions = 16

[student.training]
epochs = 4
batch = 4
learning_rate = 1e-2
warmup = 0.1
weight_decay = 0.01
clip_norm = 1.0

[losses]
hard = 1.0
soft = { weight = 1.0, temperature = 2.0 }

[scheme.co_distil]
folder = "shared"
workers = 2
every = 1
burn_in = 0
"#;

#[test]
fn two_workers_of_the_command_leave_a_student_each() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    workplace(folder.path());
    let workers = ["0", "1"].map(|worker| start(folder.path(), &["--worker", worker]));
    for (number, worker) in workers.into_iter().enumerate() {
        let ended = worker.wait_with_output().expect("a child");
        assert!(ended.status.success(), "{}", said(&ended));
        for left in
            [format!("out{number}/student.onnx"), format!("shared/worker-{number}.safetensors")]
        {
            assert!(folder.path().join(&left).exists(), "no {left}: {}", said(&ended));
        }
    }
}

#[test]
fn a_device_that_is_not_there_is_refused_with_the_next_step() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    workplace(folder.path());
    for (device, expected) in [
        ("gpu", "`--device gpu`: expected `cpu`, `cuda` or `cuda:N`"),
        ("cuda:4096", "device `cuda:4096`: "),
        ("cuda:4096", "`--device cpu` always works"),
    ] {
        let arguments = ["--worker", "0", "--device", device];
        let ended = start(folder.path(), &arguments).wait_with_output().expect("a child");
        assert!(!ended.status.success(), "{device}");
        assert!(said(&ended).contains(expected), "{}", said(&ended));
    }
}

#[test]
fn a_worker_that_the_recipe_does_not_have_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    workplace(folder.path());
    for arguments in [&[][..], &["--worker", "2"]] {
        let ended = start(folder.path(), arguments).wait_with_output().expect("a child");
        assert!(!ended.status.success(), "{arguments:?}");
        assert!(said(&ended).contains("`--worker N`, 0 to 1"), "{}", said(&ended));
    }
}

/// `dram distill` of the recipe in `folder`, into the folder `out` and the worker's number.
fn start(folder: &Path, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_dram"))
        .arg("distill")
        .arg(folder.join("recipe.toml"))
        .arg("-o")
        .arg(folder.join(format!("out{}", arguments.last().unwrap_or(&""))))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command runs")
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|part| String::from_utf8_lossy(part)).concat()
}

/// A teacher of two layers, eight texts of two labels, and the recipe.
fn workplace(folder: &Path) {
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.join(name), bytes).expect("a writable folder");
    };
    let texts = ["play the song\tmusic\n", "the rain\tweather\n"].concat().repeat(4);
    write("texts.tsv", format!("text\tlabel\n{texts}").as_bytes());
    write("tokenizer.json", include_bytes!("../../tests/golden/tokenizer.json"));
    write("config.json", CONFIG.as_bytes());
    write("model.safetensors", &checkpoint());
    write("recipe.toml", RECIPE.as_bytes());
}

/// The teacher as Hugging Face stores a BERT: safetensors, that is the length of a JSON header, the header, and the
/// values one after the other.
fn checkpoint() -> Vec<u8> {
    let (mut header, mut values) = (Map::new(), Vec::new());
    for (name, shape) in layout() {
        let start = values.len();
        for place in 0..shape.iter().product() {
            values.extend(value(&name, place).to_le_bytes());
        }
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, values.len()]});
        header.insert(name, entry);
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &values].concat()
}

/// Gains of 1, everything else small and all over the place.
fn value(name: &str, place: usize) -> f32 {
    if name.ends_with("LayerNorm.weight") {
        return 1.0;
    }
    let mixed = (place + name.len()).wrapping_mul(2_654_435_761) >> 7;
    0.3 * ((mixed % 1000) as f32 / 500.0 - 1.0)
}

fn layout() -> Vec<(String, Vec<usize>)> {
    let mut layout = Vec::new();
    for (part, rows) in [("word", 6000), ("position", 32), ("token_type", 2)] {
        layout.push((format!("embeddings.{part}_embeddings.weight"), vec![rows, WIDTH]));
    }
    let mut pair = |name: String, weight: Vec<usize>| {
        layout.push((format!("{name}.bias"), vec![weight[0]]));
        layout.push((format!("{name}.weight"), weight));
    };
    pair("embeddings.LayerNorm".to_owned(), vec![WIDTH]);
    for layer in 0..2 {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        for part in ["self.query", "self.key", "self.value", "output.dense"] {
            pair(name(&format!("attention.{part}")), vec![WIDTH, WIDTH]);
        }
        pair(name("intermediate.dense"), vec![2 * WIDTH, WIDTH]);
        pair(name("output.dense"), vec![WIDTH, 2 * WIDTH]);
        for part in ["attention.output.LayerNorm", "output.LayerNorm"] {
            pair(name(part), vec![WIDTH]);
        }
    }
    layout
}
