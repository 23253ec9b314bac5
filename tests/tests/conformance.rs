//! Models that other people made, against what onnxruntime says of them (`conformance/`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dram_runtime::{DType, Options, Result, Session, Tensor, npy};
use serde_json::Value;

use crate::dram::{dram, root, skip, text};

/// Samples of the synthetic voice that the longest stream needs.
const VOICE: usize = 200_000;

/// The folder that `conformance/fetch.py` filled.
pub(crate) fn folder() -> PathBuf {
    let given = std::env::var_os("DRAM_CONFORMANCE").map(PathBuf::from);
    given.unwrap_or_else(|| root().join("target/conformance"))
}

fn models() -> Vec<Value> {
    let file = std::fs::read_to_string(root().join("tests/conformance/golden.json"));
    serde_json::from_str(&file.expect("golden.json")).expect("JSON")
}

fn numbers(value: &Value) -> Vec<f64> {
    let numbers = value.as_array().expect("a list").iter();
    numbers.map(|number| number.as_f64().expect("a number")).collect()
}

pub(crate) fn extents(value: &Value) -> Vec<usize> {
    numbers(value).into_iter().map(|extent| extent as usize).collect()
}

/// SplitMix64, as `golden.py` has it: element `place` of the stream `seed`, in [0, 1).
fn fraction(seed: u64, place: u64) -> f64 {
    let mut z = (seed << 32).wrapping_add(place + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 24)
}

/// The synthetic voice of `golden.py`, sample for sample.
fn voice(count: usize) -> Vec<f64> {
    const VOWELS: [[f64; 2]; 4] =
        [[730.0, 1090.0], [270.0, 2290.0], [300.0, 870.0], [530.0, 1840.0]];
    let (mut phase, mut memory) = (0.0, [[0.0; 2]; 2]);
    let sample = |index: usize| {
        let (syllable, place) = (index / 3200, index % 3200);
        phase += (110.0 + 0.01 * place as f64) / 16000.0;
        let mut value = 0.0;
        if phase >= 1.0 {
            phase -= 1.0;
            value = if syllable % 4 == 3 { 0.0 } else { 1.0 };
        }
        for (hertz, [last, before]) in VOWELS[syllable % 4].iter().zip(&mut memory) {
            let w = hertz * std::f64::consts::TAU / 16000.0;
            let w2 = w * w;
            let cosine2 = 2.0 - w2 + w2 * w2 / 12.0 - w2 * w2 * w2 / 360.0;
            value = value + 0.97 * cosine2 * *last - 0.9409 * *before;
            (*last, *before) = (value, *last);
        }
        ((value * 0.04).clamp(-1.0, 1.0) * 32767.0 + 0.5).floor() / 32768.0
    };
    (0..count).map(sample).collect()
}

/// The input that `spec` describes: the `place`th of its case, at step `step`.
fn filled(spec: &Value, place: usize, step: usize, voice: &[f64]) -> Tensor {
    let shape = extents(&spec["shape"]);
    let count: usize = shape.iter().product();
    let number = |key: &str| spec[key].as_f64().expect("a number");
    let values: Vec<f64> = match spec["fill"].as_str() {
        Some("value") => vec![number("value"); count],
        Some("list") => numbers(&spec["values"]),
        Some("uniform") => {
            let (low, high) = (number("low"), number("high"));
            let seed = (place + 16 * step) as u64;
            (0..count as u64).map(|i| low + fraction(seed, i) * (high - low)).collect()
        }
        _ => {
            let (hop, rows) = (number("hop") as usize, shape[0]);
            let row = |row: usize| &voice[(step * rows + row) * hop..][..count / rows];
            (0..rows).flat_map(row).map(|sample| sample * number("scale")).collect()
        }
    };
    match spec["dtype"].as_str() {
        Some("i64") => {
            Tensor::from_i64(&shape, &values.iter().map(|x| x.floor() as i64).collect::<Vec<_>>())
        }
        Some("i32") => {
            Tensor::from_i32(&shape, &values.iter().map(|x| x.floor() as i32).collect::<Vec<_>>())
        }
        _ => Tensor::from_f32(&shape, &values.iter().map(|&x| x as f32).collect::<Vec<_>>()),
    }
}

