//! Small sound inputs of every kind, for mutations to start from.

use std::path::Path;

use dram_runtime::bundle::{self, Bundle, Parts};
use dram_runtime::graph::{Attribute, Dim, Node, ValueSpec};
use dram_runtime::prepare::prepare;
use dram_runtime::{DType, Graph, Precision, Task, Tensor};

/// The repository's top folder.
pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository")
}

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(root().join("tests/golden").join(name)).expect("a file of tests/golden")
}

pub(super) fn onnx() -> Vec<Vec<u8>> {
    let quantized = ["dynamic-u8", "qdq-u8", "qoperator-gemm", "nbits", "nbits-qdq"];
    let quantized = quantized.map(|name| golden(&format!("quantized/{name}.onnx")));
    [vec![small().to_onnx(), shapes().to_onnx(), golden("tiny.onnx")], quantized.to_vec()].concat()
}

/// One linear layer.
fn small() -> Graph {
    let values: Vec<f32> = (0..12_u8).map(f32::from).collect();
    graph(
        vec![Node::new("MatMul", &["x", "w"], &["p"]), Node::new("Add", &["p", "b"], &["y"])],
        vec![
            ("w", Tensor::from_f32(&[4, 3], &values)),
            ("b", Tensor::from_f32(&[3], &[0.5, -0.5, 0.25])),
        ],
    )
}

/// Operators whose output is as large as a constant says.
fn shapes() -> Graph {
    let constant = |values: &[i64]| Tensor::from_i64(&[values.len()], values);
    let float = |value: f32| Tensor::from_f32(&[], &[value]);
    graph(
        vec![
            Node::new("ConstantOfShape", &["shape"], &["zeros"]),
            Node::new("Expand", &["one", "shape"], &["ones"]),
            Node::new("Tile", &["ones", "shape"], &["tiles"]),
            Node::new("Range", &["none", "four", "one"], &["range"]),
            Node::new("Pad", &["tiles", "pads"], &["padded"])
                .with("mode", Attribute::String("constant".to_owned())),
            Node::new("Concat", &["padded", "padded"], &["both"]).with("axis", Attribute::Int(0)),
            Node::new("Reshape", &["both", "flat"], &["vector"]),
            Node::new("Slice", &["vector", "from", "to"], &["four_of_it"]),
            Node::new("Add", &["x", "four_of_it"], &["a"]),
            Node::new("Add", &["a", "range"], &["b"]),
            Node::new("Add", &["b", "zeros"], &["y"]),
        ],
        vec![
            ("shape", constant(&[1, 4])),
            ("one", float(1.0)),
            ("none", float(0.0)),
            ("four", float(4.0)),
            ("pads", constant(&[0, 1, 0, 1])),
            ("flat", constant(&[-1])),
            ("from", constant(&[0])),
            ("to", constant(&[4])),
        ],
    )
}

fn graph(nodes: Vec<Node>, initializers: Vec<(&str, Tensor)>) -> Graph {
    let dims = |last: Dim| vec![Dim::Fixed(1), last];
    Graph {
        name: "seed".to_owned(),
        opsets: [(String::new(), 17)].into(),
        inputs: vec![ValueSpec::new("x", DType::F32, &dims(Dim::Fixed(4)))],
        outputs: vec![ValueSpec::new("y", DType::F32, &dims(Dim::Symbol("n".to_owned())))],
        nodes,
        initializers: initializers.into_iter().map(|(name, it)| (name.to_owned(), it)).collect(),
        ..Graph::default()
    }
}

pub(super) fn bundle() -> Vec<Vec<u8>> {
    let encoder = Graph::from_onnx(&golden("tiny.onnx")).expect("golden/tiny.onnx");
    let tokenizer = small_tokenizer();
    let labels: Vec<String> = (0..5).map(|label| label.to_string()).collect();
    let packed = |graph: &Graph, precision, task, sequences: &[usize]| {
        let prepared = prepare(graph, precision).expect("it runs");
        bundle::image(&Parts {
            task,
            sequences,
            labels: if task == Task::Classify { &labels } else { &[] },
            tokenizer: (task == Task::Classify).then_some(&tokenizer),
            metrics: [("f32_score".to_owned(), 0.5)].into(),
            ..Parts::of(&prepared.graph, precision)
        })
    };
    let images = vec![
        packed(&small(), Precision::F32, Task::Raw, &[]),
        packed(&encoder, Precision::Int8, Task::Classify, &[8, 16]),
        packed(&encoder, Precision::F32, Task::Raw, &[8]),
        packed(&encoder, Precision::Int4, Task::Raw, &[8]),
        packed(&encoder, Precision::F16, Task::Raw, &[8]),
    ];
    images.iter().for_each(|image| drop(Bundle::from_image(image).expect("a sound bundle")));
    images
}

