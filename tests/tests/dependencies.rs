//! What a device build takes with it.

use std::process::Command;

use crate::dram::root;

fn tree(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "--prefix", "none", "--edges", "normal,build", "--format", "{p} {f}"])
        .args(arguments)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

#[track_caller]
fn assert_free_of(tree: &str, names: &[&str]) {
    let found: Vec<&str> =
        tree.lines().filter(|line| names.iter().any(|name| line.starts_with(name))).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn a_device_build_takes_no_training_code() {
    for package in ["dram-runtime", "dram-targets", "dram-cli"] {
        assert_free_of(&tree(&["-p", package]), &["burn", "cubecl", "dram-models"]);
    }
}

#[test]
fn without_its_feature_tract_is_not_built() {
    assert_free_of(&tree(&["-p", "dram-cli", "--no-default-features"]), &["tract"]);
}

#[test]
fn the_command_links_no_foreign_language_tokenizer_or_tls() {
    for target in [
        "x86_64-unknown-linux-gnu",
        "aarch64-unknown-linux-gnu",
        "aarch64-unknown-linux-musl",
        "armv7-unknown-linux-gnueabihf",
    ] {
        let tree = tree(&["-p", "dram-cli", "--target", target]);
        assert_free_of(
            &tree,
            &["onig", "openssl", "native-tls", "cxx", "cpp", "reqwest", "hyper", "hf-hub"],
        );
        // esaxx-rs is Rust, and C++ with its feature `cpp`.
        let cpp = |line: &&str| line.starts_with("esaxx") && line.contains("cpp");
        assert_eq!(tree.lines().find(cpp), None, "{target}");
        // Such a package binds a library of another language; the kernel's interface is none.
        let binding = |line: &&str| {
            let name = line.split(' ').next().unwrap_or_default();
            name.ends_with("-sys") && name != "linux-raw-sys"
        };
        assert_eq!(tree.lines().find(binding), None, "{target}");
    }
}
