//! From a key to a device that returns to the bundle before, as a user calls it.

use crate::dram::{dram, intents, text, tiny_bundle};

#[test]
fn a_bundle_is_signed_verified_installed_and_rolled_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| text(&folder.path().join(name));
    let (key, public, other, slots) = (path("key"), path("key.pub"), path("other"), path("slots"));
    dram(&["keygen", &key]).expect(0);
    dram(&["keygen", &other]).expect(0);
    dram(&["keygen", &key]).expect(2);

    let first = path("first.dram");
    std::fs::copy(intents(), &first).expect("a copy");
    let verify = |arguments: &[&str]| dram(&[&["verify", "--json"], arguments].concat());
    let verified = verify(&[&first]).expect(0).json();
    assert_eq!(verified["golden"]["worst_difference"], 0.0);
    assert!(verified["signed_by"].is_null());
    assert_eq!(verify(&[&first, "--key", &public]).expect(1).json()["verified"], false);
    let signer = dram(&["sign", &first, "--key", &key, "--json"]).expect(0).json();
    assert_eq!(
        verify(&[&first, "--key", &public]).expect(0).json()["signed_by"],
        signer["signed_by"]
    );
    verify(&[&first, "--key", &path("other.pub")]).expect(1);
    dram(&["run", &first, "--text", "hello", "--require-signature", &public]).expect(0);
    dram(&["run", &first, "--text", "hello", "--require-signature", &path("other.pub")]).expect(1);

    let install = |bundle: &str, require: &str| {
        dram(&["install", bundle, "--slot-dir", &slots, "--require-signature", require, "--json"])
    };
    assert!(install(&first, &public).expect(0).json()["previous"].is_null());
    dram(&["run", &slots, "--text", "wake me at six"]).expect(0);
    let second = tiny_bundle(folder.path());
    assert_eq!(install(&second, &public).expect(1).json()["installed"], false);
    dram(&["sign", &second, "--key", &key]).expect(0);
    assert_eq!(install(&second, &public).expect(0).json()["previous"], verified["digest"]);
    let back = dram(&["rollback", "--slot-dir", &slots, "--json"]).expect(0).json();
    assert_eq!(back["digest"], verified["digest"]);
    dram(&["run", &slots, "--text", "wake me at six"]).expect(0);
    dram(&["rollback", "--slot-dir", &slots]).expect(1);
}

#[test]
fn an_altered_bundle_is_not_verified_and_not_installed() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = tiny_bundle(folder.path());
    let mut bytes = std::fs::read(&bundle).expect("the bundle");
    *bytes.last_mut().expect("bytes") ^= 1;
    std::fs::write(&bundle, bytes).expect("a file");
    let slots = folder.path().join("slots");
    dram(&["verify", &bundle]).expect(1);
    dram(&["install", &bundle, "--slot-dir", &text(&slots)]).expect(1);
    assert!(!slots.exists());
}
