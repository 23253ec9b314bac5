//! A bundle that is not whole, or not as it was written, is refused and never half believed.

use dram_runtime::bundle::Bundle;
use dram_runtime::{Options, Session};

use crate::dram::{dram, text, tiny_bundle};

fn tiny() -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::read(tiny_bundle(folder.path())).expect("the bundle")
}

#[test]
fn every_truncation_is_refused() {
    let whole = tiny();
    assert!(Bundle::from_image(&whole).is_ok());
    let near_the_end = whole.len() - 200..whole.len();
    for length in (0..2048).chain((2048..whole.len()).step_by(997)).chain(near_the_end) {
        assert!(Bundle::from_image(&whole[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn every_altered_byte_is_found() {
    let whole = tiny();
    let mut altered = whole.clone();
    for place in (0..1024).chain((1024..whole.len()).step_by(211)) {
        for flipped in [1, 0x80, 0xff] {
            altered[place] = whole[place] ^ flipped;
            assert!(Bundle::from_image(&altered).is_err(), "byte {place} ^ {flipped:#x}");
        }
        altered[place] = whole[place];
    }
}

#[test]
fn what_follows_the_end_is_refused() {
    let mut longer = tiny();
    longer.extend([0; 64]);
    assert!(Bundle::from_image(&longer).is_err());
}

#[test]
fn the_command_says_what_is_wrong_with_a_bundle() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = tiny();
    let cut = whole[..whole.len() / 2].to_vec();
    let mut altered = whole.clone();
    altered[whole.len() / 2] ^= 1;
    for (name, bytes) in [("cut", cut), ("altered", altered), ("magic", b"dram".to_vec())] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        for verb in ["run", "plan", "inspect"] {
            let outcome = dram(&[verb, &text(&path)]).expect(2);
            assert!(outcome.stdout.is_empty(), "{verb} {name}: {outcome:?}");
            assert!(outcome.stderr.contains("not a sound bundle"), "{verb} {name}: {outcome:?}");
        }
    }
}

#[test]
fn the_same_model_gives_the_same_bytes() {
    assert!(tiny() == tiny());
}

#[test]
fn a_session_outlives_the_replacement_of_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = tiny_bundle(folder.path());
    let session = Session::open(path.as_ref(), &Options::default()).expect("it opens");
    let before = session.run(&session.example(16)).expect("a run");
    // Packing writes a new file and renames it: the session keeps the old one.
    tiny_bundle(folder.path());
    assert_eq!(session.run(&session.example(16)).expect("a run"), before);
}
