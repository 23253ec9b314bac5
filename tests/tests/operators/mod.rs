//! The node tests of ONNX: one small model an operator and setting, with inputs and the outputs that
//! the reference implementation gives.
//!
//! They come with the Python package `onnx` of [`VERSION`]; `DRAM_ONNX` names its folder where it
//! cannot be asked. `DRAM_WRITE=1` writes down what passes: `golden/operators.txt`, the list that must
//! not shrink, and `docs/operators.md`.

mod case;
mod close;
mod page;
mod scope;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::dram::{golden, root, skip};
use case::Report;

/// The package that the lists were written with.
const VERSION: &str = "1.22.0";

/// Share of the cases in scope that must pass.
const LEAST_SHARE: f64 = 0.7;

#[test]
fn node_tests_pass_or_are_refused_by_name() {
    let Some(folder) = folder() else {
        let why = format!("needs the Python package onnx {VERSION}, or its folder as DRAM_ONNX");
        return skip("node_tests_pass_or_are_refused_by_name", &why);
    };
    let reports = run_all(&case::all(&folder));
    let unsound: Vec<String> = reports.iter().filter_map(Report::unsound).collect();
    let in_scope = reports.iter().filter(|report| report.in_scope()).count();
    let passed: BTreeSet<&str> =
        reports.iter().filter(|report| report.passed()).map(|report| &report.name[..]).collect();

    let list = golden("operators.txt");
    let page = root().join("docs/operators.md");
    if std::env::var_os("DRAM_WRITE").is_some() {
        let names: String = passed.iter().map(|name| format!("{name}\n")).collect();
        std::fs::write(&list, names).expect("golden/operators.txt");
        std::fs::write(&page, page::page(&reports)).expect("docs/operators.md");
    }
    let listed = std::fs::read_to_string(&list).unwrap_or_default();
    let lost: Vec<&Report> = reports
        .iter()
        .filter(|report| !report.passed() && listed.lines().any(|name| name == report.name))
        .collect();
    assert!(
        unsound.is_empty(),
        "{} are neither right nor refused:\n{}",
        unsound.len(),
        unsound.join("\n")
    );
    assert!(lost.is_empty(), "these passed once: {lost:#?}");
    assert!(passed.len() as f64 >= LEAST_SHARE * in_scope as f64, "{} of {in_scope}", passed.len());
    let written = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(
        listed.lines().count() == passed.len() && written == page::page(&reports),
        "more pass than are written down, or other messages come; run this test with DRAM_WRITE=1"
    );
}

/// The cases' folder in the installed package, where it is the right version.
fn folder() -> Option<PathBuf> {
    let package = match std::env::var_os("DRAM_ONNX") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let script = "import onnx; print(onnx.__version__); print(onnx.__path__[0])";
            let output = Command::new("python3").args(["-c", script]).output().ok()?;
            let said = String::from_utf8(output.stdout).ok()?;
            let (version, path) = said.split_once('\n')?;
            (version == VERSION).then(|| PathBuf::from(path.trim()))?
        }
    };
    let folder = package.join("backend/test/data/node");
    folder.is_dir().then_some(folder)
}

/// The reports in the order of the cases; two threads work on them.
fn run_all(cases: &[case::Case]) -> Vec<Report> {
    let next = AtomicUsize::new(0);
    let work = || {
        let taken = std::iter::from_fn(|| cases.get(next.fetch_add(1, Ordering::Relaxed)));
        taken.map(case::Case::report).collect::<Vec<_>>()
    };
    let mut reports = std::thread::scope(|scope| {
        let other = scope.spawn(work);
        let mut reports = work();
        reports.extend(other.join().expect("each case catches its panics"));
        reports
    });
    reports.sort_by(|a, b| a.name.cmp(&b.name));
    reports
}
