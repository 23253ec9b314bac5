//! Examples that travel in a bundle: inputs, and the outputs that the packed model gave for them.
//!
//! They are recorded when a model is packed and replayed on the device: a processor, a build or a
//! memory that computes otherwise shows before the first answer does.

use crate::error::{Error, Result};
use crate::graph::{DRAM_DOMAIN, Node};
use crate::session::Session;
use crate::tensor::Tensor;

/// Texts to record, of several lengths; one is short enough for any sequence, one leaves ASCII.
const TEXTS: [&str; 4] = [
    "dram",
    "wake me at six tomorrow",
    "Ein Schlückchen Wärme für zwölf €, bitte — naïve café!",
    "a dram is a small measure of something distilled: how much of the teacher is left in the student, \
     and does it fit the memory of the board?",
];

/// Largest difference, relative to the output's largest value, that counts as the same where tract runs
/// the graph: it sums in the order that suits the processor, which moves a result by about 1e-6 a layer.
pub const TRACT_TOLERANCE: f32 = 1e-3;

/// The same where int8 is mixed with tract's operators: a last bit of theirs can move an activation by one
/// step of 255.
pub const MIXED_INT8_TOLERANCE: f32 = 2e-2;

/// Inputs of a graph and the outputs that belong to them, by the graph's names.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// The text whose ids the inputs hold; none where they hold a pattern.
    pub text: Option<String>,
    /// What goes in.
    pub inputs: Vec<(String, Tensor)>,
    /// What comes out.
    pub outputs: Vec<(String, Tensor)>,
}

/// What replaying found.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Replay {
    /// Examples that ran.
    pub examples: usize,
    /// Examples that are longer than the session's longest sequence, or that it has no plan for.
    pub skipped: usize,
    /// Largest difference, relative to the output's largest value; 0 where all are the same bits.
    pub worst_difference: f32,
}

/// Runs the golden inputs and gives them with the outputs: texts where the model takes text, else the
/// session's own example for the two shortest planned lengths, or none where no shape is planned. The same session gives the same result.
///
/// # Errors
/// Those of running the model.
pub fn record(session: &Session) -> Result<Vec<Example>> {
    let mut examples = Vec::new();
    if session.manifest().tokenizer.is_some() {
        for text in TEXTS {
            examples.push(run(session, Some(text), session.text_inputs(text)?)?);
        }
        return Ok(examples);
    }
    if !session.has_example() {
        return Ok(examples);
    }
    let sequences = &session.manifest().sequences;
    let lengths =
        if sequences.is_empty() { &[1][..] } else { &sequences[..sequences.len().min(2)] };
    for &length in lengths {
        examples.push(run(session, None, session.example(length).into_iter().collect())?);
    }
    Ok(examples)
}

fn run(session: &Session, text: Option<&str>, inputs: Vec<(String, Tensor)>) -> Result<Example> {
    let outputs = session.run(&inputs.iter().cloned().collect())?;
    Ok(Example { text: text.map(str::to_owned), inputs, outputs })
}

/// Runs the golden examples of the session's bundle and compares: bit for bit where our kernels run the
/// graph, within [`TRACT_TOLERANCE`] or [`MIXED_INT8_TOLERANCE`] where tract takes part, or took part when it was
/// packed. Texts are tokenized again and must give the ids
/// that the bundle holds, also bit for bit.
///
/// # Errors
/// [`Error::Gate`] with the first difference; [`Error::Missing`] where the bundle has no example, or
/// none short enough; those of running the model.
pub fn replay(session: &Session) -> Result<Replay> {
    let mut replay = Replay::default();
    for (index, example) in session.golden()?.iter().enumerate() {
        let name = format!("golden example {}", index + 1);
        if !session.has_room_for(&example.inputs) {
            replay.skipped += 1;
            continue;
        }
        // Where a shorter sequence was asked for, the same text may be cut off or padded otherwise.
        if let (Some(text), true) = (&example.text, session.is_at_full_length()) {
            compare(
                &format!("the ids of {name}"),
                &example.inputs,
                &session.text_inputs(text)?,
                0.0,
            )?;
        }
        let outputs = session.run(&example.inputs.iter().cloned().collect())?;
        let worst = compare(&name, &example.outputs, &outputs, tolerance(session))?;
        replay.examples += 1;
        replay.worst_difference = replay.worst_difference.max(worst);
    }
    match replay {
        Replay { examples: 1.., .. } => Ok(replay),
        Replay { skipped: 1.., .. } => Err(Error::Missing {
            what: "golden example that is short enough",
            next: "give it a longer `--seq`",
        }),
        _ => {
            Err(Error::Missing { what: "golden examples", next: "pack it again with `dram pack`" })
        }
    }
}

