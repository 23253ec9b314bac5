use std::ffi::CStr;
use std::path::PathBuf;
use std::ptr::{null, null_mut};

use super::*;

fn repository(file: &str) -> CString {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(file);
    CString::new(path.to_str().expect("paths of tests are UTF-8")).expect("and hold no zero byte")
}

fn open(file: &str, options: *const Options) -> (Status, *mut Session) {
    let mut session = null_mut();
    // SAFETY: a zero-terminated path, options that are null or sound, a place for the session.
    let status = unsafe { dram_open(repository(file).as_ptr(), options, &mut session) };
    (status, session)
}

fn said() -> String {
    // SAFETY: no call of this thread fails while it is read.
    unsafe { CStr::from_ptr(dram_last_error()) }.to_str().expect("UTF-8").to_owned()
}

const NO_LIMIT: Options = Options { ram_bytes: 0, threads: 0, sequence: 0, public_key: null() };
const INTENTS: &str = "models/zoo/intents.dram";
const TINY: &str = "tests/golden/tiny.onnx";

/// An input of the tiny encoder; its values must outlive it.
fn tokens(name: *const c_char, values: &[i64], shape: &[usize]) -> Tensor {
    let data = values.as_ptr().cast();
    let bytes = size_of_val(values);
    Tensor { name, dtype: DRAM_I64, rank: shape.len(), shape: shape.as_ptr(), data, bytes }
}

#[test]
fn several_threads_ask_one_session() {
    let (status, session) = open(INTENTS, null());
    assert_eq!(status, Status::Ok, "{}", said());
    // SAFETY: it is open until the end of this test.
    let session = unsafe { &*session };
    // SAFETY: as above.
    let labels = unsafe { dram_labels(session) };
    let ask = || {
        let mut values = vec![0.0; labels];
        let mut count = 0;
        for _ in 0..20 {
            let text = c"wake me at six".as_ptr();
            // SAFETY: an open session, a text, room for as many values as said.
            let status = unsafe {
                dram_predict_text(session, text, values.as_mut_ptr(), labels, &mut count)
            };
            assert_eq!((status, count), (Status::Ok, labels), "{}", said());
        }
        values
    };
    let answers: Vec<Vec<f32>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().expect("it ends")).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    let best = (0..labels).max_by(|&a, &b| answers[0][a].total_cmp(&answers[0][b]));
    // SAFETY: an open session; labels live as long as it does.
    let label = unsafe { CStr::from_ptr(dram_label(session, best.expect("labels"))) };
    assert_eq!(label, c"alarm");
    // SAFETY: as above.
    assert!(unsafe { dram_label(session, labels) }.is_null());
    // SAFETY: nobody uses it any more.
    unsafe { dram_close(std::ptr::from_ref(session).cast_mut()) };
}

#[test]
fn tensors_go_in_by_name_or_by_place() {
    let (status, session) = open(TINY, &NO_LIMIT);
    assert_eq!(status, Status::Ok, "{}", said());
    let (ids, mask) = ([3_i64, 10, 17], [1_i64; 3]);
    // onnxruntime's logits for these ids, from golden/tiny.json.
    let expected = [-1.8132248, -1.4739199, 2.3881164, 0.7418431, 0.4210391];
    let (by_name, by_place) = (
        [
            tokens(c"attention_mask".as_ptr(), &mask, &[1, 3]),
            tokens(c"input_ids".as_ptr(), &ids, &[1, 3]),
        ],
        [tokens(null(), &ids, &[1, 3]), tokens(null(), &mask, &[1, 3])],
    );
    for (inputs, output) in [(by_name, null()), (by_place, null()), (by_place, c"logits".as_ptr())]
    {
        let (mut values, mut count) = ([0.0; 5], 0);
        // SAFETY: an open session, two tensors over live arrays, room for five values.
        let status = unsafe {
            dram_predict(session, inputs.as_ptr(), 2, output, values.as_mut_ptr(), 5, &mut count)
        };
        assert_eq!((status, count), (Status::Ok, 5), "{}", said());
        for (got, expected) in values.iter().zip(expected) {
            assert!((got - expected).abs() <= 1e-4, "{values:?}");
        }
    }
    // SAFETY: nobody uses it any more.
    unsafe { dram_close(session) };
}

