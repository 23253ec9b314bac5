//! The real command, called and listened to, and the files that the tests share.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// What a call of the command did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Stdout as the one JSON document that it is.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Asserts the exit code, and that nothing panicked.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Outcome {
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

/// Calls `dram` with nothing on stdin.
pub(crate) fn dram(arguments: &[&str]) -> Outcome {
    dram_reading("", arguments)
}

/// Calls `dram` with `stdin`.
pub(crate) fn dram_reading(stdin: &str, arguments: &[&str]) -> Outcome {
    let mut child = Command::new(program())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("dram starts");
    let mut pipe = child.stdin.take().expect("stdin is piped");
    let text = stdin.to_owned();
    let writer = std::thread::spawn(move || {
        // A command that refuses its flags does not read to the end.
        let _ = pipe.write_all(text.as_bytes());
    });
    let output = child.wait_with_output().expect("dram ends");
    writer.join().expect("the writer ends");
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
    }
}

/// The command's file: what `DRAM` names (one built elsewhere, or with other features), else built
/// here, once. Cargo tells the tests of a package where its binaries are, but not those of another.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let elsewhere = std::env::var_os("DRAM").map(PathBuf::from);
        elsewhere.unwrap_or_else(|| built(&["--bin", "dram"], "dram"))
    })
}

/// The file `name` of a target that cargo builds, once it has.
pub(crate) fn built(target: &[&str], name: &str) -> PathBuf {
    // Without `-p`: the same packages as `cargo test`, so the same features and no second build.
    let mut build = Command::new(env!("CARGO"));
    build.current_dir(root()).args(["build", "--message-format=json"]).args(target);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let output = build.stderr(Stdio::inherit()).output().expect("cargo runs");
    assert!(output.status.success(), "{build:?} failed");
    let messages = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    let documents = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
    let files = documents.filter_map(|it: Value| it["filenames"].as_array().cloned());
    let mut paths = files.flatten().filter_map(|file| file.as_str().map(PathBuf::from));
    let path = paths.find(|path| path.file_name().is_some_and(|file| file == name));
    path.expect("cargo names the file")
}

/// The repository's top folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository")
}

/// A file of `tests/golden/`.
pub(crate) fn golden(name: &str) -> PathBuf {
    root().join("tests/golden").join(name)
}

/// The bundle that the repository comes with.
pub(crate) fn intents() -> String {
    zoo("intents")
}

/// The bundle of that name in the zoo.
pub(crate) fn zoo(name: &str) -> String {
    text(&root().join("models/zoo").join(name).with_extension("dram"))
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> String {
    path.to_str().expect("paths of tests are UTF-8").to_owned()
}

/// A five-label encoder for tokens 0 to 96, packed in int8 for tensors.
pub(crate) fn tiny_bundle(folder: &Path) -> String {
    let bundle = text(&folder.join("tiny.dram"));
    let model = text(&golden("tiny.onnx"));
    // Its layers are too narrow to gain by int8, and are here to be rounded.
    let rounded = ["--seq", "16,32", "--require-int8", "50%"];
    dram(&[&["pack", &model, "-o", &bundle, "--task", "raw"], &rounded[..]].concat()).expect(0);
    bundle
}

/// Names and lengths of the files in `folder`.
pub(crate) fn listing(folder: &Path) -> Vec<(String, u64)> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let mut files: Vec<_> = entries
        .map(|entry| {
            let entry = entry.expect("an entry");
            (text(&entry.path()), entry.metadata().expect("its length").len())
        })
        .collect();
    files.sort();
    files
}

/// Says loudly that a test did nothing.
pub(crate) fn skip(test: &str, why: &str) {
    // Past the test harness, which keeps what passing tests print.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}