fn tolerance(session: &Session) -> f32 {
    // What was measured when it was packed, and not computed, is what a mixture took.
    let recorded = session.manifest().heap.as_ref();
    let by_kernels = recorded.is_none_or(|heap| heap.peak_bytes == 0);
    let rounds = |node: &Node| node.domain == DRAM_DOMAIN && node.op.contains("Int");
    match (session.executor(), session.graph().nodes.iter().any(rounds)) {
        ("kernels", _) if by_kernels => 0.0,
        (_, false) => TRACT_TOLERANCE,
        (_, true) => MIXED_INT8_TOLERANCE,
    }
}

type Named = [(String, Tensor)];

/// The largest relative difference, where it is at most `tolerance`.
fn compare(name: &str, expected: &Named, got: &Named, tolerance: f32) -> Result<f32> {
    let mut worst = 0.0_f32;
    let names =
        |tensors: &Named| -> Vec<String> { tensors.iter().map(|(name, _)| name.clone()).collect() };
    let refuse = |measured: String, allowed: String| Error::Gate {
        what: name.to_owned(),
        measured,
        allowed,
        next: "the device or this build computes otherwise, or the file was made by another version; do \
               not use it, and pack it again",
    };
    if names(expected) != names(got) {
        let (expected, got) = (names(expected).join(", "), names(got).join(", "));
        return Err(refuse(format!("it has the tensors {got}"), expected));
    }
    for ((tensor, expected), (_, got)) in expected.iter().zip(got) {
        let difference = difference(expected, got);
        // Written so that a NaN is too much.
        if difference <= tolerance {
            worst = worst.max(difference);
            continue;
        }
        let allowed =
            if tolerance == 0.0 { "the same bits".to_owned() } else { format!("{tolerance:.0e}") };
        let measured = format!("`{tensor}` differs by {difference:.1e} of its largest value");
        return Err(refuse(measured, allowed));
    }
    Ok(worst)
}