pub(super) fn tokenizer() -> Vec<Vec<u8>> {
    let sentence_piece = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [
        {"id": 0, "content": "<unk>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "post_processor": null, "decoder": null,
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁", -2.0], ["a", -3.0], ["▁a", -3.5]], "byte_fallback": false}}"#;
    let byte_pairs = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
        "byte_fallback": false, "ignore_merges": false, "vocab": {"a": 0, "b": 1, "ab": 2, "e": 3}, "merges": [["a", "b"]]}}"#;
    vec![small_tokenizer(), sentence_piece.as_bytes().to_vec(), byte_pairs.as_bytes().to_vec()]
}

/// Word pieces for the 97 rows of the golden encoder's table.
fn small_tokenizer() -> Vec<u8> {
    let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"];
    let added: Vec<String> = specials.iter().enumerate().map(|(id, it)| format!(
        r#"{{"id": {id}, "content": "{it}", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}}"#
    )).collect();
    let pieces = specials
        .iter()
        .map(ToString::to_string)
        .chain(('a'..='z').flat_map(|letter| [letter.to_string(), format!("##{letter}")]));
    let vocabulary: Vec<String> =
        pieces.enumerate().map(|(id, piece)| format!(r#""{piece}": {id}"#)).collect();
    format!(
        r###"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [{}],
        "normalizer": {{"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true}},
        "pre_tokenizer": {{"type": "BertPreTokenizer"}},
        "post_processor": {{"type": "TemplateProcessing",
          "single": [{{"SpecialToken": {{"id": "[CLS]", "type_id": 0}}}}, {{"Sequence": {{"id": "A", "type_id": 0}}}}, {{"SpecialToken": {{"id": "[SEP]", "type_id": 0}}}}],
          "pair": [{{"Sequence": {{"id": "A", "type_id": 0}}}}, {{"Sequence": {{"id": "B", "type_id": 1}}}}],
          "special_tokens": {{"[CLS]": {{"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}}, "[SEP]": {{"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}}}}},
        "decoder": {{"type": "WordPiece", "prefix": "##", "cleanup": true}},
        "model": {{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": {{{}}}}}}}"###,
        added.join(", "), vocabulary.join(", ")
    ).into_bytes()
}

pub(super) fn npy() -> Vec<Vec<u8>> {
    let f32s = Tensor::from_f32(&[2, 3], &[1.0, -2.5, 0.0, 4.0, 5.0, 6.0]);
    [f32s, Tensor::from_i64(&[], &[7]), Tensor::from_i8(&[0, 4], &[])]
        .iter()
        .map(dram_runtime::npy::to_bytes)
        .collect()
}

pub(super) fn serve() -> Vec<Vec<u8>> {
    let lines = [
        r#"{"id": 1, "text": "wake me at six"}"#,
        r#"{"text":"\u00e4 \ud83d\ude00 \\ \" ","id":"a-1"}"#,
        r#"{"id":-2.5e3,"inputs":{"input_ids":{"shape":[1,3],"values":[2,10,3]},"attention_mask":{"shape":[1,3],"values":[1,1,1]}}}"#,
        r#"{"id":null,"txet":[[{}]]}"#,
        "hello",
    ];
    let mut seeds: Vec<Vec<u8>> =
        lines.iter().map(|line| format!("{line}\n").into_bytes()).collect();
    seeds.push(lines.join("\r\n").into_bytes());
    seeds.push([&[b' '; 2000][..], b"\n{\"text\":\"after a long line\"}\n"].concat());
    seeds
}
