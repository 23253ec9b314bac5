//! The C interface as a C program meets it: the header, the two libraries, the example.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::tempdir;

use crate::dram::{built, dram, intents, root, skip, text};

const TEXTS: [&str; 3] =
    ["wake me at six", "what is the weather in Oslo", "transfer 20 dollars to mum"];

#[test]
fn the_header_is_what_cbindgen_makes_of_the_sources() {
    let folder = root().join("runtime/c");
    let config =
        cbindgen::Config::from_file(folder.join("cbindgen.toml")).expect("a configuration");
    let mut made = Vec::new();
    cbindgen::generate_with_config(&folder, config).expect("sources that parse").write(&mut made);
    let made = String::from_utf8(made).expect("a header is UTF-8");
    let header = folder.join("dram.h");
    if std::fs::read_to_string(&header).ok().as_ref() != Some(&made) {
        let fresh = root().join("target/dram.h");
        std::fs::write(&fresh, made).expect("target/ can be written");
        panic!("{} is not current; copy {} over it", header.display(), fresh.display());
    }
}

#[test]
fn c_and_cpp_take_the_header_without_a_warning() {
    let folder = tempdir().expect("a folder");
    for (compiler, language, standard) in [("cc", "c", "-std=c99"), ("c++", "c++", "-std=c++11")] {
        if !is_here(compiler) {
            skip("c_and_cpp_take_the_header_without_a_warning", &format!("no `{compiler}`"));
            continue;
        }
        let source = folder.path().join("include");
        std::fs::write(
            &source,
            "#include \"dram.h\"\nint main(void) { return dram_version() == 0; }\n",
        )
        .expect("a file");
        let mut command = strict(compiler);
        command.args([standard, "-fsyntax-only", "-x", language]).arg(&source);
        succeed(&mut command);
    }
}

#[test]
fn a_c_program_answers_as_the_command_does() {
    if !is_here("cc") {
        return skip("a_c_program_answers_as_the_command_does", "no `cc`");
    }
    let mut arguments = vec!["run".to_owned(), intents(), "--json".to_owned()];
    arguments.extend(TEXTS.iter().flat_map(|text| ["--text".to_owned(), (*text).to_owned()]));
    let answers = dram(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).expect(0).json();
    let best = |index: usize| {
        let best = &answers[index][0];
        format!(
            "{} {:.6}\n",
            best["label"].as_str().expect("a label"),
            best["probability"].as_f64().expect("a number")
        )
    };
    let expected: String = (0..TEXTS.len()).map(best).collect();

    let folder = tempdir().expect("a folder");
    let libraries = built(&["--lib"], "libdram.a");
    let libraries = libraries.parent().expect("it is in a folder");
    let [shared, linked] =
        ["libdram.so", "libdram.a"].map(|library| example(folder.path(), libraries, library));
    for program in [&shared, &linked] {
        assert_eq!(succeed(Command::new(program).arg(intents()).args(TEXTS)), expected);
    }
    if !is_here("valgrind") {
        return skip("a_c_program_answers_as_the_command_does under valgrind", "no `valgrind`");
    }
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--error-exitcode=9", "--leak-check=full"]);
    valgrind.args(["--errors-for-leak-kinds=definite,indirect,possible"]).arg(&shared);
    // Bits do not depend on the processor, so neither on the one that valgrind plays.
    assert_eq!(succeed(valgrind.arg(intents()).args(TEXTS)), expected);
}

/// The example of the repository over one of the two `libraries`, built into `folder`.
fn example(folder: &Path, libraries: &Path, library: &str) -> PathBuf {
    let program = folder.join(library.replace('.', "-"));
    let mut command = strict("cc");
    command.args(["-std=c99", "-g", "-o"]).arg(&program);
    command.arg(root().join("runtime/c/examples/predict.c")).arg(libraries.join(library));
    command.arg(format!("-Wl,-rpath,{}", text(libraries)));
    succeed(command.args(["-lpthread", "-ldl", "-lm"]));
    program
}

fn strict(compiler: &str) -> Command {
    let mut command = Command::new(compiler);
    command.args(["-Wall", "-Wextra", "-pedantic", "-Werror", "-I"]).arg(root().join("runtime/c"));
    command
}

fn is_here(program: &str) -> bool {
    let version = Command::new(program).arg("--version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Runs `command` to its good end; gives its stdout.
#[track_caller]
fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}