/// The flags that plan for the first case of `model`; none where it takes tokens, which are planned by length.
pub(crate) fn planned(model: &Value) -> Vec<String> {
    let specs = model["case"][0]["input"].as_object().expect("inputs");
    let shape = |spec: &Value| extents(&spec["shape"]);
    let tokens = |spec: &Value| spec["dtype"] == "i64" && shape(spec).len() == 2;
    if specs.values().all(tokens) {
        return Vec::new();
    }
    let flag = |(place, (name, spec)): (usize, (&String, &Value))| {
        // A setting, such as a rate or a speed, and symbols beside numbers decide how a model computes.
        let decides = spec["dtype"] == "i64" || shape(spec).iter().product::<usize>() == 1;
        match decides {
            true => {
                let values = doubles(&filled(spec, place, 0, &[]));
                let values: Vec<String> = values.iter().map(f64::to_string).collect();
                format!("--value={name}={}", values.join(","))
            }
            false => {
                let extents: Vec<String> = shape(spec).iter().map(usize::to_string).collect();
                format!("--shape={name}={}", extents.join("x"))
            }
        }
    };
    specs.iter().enumerate().map(flag).collect()
}

fn doubles(tensor: &Tensor) -> Vec<f64> {
    match tensor.dtype() {
        DType::F32 => tensor.to_f32().expect("f32").into_iter().map(f64::from).collect(),
        DType::I64 => tensor.to_i64().expect("i64").into_iter().map(|x| x as f64).collect(),
        other => panic!("an output of type {other}"),
    }
}

/// The inputs of a case at step `step`, by name, but for those that `carried` has.
fn inputs(
    case: &Value,
    step: usize,
    voice: &[f64],
    mut carried: BTreeMap<String, Tensor>,
) -> BTreeMap<String, Tensor> {
    let input = |(place, (name, spec)): (usize, (&String, &Value))| {
        let given = carried.remove(name);
        (name.clone(), given.unwrap_or_else(|| filled(spec, place, step, voice)))
    };
    // Ordered by name, as `golden.py` counts their places.
    case["input"].as_object().expect("inputs").iter().enumerate().map(input).collect()
}

/// Runs a case, all its steps, and gives shape and values of each output by its name.
fn answers(session: &Session, case: &Value, voice: &[f64]) -> Result<Vec<Answer>> {
    let (mut outputs, mut stream) = (Vec::new(), Vec::new());
    let mut carried = BTreeMap::new();
    let steps = case["steps"].as_u64().unwrap_or(1) as usize;
    for step in 0..steps {
        outputs = session.run(&inputs(case, step, voice, carried))?;
        let target = |name: &str| case["carry"][name].as_str().map(str::to_owned);
        let carry = outputs.iter().filter_map(|(name, it)| Some((target(name)?, it.clone())));
        carried = carry.collect();
        stream.extend(doubles(&outputs[0].1));
    }
    let answer = |(name, tensor): &(String, Tensor)| Answer {
        name: name.clone(),
        shape: tensor.shape().to_vec(),
        values: doubles(tensor),
    };
    let mut answers: Vec<Answer> = outputs.iter().map(answer).collect();
    if steps > 1 {
        answers.push(Answer {
            name: "all steps".to_owned(),
            shape: vec![stream.len()],
            values: stream,
        });
    }
    Ok(answers)
}

/// One output of the last step, or the first output of all steps.
struct Answer {
    name: String,
    shape: Vec<usize>,
    values: Vec<f64>,
}

impl Answer {
    /// How far it is from onnxruntime's: the largest difference of the samples, relative to the largest of
    /// them or the root mean square of all, and the relative difference of the sums of squares. Infinite
    /// where the shapes differ.
    fn distance(&self, expected: &Value) -> f64 {
        if self.name != expected["name"] || self.shape != extents(&expected["shape"]) {
            return f64::INFINITY;
        }
        let every = expected["every"].as_u64().expect("a stride") as usize;
        let squares = expected["squares"].as_f64().expect("a sum");
        let samples = numbers(&expected["samples"]);
        let usual = (squares / self.values.len() as f64).sqrt().max(f64::MIN_POSITIVE);
        let largest = samples.iter().fold(usual, |largest, value| largest.max(value.abs()));
        let pairs = samples.iter().zip(self.values.iter().step_by(every));
        let differences = pairs.map(|(a, b)| (a - b).abs() / largest);
        let sum: f64 = self.values.iter().map(|value| value * value).sum();
        let of_sums = (sum - squares).abs() / squares.max(f64::MIN_POSITIVE);
        // Written so that a NaN counts as far away.
        let worse = |worst: f64, one: f64| if one <= worst { worst } else { one };
        differences.chain([of_sums]).fold(0.0, worse)
    }
}