#[test]
fn what_is_wrong_with_a_call_is_said_and_nothing_is_written() {
    let (_, session) = open(TINY, null());
    let (ids, mask) = ([3_i64, 10, 17], [1_i64; 3]);
    let ids = tokens(null(), &ids, &[1, 3]);
    let mask = tokens(c"attention_mask".as_ptr(), &mask, &[1, 3]);
    let latin1 = c"caf\xe9".as_ptr();
    let room = 5;
    let cases: [(&str, &[Tensor], usize, *const c_char, usize); 11] = [
        ("`inputs` is NULL", &[], 2, null(), room),
        ("none", &[], 0, null(), room),
        ("`name` is not UTF-8", &[Tensor { name: latin1, ..ids }], 1, null(), room),
        (
            "two tensors for the input `input_ids`",
            &[ids, Tensor { name: c"input_ids".as_ptr(), ..mask }],
            2,
            null(),
            room,
        ),
        ("a model with 2 inputs", &[ids, mask, ids], 3, null(), room),
        ("no element type 99", &[Tensor { dtype: 99, ..ids }], 1, null(), room),
        ("16 bytes", &[Tensor { bytes: 16, ..ids }, mask], 2, null(), room),
        ("`data` is NULL", &[Tensor { data: null(), ..ids }, mask], 2, null(), room),
        ("`shape` is no array", &[Tensor { rank: usize::MAX, ..ids }, mask], 2, null(), room),
        ("no output `logit`; there are: `logits`", &[ids, mask], 2, c"logit".as_ptr(), room),
        ("5 values, `values` has room for 4", &[ids, mask], 2, null(), 4),
    ];
    for (expected, inputs, input_count, output, capacity) in cases {
        let mut values = [7.0; 5];
        let inputs = if inputs.is_empty() { null() } else { inputs.as_ptr() };
        // SAFETY: an open session and as many tensors as said, but where the call must refuse them.
        let status = unsafe {
            dram_predict(
                session,
                inputs,
                input_count,
                output,
                values.as_mut_ptr(),
                capacity,
                null_mut(),
            )
        };
        assert_eq!((status, values), (Status::Error, [7.0; 5]), "{expected}");
        assert!(said().contains(expected), "{expected} is not in: {}", said());
    }
    // SAFETY: nobody uses it any more.
    unsafe { dram_close(session) };
}

#[test]
fn null_and_what_is_no_utf8_are_errors() {
    // SAFETY: every pointer is null or a zero-terminated text, and there is room for no value.
    unsafe {
        let mut session = null_mut();
        assert_eq!(dram_open(null(), null(), &mut session), Status::Error);
        assert_eq!(said(), "`path` is NULL; give one");
        assert_eq!(dram_open(c"x".as_ptr(), null(), null_mut()), Status::Error);
        assert_eq!(dram_open(c"\xff".as_ptr(), null(), &mut session), Status::Error);
        assert_eq!(said(), "`path` is not UTF-8 from byte 0 on");
        assert_eq!(
            dram_predict_text(null(), c"x".as_ptr(), null_mut(), 0, null_mut()),
            Status::Error
        );
        assert_eq!(said(), "`session` is NULL; give one");
        assert_eq!((dram_labels(null()), dram_planned_peak_bytes(null())), (0, 0));
        assert!(dram_label(null(), 0).is_null() && session.is_null());
        dram_close(null_mut());
    }
}

#[test]
fn the_answer_no_is_told_from_an_error() {
    let little = Options { ram_bytes: 1 << 20, ..NO_LIMIT };
    let key = c"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let signed = Options { public_key: key.as_ptr(), ..NO_LIMIT };
    let no_key = Options { public_key: c"d75a".as_ptr(), ..NO_LIMIT };
    let long = Options { sequence: 4096, ..NO_LIMIT };
    for (file, options, status, expected) in [
        (INTENTS, little, Status::No, "the budget is 1.0 MiB"),
        (INTENTS, signed, Status::No, "is not signed"),
        (INTENTS, no_key, Status::Error, "`d75a` is no public key"),
        (INTENTS, long, Status::Error, "expected 1 to 128 tokens"),
        ("LICENSE-MIT", NO_LIMIT, Status::Error, "is not an ONNX model"),
        ("no such file", NO_LIMIT, Status::Error, "cannot open"),
    ] {
        assert_eq!(open(file, &options), (status, null_mut()), "{file}, {options:?}");
        assert!(said().contains(expected), "{expected} is not in: {}", said());
    }
}

#[test]
fn a_panic_ends_at_the_border() {
    let status = answer(|| panic!("invariant {} broken", 7));
    assert_eq!(status, Status::Error);
    assert_eq!(said(), "a fault in dram, please report it: invariant 7 broken");
}

#[test]
fn errors_belong_to_their_thread() {
    answer(|| Err(Failure::error("here".to_owned())));
    std::thread::spawn(|| assert_eq!(said(), "")).join().expect("it ends");
    assert_eq!(said(), "here");
}
