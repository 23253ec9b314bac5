//! Every way in for bytes from outside, each behind a function that takes any bytes: the fuzz targets
//! call them with what libFuzzer finds, a test with mutations of the same seeds.
//!
//! Whatever the bytes, an entry returns: it neither panics nor takes more time or memory than its
//! input can account for. What it returns does not matter.

mod mutations;
mod seeds;

use std::path::Path;
use std::sync::OnceLock;

use dram_runtime::bundle::{self, Bundle, Parts};
use dram_runtime::prepare::{import, prepare, sequences};
use dram_runtime::protocol::{Line, Lines, answer, expired};
use dram_runtime::text::Text;
use dram_runtime::{Budget, Graph, Options, Precision, Session, inspect, npy};

pub use mutations::mutations;

/// A way in.
pub struct Entry {
    /// The name of its fuzz target.
    pub name: &'static str,
    /// Takes any bytes.
    pub call: fn(&[u8]),
    /// Sound inputs, and some that nearly are.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them but the recipe's, which belongs to the training.
pub const ENTRIES: [Entry; 5] = [
    Entry { name: "onnx", call: onnx, seeds: seeds::onnx },
    Entry { name: "bundle", call: bundle, seeds: seeds::bundle },
    Entry { name: "tokenizer", call: tokenizer, seeds: seeds::tokenizer },
    Entry { name: "npy", call: npy, seeds: seeds::npy },
    Entry { name: "serve", call: serve, seeds: seeds::serve },
];

/// More than any seed needs.
const BUDGET: Budget = Budget::bytes(64 << 20);

/// An ONNX file: read, optimized, and opened for tokens or with its own shapes.
pub fn onnx(bytes: &[u8]) {
    let Ok(mut graph) = Graph::from_onnx(bytes) else { return };
    import(&mut graph);
    if !inspect::unsupported(&graph).is_empty() {
        return;
    }
    let Ok(prepared) = prepare(&graph, Precision::F32) else { return };
    let image = bundle::image(&Parts {
        sequences: &sequences(&graph, Some(&[8])),
        ..Parts::of(&prepared.graph, Precision::F32)
    });
    open(&image);
}

/// A bundle, as it is and with a digest that is right: an attacker computes it too.
pub fn bundle(bytes: &[u8]) {
    open(bytes);
    open(&sealed(bytes.to_vec()));
}

/// Opens a bundle; what our kernels run is run, on the longest and the shortest sequence.
fn open(image: &[u8]) {
    let Ok(bundle) = Bundle::from_image(image) else { return };
    let options = Options { budget: BUDGET, ..Options::default() };
    let Ok(session) = Session::from_bundle(bundle, &options) else { return };
    if session.executor() == "kernels" {
        for tokens in [1, session.longest()] {
            let _ = session.run(&session.example(tokens));
        }
        let _ = session.predict("wake me at six");
    }
}

/// The bytes with the length and the digest in the header that they would need.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() < 192 {
        return bytes;
    }
    let length = bytes.len() as u64;
    bytes[16..24].copy_from_slice(&length.to_le_bytes());
    // Unsigned: a signature of other contents is refused before anything else is read.
    bytes[64..160].fill(0);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..24]).update(&bytes[56..64]).update(&bytes[160..]);
    bytes[24..56].copy_from_slice(hasher.finalize().as_bytes());
    bytes
}

/// A `tokenizer.json`, and texts that are encoded by it.
pub fn tokenizer(bytes: &[u8]) {
    let Ok(text) = Text::new(bytes, 16) else { return };
    for words in ["wake me at six", "", "naïve 😀 \u{0} ﷺ", &"a b".repeat(500)] {
        let _ = text.ids(words);
    }
}

/// A `.npy` file.
pub fn npy(bytes: &[u8]) {
    let _ = npy::from_bytes(bytes, Path::new("memory"));
}

/// What a client sends, in pieces as the first byte says.
pub fn serve(bytes: &[u8]) {
    const LONGEST: usize = 1024;
    static SESSION: OnceLock<Session> = OnceLock::new();
    let session = SESSION.get_or_init(|| {
        let options = Options {
            sequence: std::num::NonZeroUsize::new(16).map(Into::into),
            ..Options::default()
        };
        Session::open(&seeds::root().join("models/zoo/intents.dram"), &options)
            .expect("the zoo's bundle opens")
    });
    let (mut lines, mut rest) = (Lines::new(LONGEST), bytes);
    let mut chunk = vec![0; 1 + usize::from(bytes.first().copied().unwrap_or(0))];
    while !rest.is_empty() {
        assert!(lines.has_room(), "there is room when all lines are taken");
        let read = |room: &mut [u8]| std::io::Read::read(&mut rest, room);
        lines.fill(&mut chunk, read).expect("slices do not fail");
        for line in std::iter::from_fn(|| lines.next()) {
            let Line::Whole(line) = line else { continue };
            assert!(line.len() <= LONGEST && !line.contains(&b'\n'));
            for reply in [answer(session, &line, 1), expired(&line, Default::default())] {
                assert!(reply.line.len() < 4 * LONGEST, "a reply is bounded");
                let newlines = reply.line.iter().filter(|&&byte| byte == b'\n').count();
                assert!(newlines == 1 && reply.line.ends_with(b"\n"), "a reply is one line");
                let _: serde_json::Value =
                    serde_json::from_slice(&reply.line).expect("a reply is JSON");
            }
        }
    }
    lines.last();
}
