//! The rules of `bundle.md`, each by the attack that it stops.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::graph::{Dim, Node, ValueSpec};
use crate::precision::Precision;
use crate::session::{Options, Session};
use crate::trust::{PrivateKey, keygen};

/// `y = x w`, with weights that depend on `seed`, and with golden examples where `golden` gives them.
pub(crate) fn small(seed: u16, golden: &[Example]) -> Vec<u8> {
    let dims =
        |extents: &[usize]| extents.iter().map(|&extent| Dim::Fixed(extent)).collect::<Vec<_>>();
    let weights: Vec<f32> = (0..12).map(|index| f32::from(seed) + index as f32 / 8.0).collect();
    let graph = Graph {
        name: "small".to_owned(),
        opsets: BTreeMap::from([(String::new(), 17)]),
        inputs: vec![ValueSpec::new("x", DType::F32, &dims(&[1, 4]))],
        outputs: vec![ValueSpec::new("y", DType::F32, &dims(&[1, 3]))],
        nodes: vec![
            Node::new("MatMul", &["x", "w"], &["p"]),
            Node::new("Add", &["p", "b"], &["y"]),
        ],
        initializers: BTreeMap::from([
            ("w".to_owned(), Tensor::from_f32(&[4, 3], &weights)),
            ("b".to_owned(), Tensor::from_f32(&[3], &[0.5, -0.5, 0.25])),
        ]),
        metadata: BTreeMap::from([
            ("teacher".to_owned(), "none".to_owned()),
            ("room".to_owned(), "x".repeat(64)),
        ]),
    };
    image(&Parts { golden, ..Parts::of(&graph, Precision::F32) })
}

/// The same with one golden example: x = (1, 0, 2, 0) takes the first row and twice the third.
pub(crate) fn small_with_golden(seed: u16) -> Vec<u8> {
    let weight = |row: usize, column: usize| f32::from(seed) + (3 * row + column) as f32 / 8.0;
    let bias = [0.5, -0.5, 0.25];
    small_claiming(
        seed,
        &[0, 1, 2].map(|column| weight(0, column) + 2.0 * weight(2, column) + bias[column]),
    )
}

/// The same with a golden example that claims the output `y`.
pub(crate) fn small_claiming(seed: u16, y: &[f32; 3]) -> Vec<u8> {
    let example = Example {
        text: None,
        inputs: vec![("x".to_owned(), Tensor::from_f32(&[1, 4], &[1.0, 0.0, 2.0, 0.0]))],
        outputs: vec![("y".to_owned(), Tensor::from_f32(&[1, 3], y))],
    };
    small(seed, &[example])
}

fn refusal(bytes: &[u8]) -> String {
    Bundle::from_image(bytes).expect_err("the attack must be refused").to_string()
}

/// What an attacker can do who knows the format: new lengths and digest over altered bytes.
pub(crate) fn reseal(mut bytes: Vec<u8>) -> Vec<u8> {
    let file_bytes = bytes.len() as u64;
    bytes[16..24].copy_from_slice(&file_bytes.to_le_bytes());
    let digest = digest::digest(&bytes);
    bytes[DIGEST].copy_from_slice(&digest.0);
    bytes
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The bundle with another manifest; its sections stay where they are.
fn forge(edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let bytes = small_with_golden(1);
    let mut manifest: Value =
        serde_json::from_slice(&bytes[HEADER_BYTES..][..number(&bytes, 8) as usize]).unwrap();
    let graph = manifest["graph"]["offset"].as_u64().unwrap() as usize;
    manifest["lineage"]["room"] = json!("");
    edit(&mut manifest);
    forge_text(&bytes, graph, &serde_json::to_vec(&manifest).unwrap())
}

/// Puts `text` where the manifest was, filled up with spaces, which JSON allows.
fn forge_text(bytes: &[u8], graph: usize, text: &[u8]) -> Vec<u8> {
    let mut forged = bytes[..HEADER_BYTES].to_vec();
    forged.extend_from_slice(text);
    // A longer manifest moves the sections; all offsets move alike only by whole alignments.
    assert!(forged.len() <= graph, "the edit must fit in the room that was made");
    forged.resize(graph, b' ');
    forged[8..16].copy_from_slice(&((graph - HEADER_BYTES) as u64).to_le_bytes());
    forged.extend_from_slice(&bytes[graph..]);
    reseal(forged)
}

#[test]
fn the_small_bundle_is_sound() {
    let bytes = small_with_golden(1);
    let bundle = Bundle::from_image(&bytes).unwrap();
    assert_eq!(bundle.image(), bytes);
    assert_eq!(bundle.signed_by(), None);
    assert_eq!(bundle.manifest().lineage["teacher"], "none");
    let golden = bundle.golden().unwrap();
    assert_eq!(golden[0].inputs[0].1.to_f32().unwrap(), [1.0, 0.0, 2.0, 0.0]);
    assert!(Bundle::from_image(&forge(|_| {})).is_ok(), "a forgery without an edit is sound");
}

#[test]
fn the_same_parts_are_the_same_bytes() {
    assert_eq!(small_with_golden(3), small_with_golden(3));
    assert_ne!(small_with_golden(3), small_with_golden(4));
}

#[test]
fn the_header_lies_as_the_specification_says() {
    let bytes = small_with_golden(1);
    assert_eq!(&bytes[0..8], b"dram\x01\0\0\0");
    assert_eq!(number(&bytes, 16), bytes.len() as u64);
    assert_eq!(bytes[HEADER_BYTES], b'{');
    assert_eq!(bytes[HEADER_BYTES + number(&bytes, 8) as usize - 1], b'}');
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..24]).update(&bytes[56..64]).update(&bytes[160..]);
    assert_eq!(&bytes[24..56], hasher.finalize().as_bytes());
    assert!(bytes[56..192].iter().all(|&byte| byte == 0));
}