/// Two f32 implementations of the same sums, and of streams of 60 steps over them.
const TOLERANCE: f64 = 1e-3;

/// Calls `verdict` for each model that is here, and fails with all complaints at once.
pub(crate) fn for_each_model(
    test: &str,
    verdict: impl Fn(&str, &Path, &Value) -> Result<(), String>,
) {
    let mut complaints = Vec::new();
    for model in models() {
        let id = model["id"].as_str().expect("an id");
        let path = folder().join(format!("{id}.onnx"));
        if !path.exists() {
            skip(test, &format!("no `{}`; `tests/conformance/fetch.py` gets it", path.display()));
        } else if let Err(complaint) = verdict(id, &path, &model) {
            complaints.push(format!("{id}: {complaint}"));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn open(path: &Path) -> Result<Session, String> {
    Session::open(path, &Options::default()).map_err(|error| error.to_string())
}

#[test]
fn third_party_models_agree_with_onnxruntime() {
    let voice = voice(VOICE);
    for_each_model("third_party_models_agree_with_onnxruntime", |id, path, model| {
        // All shapes and steps are served by what was read once: the file is gone before the first.
        let folder = tempfile::tempdir().expect("a folder");
        let copy = folder.path().join("model.onnx");
        std::fs::copy(path, &copy).expect("a copy");
        let session = open(&copy)?;
        std::fs::remove_file(&copy).expect("it is there");
        let tolerance = model["tolerance"].as_f64().unwrap_or(TOLERANCE);
        for (number, case) in model["case"].as_array().expect("cases").iter().enumerate() {
            let place = |what: &str| format!("case {number}, {what}");
            let answers = answers(&session, case, &voice).map_err(|it| place(&it.to_string()))?;
            for (answer, expected) in
                answers.iter().zip(case["output"].as_array().expect("outputs"))
            {
                let distance = answer.distance(expected);
                println!("{id} case {number} `{}` {:?}: {distance:.1e}", answer.name, answer.shape);
                if distance.is_nan() || distance > tolerance {
                    return Err(place(&format!("`{}` differs by {distance:.1e}", answer.name)));
                }
            }
        }
        Ok(())
    });
}

/// The command checks them, packs them, and runs file and bundle to the bits that a session gives.
#[test]
fn third_party_models_go_through_the_command() {
    let voice = voice(VOICE);
    for_each_model("third_party_models_go_through_the_command", |_, path, model| {
        let folder = tempfile::tempdir().expect("a folder");
        let inside = |name: &str| folder.path().join(name);
        let inputs = inputs(&model["case"][0], 0, &voice, BTreeMap::new());
        let expected = open(path)?.run(&inputs).map_err(|error| error.to_string())?;
        let (onnx, bundle) = (text(path), text(&inside("model.dram")));
        dram(&["check", &onnx]).expect(0);
        dram(&["pack", &onnx, "-o", &bundle, "--precision", "f32", "--task", "raw"]).expect(0);
        let mut given = Vec::new();
        for (place, (name, tensor)) in inputs.iter().enumerate() {
            let file = inside(&format!("{place}.npy"));
            npy::write(&file, tensor).expect("written");
            given.extend(["--input".to_owned(), format!("{name}={}", text(&file))]);
        }
        for file in [&onnx, &bundle] {
            let saved = inside("saved");
            let mut call = vec!["--json", "run", file, "--save"];
            let folder = text(&saved);
            call.push(&folder);
            call.extend(given.iter().map(String::as_str));
            let outcome = dram(&call).expect(0).json();
            for ((name, tensor), entry) in expected.iter().zip(outcome.as_array().expect("outputs"))
            {
                let got = npy::read(Path::new(entry["file"].as_str().expect("a file")));
                if got.expect("an array") != *tensor {
                    return Err(format!("`{name}` of `{file}` is not what the session gave"));
                }
            }
        }
        Ok(())
    });
}