/// 0 where the two are the same bits; else the largest difference relative to the largest expected
/// value, infinite where types or shapes differ or where values are no f32 numbers.
fn difference(expected: &Tensor, got: &Tensor) -> f32 {
    if expected == got {
        return 0.0;
    }
    let (Some(expected_values), Some(values)) = (expected.to_f32(), got.to_f32()) else {
        return f32::INFINITY;
    };
    let finite = expected_values.iter().chain(&values).all(|value| value.is_finite());
    if expected.shape() != got.shape() || !finite {
        return f32::INFINITY;
    }
    let largest =
        expected_values.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    let pairs = expected_values.iter().zip(&values);
    let worst = pairs.map(|(a, b)| (a - b).abs() / largest).fold(0.0, f32::max);
    // Other bits of equal values (a zero's sign) are a difference all the same.
    worst.max(f32::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::bundle::Bundle;
    use crate::bundle::tests::{reseal, small, small_claiming, small_with_golden};
    use crate::pack::{DEFAULT_MAX_DROP, PackOptions, pack};
    use crate::precision::Precision;
    use crate::session::Options;

    fn open(image: &[u8]) -> Session {
        Session::from_bundle(Bundle::from_image(image).unwrap(), &Options::default()).unwrap()
    }

    #[test]
    fn what_pencil_and_paper_give_replays() {
        let session = open(&small_with_golden(3));
        let replay = replay(&session).unwrap();
        assert_eq!((replay.examples, replay.skipped), (1, 0));
        assert!(replay.worst_difference <= TRACT_TOLERANCE);
    }

    #[test]
    fn a_claim_that_the_model_does_not_keep_is_refused() {
        // The true outputs are 5.0, 4.375 and 5.5.
        for (claim, kept) in [
            ([5.0_f32, 4.375, 5.5], true),
            ([5.0, 4.375, 5.503], true),
            ([5.0, 4.375, 5.51], false),
            ([5.0, 4.375, -5.5], false),
            ([f32::NAN, 4.375, 5.5], false),
            ([f32::INFINITY, 4.375, 5.5], false),
        ] {
            let replayed = replay(&open(&small_claiming(1, &claim)));
            assert_eq!(replayed.is_ok(), kept, "{claim:?}: {replayed:?}");
        }
    }

    #[test]
    fn examples_of_other_inputs_or_outputs_are_refused() {
        let x = ("x".to_owned(), Tensor::from_f32(&[1, 4], &[1.0, 0.0, 2.0, 0.0]));
        let y = ("y".to_owned(), Tensor::from_f32(&[1, 3], &[5.0, 4.375, 5.5]));
        let named = |name: &str, (_, tensor): &(String, Tensor)| (name.to_owned(), tensor.clone());
        for (what, inputs, outputs) in [
            ("no input", vec![], vec![y.clone()]),
            ("another input", vec![named("z", &x)], vec![y.clone()]),
            ("an input too many", vec![x.clone(), named("z", &x)], vec![y.clone()]),
            ("an input of another shape", vec![named("x", &y)], vec![y.clone()]),
            ("no output", vec![x.clone()], vec![]),
            ("another output", vec![x.clone()], vec![named("z", &y)]),
            ("an output of another shape", vec![x.clone()], vec![named("y", &x)]),
            (
                "an output of another type",
                vec![x.clone()],
                vec![("y".to_owned(), Tensor::from_i64(&[1, 3], &[5, 4, 5]))],
            ),
        ] {
            let session = open(&small(1, &[Example { text: None, inputs, outputs }]));
            assert!(replay(&session).is_err(), "{what}");
        }
        assert!(matches!(replay(&open(&small(1, &[]))), Err(Error::Missing { .. })), "no example");
    }

    /// The small encoder that onnxruntime has vouched for (tests/golden/make.py), packed.
    fn packed(folder: &Path, precision: Precision) -> PathBuf {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tiny.onnx");
        let path = folder.join(format!("{precision}.dram"));
        let options = PackOptions {
            tokenizer: None,
            labels: None,
            task: None,
            sequences: Some(vec![8, 16]),
            shapes: Vec::new(),
            heap: None,
            precision,
            calibrate: None,
            evaluate: None,
            // Narrow layers too.
            require_int8: Some(0.0),
            max_drop: DEFAULT_MAX_DROP,
            exit_drop: crate::exits::DEFAULT_EXIT_DROP,
        };
        pack(&model, &path, &options, &mut |_| {}).unwrap();
        path
    }

    #[test]
    fn our_kernels_replay_bit_for_bit_and_pack_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        for precision in
            [Precision::F32, Precision::F16, Precision::Int8, Precision::Int4, Precision::Int4By8]
        {
            let path = packed(folder.path(), precision);
            let first = std::fs::read(&path).unwrap();
            assert_eq!(
                std::fs::read(packed(folder.path(), precision)).unwrap(),
                first,
                "{precision}"
            );
            let session = Session::open(&path, &Options::default()).unwrap();
            assert_eq!(session.executor(), "kernels");
            let found = replay(&session).unwrap();
            assert_eq!(
                found,
                Replay { examples: 2, skipped: 0, worst_difference: 0.0 },
                "{precision}"
            );
            let short = Options { sequence: Some(8), ..Options::default() };
            let found = replay(&Session::open(&path, &short).unwrap()).unwrap();
            assert_eq!((found.examples, found.skipped), (1, 1), "{precision}");
            let shorter = Options { sequence: Some(4), ..Options::default() };
            let none = replay(&Session::open(&path, &shorter).unwrap());
            assert!(matches!(none, Err(Error::Missing { .. })), "{none:?}");
        }
    }

    #[test]
    fn one_changed_bit_of_an_output_or_a_weight_shows_on_our_kernels() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = Bundle::open(&packed(folder.path(), Precision::Int8)).unwrap();
        let manifest = bundle.manifest().clone();
        let output = manifest.golden[0].outputs[0].extent();
        let weight = manifest
            .tensors
            .iter()
            .find(|tensor| tensor.name.ends_with("panels"))
            .unwrap()
            .extent();
        for place in [output.offset, weight.offset] {
            let mut bytes = bundle.image().to_vec();
            bytes[place as usize] ^= 1;
            let session = open(&reseal(bytes));
            assert!(matches!(replay(&session), Err(Error::Gate { .. })), "byte {place}");
        }
    }
}