#[test]
fn a_file_cut_at_any_length_is_refused() {
    let bytes = small_with_golden(1);
    for length in 0..bytes.len() {
        refusal(&bytes[..length]);
    }
}

#[test]
fn a_file_cut_and_sealed_again_is_refused() {
    let bytes = small_with_golden(1);
    for length in HEADER_BYTES..bytes.len() {
        refusal(&reseal(bytes[..length].to_vec()));
    }
}

#[test]
fn a_flip_of_any_bit_is_refused() {
    let bytes = small_with_golden(1);
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 1 << (at % 8);
        refusal(&altered);
    }
}

#[test]
fn a_flip_of_any_byte_that_is_sealed_again_never_panics() {
    let bytes = small_with_golden(1);
    for at in 0..bytes.len() {
        for value in [0, bytes[at] ^ 1, b'9', 0xff] {
            let mut altered = bytes.clone();
            altered[at] = value;
            if let Ok(bundle) = Bundle::from_image(&reseal(altered)) {
                let _ = (bundle.graph(), bundle.golden());
            }
        }
    }
}

#[test]
fn a_flip_in_a_signed_bundle_is_refused_in_key_signature_and_digest_too() {
    let folder = tempfile::tempdir().unwrap();
    let (path, key) = (folder.path().join("m.dram"), folder.path().join("key"));
    std::fs::write(&path, small_with_golden(1)).unwrap();
    keygen(&key).unwrap();
    sign(&path, &PrivateKey::read(&key).unwrap()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert!(Bundle::from_image(&bytes).unwrap().signed_by().is_some());
    for at in 0..HEADER_BYTES {
        let mut altered = bytes.clone();
        altered[at] ^= 1 << (at % 8);
        refusal(&altered);
    }
}

#[test]
fn lies_of_the_header_are_refused() {
    let bytes = small_with_golden(1);
    let put = |at: usize, value: &[u8]| {
        let mut altered = bytes.clone();
        altered[at..at + value.len()].copy_from_slice(value);
        altered
    };
    let length = number(&bytes, 8);
    for (attack, altered, reason) in [
        ("another magic", put(0, b"DRAM"), "does not begin with `dram`"),
        ("version 0", put(4, &[0]), "version 0, this program reads 1"),
        ("version 2", put(4, &[2]), "version 2, this program reads 1"),
        ("a version in the high bytes", put(7, &[1]), "version 16777217"),
        ("a manifest past the end", put(8, &(bytes.len() as u64).to_le_bytes()), "past its end"),
        ("a huge manifest", put(8, &u64::MAX.to_le_bytes()), "past its end"),
        (
            "another file length",
            put(16, &(1_u64 << 40).to_le_bytes()),
            "its header says 1099511627776",
        ),
        ("no manifest", reseal(put(8, &0_u64.to_le_bytes())), "manifest"),
        ("a manifest too short", reseal(put(8, &(length - 1).to_le_bytes())), "manifest"),
        ("a manifest too long", reseal(put(8, &(length + 65).to_le_bytes())), "manifest"),
        ("reserved bytes before the key", reseal(put(60, &[1])), "reserved"),
        ("reserved bytes behind the signature", reseal(put(191, &[1])), "reserved"),
    ] {
        let got = refusal(&altered);
        assert!(got.contains(reason), "{attack}: {got}");
    }
}

#[test]
fn lies_about_sections_are_refused() {
    let huge = json!(u64::MAX - 8);
    let attacks: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "overlap",
            forge(|m| m["tensors"][1]["offset"] = m["tensors"][0]["offset"].clone()),
            "expected at",
        ),
        ("a hole", forge(|m| m["graph"]["bytes"] = json!(1)), "expected at"),
        (
            "not aligned",
            forge(|m| m["graph"]["offset"] = json!(m["graph"]["offset"].as_u64().unwrap() + 1)),
            "expected at",
        ),
        ("the header as a section", forge(|m| m["graph"]["offset"] = json!(0)), "expected at"),
        ("past the end", forge(|m| m["graph"]["bytes"] = json!(9999)), "within"),
        ("huge length", forge(|m| m["graph"]["bytes"] = huge.clone()), "within"),
        ("huge offset", forge(|m| m["graph"]["offset"] = huge.clone()), "expected at"),
        ("a sum that wraps", forge(|m| m["tensors"][0]["bytes"] = huge.clone()), "within"),
        ("a negative offset", forge(|m| m["graph"]["offset"] = json!(-64)), "manifest"),
        ("a fraction", forge(|m| m["graph"]["bytes"] = json!(0.5)), "manifest"),
        (
            "a tensor twice",
            forge(|m| m["tensors"][1]["name"] = m["tensors"][0]["name"].clone()),
            "there twice",
        ),
        ("a wrong shape", forge(|m| m["tensors"][0]["shape"] = json!([4, 4])), "has 48 bytes"),
        (
            "a shape that wraps",
            forge(|m| m["tensors"][0]["shape"] = json!([1_u64 << 62, 8])),
            "has 48 bytes",
        ),
        ("an empty shape", forge(|m| m["tensors"][0]["shape"] = json!([])), "has 48 bytes"),
        ("a wrong type", forge(|m| m["tensors"][0]["dtype"] = json!("i8")), "has 48 bytes"),
        ("no such type", forge(|m| m["tensors"][0]["dtype"] = json!("f9")), "no element type `f9`"),
        (
            "a golden shape",
            forge(|m| m["golden"][0]["inputs"][0]["shape"] = json!([9])),
            "has 16 bytes",
        ),
        (
            "golden overlaps",
            forge(|m| m["golden"][0]["outputs"][0]["offset"] = json!(192)),
            "expected at",
        ),
        ("golden is left out", forge(|m| m["golden"] = json!([])), "bytes follow its last section"),
        ("an unknown key", forge(|m| m["x"] = json!(1)), "unknown field"),
        (
            "a missing key",
            forge(|m| drop(m.as_object_mut().unwrap().remove("labels"))),
            "missing field",
        ),
        ("sequences unsorted", forge(|m| m["sequences"] = json!([2, 1])), "ascending"),
        ("a sequence twice", forge(|m| m["sequences"] = json!([2, 2])), "ascending"),
        ("a sequence of none", forge(|m| m["sequences"] = json!([0])), "ascending"),
        ("an unknown task", forge(|m| m["task"] = json!("x")), "manifest"),
        ("exits at no certainty", forge(|m| m["exits"] = exits("y", 0.0)), "not in 0..1"),
        ("exits never reached", forge(|m| m["exits"] = exits("y", 1.5)), "not in 0..1"),
    ];
    for (attack, bytes, reason) in attacks {
        let got = refusal(&bytes);
        assert!(got.contains(reason), "{attack}: {got}");
    }
}

