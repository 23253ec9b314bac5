//! Models that other people made, against what onnxruntime says of them (`conformance/`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dram_runtime::{DType, Options, Session, Tensor};
use serde_json::Value;

use crate::dram::{root, skip};

/// The folder that `conformance/fetch.py` filled.
fn folder() -> PathBuf {
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

fn extents(value: &Value) -> Vec<usize> {
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
            let w = hertz * 2.0 * 3.141592653589793 / 16000.0;
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

fn doubles(tensor: &Tensor) -> Vec<f64> {
    match tensor.dtype() {
        DType::F32 => tensor.to_f32().expect("f32").into_iter().map(f64::from).collect(),
        DType::I64 => tensor.to_i64().expect("i64").into_iter().map(|x| x as f64).collect(),
        other => panic!("an output of type {other}"),
    }
}

/// Runs a case, all its steps, and gives shape and values of each output by its name.
fn answers(
    session: &Session,
    case: &Value,
    voice: &[f64],
) -> Result<Vec<(String, Vec<usize>, Vec<f64>)>, String> {
    let specs = case["input"].as_object().expect("inputs");
    let mut carried: BTreeMap<String, Tensor> = BTreeMap::new();
    let (mut outputs, mut stream) = (Vec::new(), Vec::new());
    let steps = case["steps"].as_u64().unwrap_or(1) as usize;
    for step in 0..steps {
        let input = |(place, (name, spec)): (usize, (&String, &Value))| {
            let given = carried.remove(name);
            (name.clone(), given.unwrap_or_else(|| filled(spec, place, step, voice)))
        };
        // Ordered by name, as `golden.py` counts their places.
        let inputs: BTreeMap<String, Tensor> = specs.iter().enumerate().map(input).collect();
        outputs = session.run(&inputs).map_err(|error| error.to_string())?;
        for (name, tensor) in &outputs {
            if let Some(target) = case["carry"][name].as_str() {
                carried.insert(target.to_owned(), tensor.clone());
            }
        }
        stream.extend(doubles(&outputs[0].1));
    }
    let mut answers: Vec<_> = outputs
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.shape().to_vec(), doubles(tensor)))
        .collect();
    if steps > 1 {
        answers.push(("all steps".to_owned(), vec![stream.len()], stream));
    }
    Ok(answers)
}

/// How far an output is from onnxruntime's: the largest difference of the samples, relative to the largest
/// of them, and the relative difference of the sums of squares.
fn distance(expected: &Value, shape: &[usize], values: &[f64]) -> Result<f64, String> {
    if extents(&expected["shape"]) != shape {
        return Err(format!("shape {shape:?}, onnxruntime's is {}", expected["shape"]));
    }
    let every = expected["every"].as_u64().expect("a stride") as usize;
    let samples = numbers(&expected["samples"]);
    let largest = samples.iter().fold(1e-6_f64, |largest, value| largest.max(value.abs()));
    let pairs = samples.iter().zip(values.iter().step_by(every));
    let differences = pairs.map(|(a, b)| (a - b).abs() / largest);
    let squares = expected["squares"].as_f64().expect("a sum");
    let got: f64 = values.iter().map(|value| value * value).sum();
    // Written so that a NaN counts as far away.
    Ok(differences
        .chain([(got - squares).abs() / squares.max(1e-6)])
        .fold(0.0, |worst, one| if one <= worst { worst } else { one }))
}

/// The worst distance of all outputs of all cases, each printed.
fn worst(id: &str, session: &Session, cases: &Value, voice: &[f64]) -> Result<f64, String> {
    let mut worst = 0.0_f64;
    for (number, case) in cases.as_array().expect("cases").iter().enumerate() {
        let outputs = answers(session, case, voice)?;
        let expected = case["output"].as_array().expect("outputs");
        for (expected, (name, shape, values)) in expected.iter().zip(&outputs) {
            let distance = distance(expected, shape, values)
                .map_err(|reason| format!("case {number}, `{name}`: {reason}"))?;
            println!("{id} case {number} `{name}` {shape:?}: {distance:.1e}");
            worst = worst.max(distance);
        }
    }
    Ok(worst)
}

fn present(test: &str, id: &str) -> Option<PathBuf> {
    let path = folder().join(format!("{id}.onnx"));
    if !path.exists() {
        skip(
            test,
            &format!(
                "`{id}` is not in `{}`; `tests/conformance/fetch.py` gets it",
                folder().display()
            ),
        );
        return None;
    }
    Some(path)
}

fn tolerance(_id: &str) -> f64 {
    1e-3
}

#[test]
fn third_party_models_agree_with_onnxruntime() {
    let voice = voice(200_000);
    let mut failures = Vec::new();
    let only = std::env::var("DRAM_MODEL").ok();
    for model in models() {
        let id = model["id"].as_str().expect("an id");
        if only.as_ref().is_some_and(|only| !id.contains(only)) {
            continue;
        }
        let Some(path) = present("third_party_models_agree_with_onnxruntime", id) else { continue };
        let verdict = open(&path).and_then(|session| worst(id, &session, &model["case"], &voice));
        println!("{id}: {verdict:?}");
        match verdict {
            Ok(worst) if worst <= tolerance(id) => {}
            Ok(worst) => failures.push(format!("{id}: differs by {worst:.1e}")),
            Err(error) => failures.push(format!("{id}: {error}")),
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn open(path: &Path) -> Result<Session, String> {
    Session::open(path, &Options::default()).map_err(|error| error.to_string())
}
