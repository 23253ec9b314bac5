//! Whole distillations of tiny networks.

use std::ops::ControlFlow;
use std::path::Path;

use super::distill;
use crate::distill::{Baseline, Options};
use crate::error::Result;
use crate::progress::{Progress, Stage};
use crate::signals::recipe::Recipe;
use crate::signals::report::Report;
use crate::signals::tiny;
use crate::tiny::{assert_same, folder, hashes, interrupted, options};
use crate::train::Resume;

const ARTEFACTS: [&str; 6] =
    ["student.onnx", "labels.txt", "golden.json", "metrics.jsonl", "curves.svg", "report.md"];

fn recipe(folder: &Path, kind: &str) -> Recipe {
    let path = tiny::workplace(folder, kind);
    let text = std::fs::read_to_string(&path).expect("just written");
    Recipe::parse(&text, &path).expect("a good recipe")
}

fn run(recipe: &Recipe, output: &Path) -> Result<Report> {
    distill(recipe, output, with_baseline(Resume::No), &mut |_| ControlFlow::Continue(()))
}

fn with_baseline(resume: Resume) -> Options {
    Options { baseline: Baseline::Train, ..options(resume) }
}

fn artefacts(output: &Path) -> Vec<(&'static str, String)> {
    hashes(output, &ARTEFACTS)
}

#[test]
fn a_tiny_student_of_every_kind_learns_what_its_teacher_knows() {
    for kind in tiny::KINDS {
        let folder = folder();
        let recipe = recipe(folder.path(), kind);
        let report = run(&recipe, &folder.path().join("out")).expect(kind);
        assert!(report.teacher.validation.accuracy > 0.9, "{kind}: {report:?}");
        assert!(report.student.validation.accuracy > 0.9, "{kind}: {report:?}");
        assert!(report.baseline.is_some(), "{kind}");
        let card = std::fs::read_to_string(folder.path().join("out/report.md")).expect(kind);
        assert!(card.contains("| | teacher | student | student from labels alone |"), "{card}");
    }
}

#[test]
fn the_same_recipe_gives_the_same_bytes_and_an_interrupted_run_does_too() {
    let folder = folder();
    let recipe = recipe(folder.path(), "windows");
    let [whole, again, parts] = ["whole", "again", "parts"].map(|it| folder.path().join(it));
    run(&recipe, &whole).expect("a student");
    run(&recipe, &again).expect("a student");
    assert_same(artefacts(&whole), artefacts(&again));
    // Stops within passes and between them, in every training.
    let interruptions = interrupted(11, 100, |tell| {
        distill(&recipe, &parts, with_baseline(Resume::Yes), tell).map(drop)
    });
    assert!(interruptions > 5, "only {interruptions} interruptions");
    assert_same(artefacts(&whole), artefacts(&parts));
}

#[test]
fn finished_stages_are_used_again() {
    let folder = folder();
    let mut recipe = recipe(folder.path(), "windows");
    let output = folder.path().join("out");
    run(&recipe, &output).expect("a student");
    recipe.losses.temperature = 3.0;
    let mut reused = Vec::new();
    distill(&recipe, &output, with_baseline(Resume::No), &mut |progress| {
        if let Progress::Reused { stage } = progress {
            reused.push(stage);
        }
        ControlFlow::Continue(())
    })
    .expect("another student");
    assert_eq!(reused, [Stage::Teacher, Stage::Answers, Stage::Baseline]);
}

#[test]
fn missing_data_is_named() {
    let folder = folder();
    let recipe = recipe(folder.path(), "windows");
    std::fs::remove_file(folder.path().join("data.npz")).expect("it was there");
    let error = run(&recipe, &folder.path().join("out")).expect_err("no data").to_string();
    assert!(error.contains("data.npz"), "{error}");
}