fn exits(output: &str, threshold: f64) -> Value {
    json!({ "outputs": [output], "threshold": threshold })
}

#[test]
fn an_exit_that_is_no_further_output_is_refused() {
    for output in ["y", "z"] {
        let bundle = Bundle::from_image(&forge(|m| m["exits"] = exits(output, 0.5))).unwrap();
        let refused = Session::from_bundle(bundle, &Options::default()).unwrap_err().to_string();
        assert!(refused.contains("a further output of the graph"), "{refused}");
    }
}

#[test]
fn bytes_outside_of_sections_are_refused() {
    let bytes = small_with_golden(1);
    let bundle = Bundle::from_image(&bytes).unwrap();
    let golden = bundle.manifest().golden[0].inputs[0].offset as usize;
    let mut altered = bytes.clone();
    altered[golden - 1] = 1;
    assert!(refusal(&reseal(altered)).contains("padding"), "padding is zero");
    for more in [1, 63, 64, 4096] {
        let mut altered = bytes.clone();
        altered.resize(bytes.len() + more, 0);
        assert!(refusal(&altered).contains("its header says"));
        assert!(refusal(&reseal(altered)).contains(&format!("{more} bytes follow")), "{more}");
    }
}

#[test]
fn text_that_is_no_manifest_is_refused() {
    let bytes = small_with_golden(1);
    let graph = Bundle::from_image(&bytes).unwrap().manifest().graph.offset as usize;
    let deep = "[".repeat(graph - HEADER_BYTES);
    for text in ["", "null", "[]", "{}", "{\"name\":", "\u{0}", &deep] {
        let got = refusal(&forge_text(&bytes, graph, text.as_bytes()));
        assert!(got.contains("manifest"), "{got}");
    }
    let got = refusal(&forge_text(&bytes, graph, b"{\"name\":\"\xff\"}"));
    assert!(got.contains("manifest"), "{got}");
}

#[test]
fn the_manifest_is_written_in_the_order_of_the_specification() {
    let bytes = small_with_golden(1);
    let text = &bytes[HEADER_BYTES..HEADER_BYTES + number(&bytes, 8) as usize];
    let text = std::str::from_utf8(text).unwrap();
    let keys = ["name", "task", "precision", "sequences", "labels", "lineage", "metrics", "graph"];
    let keys = keys.into_iter().chain(["tokenizer", "tensors", "golden"]);
    let places: Vec<usize> =
        keys.map(|key| text.find(&format!("\"{key}\":")).expect("it is there")).collect();
    assert!(places.is_sorted(), "{text}");
    assert!(text.find("\"room\"").unwrap() < text.find("\"teacher\"").unwrap(), "{text}");
    assert!(!text.contains(": ") && !text.contains(", "), "{text}");
}

#[test]
fn sections_out_of_their_order_are_refused() {
    // Two constants that exchange their places: each is whole, and there is no hole.
    let got = refusal(&forge(|m| {
        let offsets = [0, 1].map(|index| m["tensors"][index]["offset"].clone());
        [m["tensors"][1]["offset"], m["tensors"][0]["offset"]] = offsets;
    }));
    assert!(got.contains("expected at"), "{got}");
}

/// A sound bundle, with this graph section in the place of its own.
fn with_graph(graph: &[u8]) -> Vec<u8> {
    let bundle = Bundle::from_image(&small_with_golden(1)).unwrap();
    let mut manifest = bundle.manifest().clone();
    let extents: Vec<Extent> = manifest
        .tensors
        .iter()
        .chain(manifest.golden.iter().flat_map(GoldenEntry::tensors))
        .map(TensorEntry::extent)
        .collect();
    manifest.graph.bytes = graph.len() as u64;
    let text = write::settle(&mut manifest);
    let mut bytes = bundle.image()[..HEADER_BYTES].to_vec();
    bytes[8..16].copy_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&text);
    for section in std::iter::once(graph).chain(extents.iter().map(|&it| bundle.section(it))) {
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes.extend_from_slice(section);
    }
    reseal(bytes)
}

#[test]
fn a_graph_with_constants_in_it_is_refused() {
    let sound = Bundle::from_image(&small_with_golden(1)).unwrap().graph().unwrap();
    assert!(Bundle::from_image(&with_graph(&sound.to_onnx())).unwrap().graph().is_ok());
    let mut graph = sound;
    graph.initializers.insert("hidden".to_owned(), Tensor::from_f32(&[1], &[1.0]));
    let refused = Bundle::from_image(&with_graph(&graph.to_onnx())).unwrap().graph();
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("`hidden`") && refused.contains("section of its own"), "{refused}");
}
