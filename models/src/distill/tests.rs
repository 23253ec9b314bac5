//! Whole distillations of tiny teachers.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor;
use dram_runtime::Session;
use dram_runtime::evaluate::{Evaluation, Examples};

use super::{Baseline, Options, distill};
use crate::answers::ask;
#[cfg(feature = "cuda")]
use crate::device::Device;
use crate::encoder::Encoder;
use crate::error::{Error, Result};
use crate::inputs::Inputs;
use crate::interface::{Mode, Student};
use crate::interview::{self, interview};
use crate::progress::{Progress, Stage};
use crate::recipe::{self, Data, Recipe, Scheme};
use crate::report::{Report, Validation};
use crate::rounding::Arithmetic;
use crate::tiny::{self, assert_same, folder, interrupted, options};
use crate::train::Resume;
use crate::weights::{self, Architecture, Weights};

const ARTEFACTS: [&str; 7] = [
    "curves.svg",
    "student.onnx",
    "tokenizer.json",
    "labels.txt",
    "golden.json",
    "metrics.jsonl",
    "report.md",
];

fn run(recipe: &Recipe, output: &Path, resume: Resume) -> Result<Report> {
    distill(recipe, output, options(resume), &mut |_| ControlFlow::Continue(()))
}

fn once(recipe: &Recipe) -> Report {
    let output = recipe.path.with_file_name("out");
    run(recipe, &output, Resume::No).expect("a student")
}

fn artefacts(output: &Path) -> Vec<(&'static str, String)> {
    tiny::hashes(output, &ARTEFACTS)
}

#[test]
fn a_tiny_student_learns_what_its_teacher_knows() {
    let folder = folder();
    let recipe = tiny::recipe(folder.path());
    let report = run(&recipe, &folder.path().join("out"), Resume::No).expect("a student");
    let teacher = report.teacher.as_ref().expect("it was fine-tuned");
    assert_eq!(teacher.validation.score(), 1.0);
    assert!(report.student.validation.score() > 0.9, "{report:?}");
    assert_eq!(report.student.architecture.vocabulary, 64);
    let card = std::fs::read_to_string(folder.path().join("out/report.md")).expect("a card");
    assert!(card.contains("| accuracy | 100.00 % |"), "{card}");
}

#[test]
fn the_same_recipe_gives_the_same_bytes() {
    let folder = folder();
    let recipe = tiny::recipe(folder.path());
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    run(&recipe, &one, Resume::No).expect("a student");
    run(&recipe, &two, Resume::No).expect("a student");
    assert_same(artefacts(&one), artefacts(&two));
}

/// Needs a GPU; every other test runs on one with `DRAM_DEVICE=cuda`.
#[cfg(feature = "cuda")]
#[test]
fn a_gpu_learns_what_the_processor_learns() {
    if let Err(error) = Device::Cuda(0).open() {
        eprintln!("SKIPPED: training on a GPU: {error}");
        return;
    }
    let folder = folder();
    let recipe = tiny::recipe(folder.path());
    let losses = [Device::Cpu, Device::Cuda(0)].map(|device| {
        let output = folder.path().join(device.to_string().replace(':', "-"));
        let options = Options { device, ..Options::default() };
        distill(&recipe, &output, options, &mut |_| ControlFlow::Continue(())).expect("a student");
        losses(&output, "student")
    });
    let [on_cpu, on_gpu] = losses;
    for (cpu, gpu) in on_cpu.iter().zip(&on_gpu) {
        assert!((cpu - gpu).abs() < 0.03 * cpu, "{on_cpu:?} and {on_gpu:?}");
    }
}

/// The loss of each pass of the training `stage`, from the metrics in `output`.
fn losses(output: &Path, stage: &str) -> Vec<f64> {
    let metrics = std::fs::read_to_string(output.join("metrics.jsonl")).expect("metrics");
    let lines =
        metrics.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let of_stage = lines.filter(|line| line["stage"] == stage);
    of_stage.map(|line| line["loss"].as_f64().expect("a number")).collect()
}

#[test]
fn an_interrupted_run_continues_bit_for_bit() {
    let folder = folder();
    let recipe = tiny::recipe(folder.path());
    let whole = folder.path().join("whole");
    run(&recipe, &whole, Resume::No).expect("a student");
    let parts = folder.path().join("parts");
    // Stops within passes and between them, in either training.
    let interruptions =
        interrupted(7, 100, |tell| distill(&recipe, &parts, options(Resume::Yes), tell).map(drop));
    assert!(interruptions > 5, "only {interruptions} interruptions");
    assert_same(artefacts(&parts), artefacts(&whole));
}

#[test]
fn finished_stages_are_used_again() {
    let folder = folder();
    let mut recipe = tiny::recipe(folder.path());
    let output = folder.path().join("out");
    run(&recipe, &output, Resume::No).expect("a student");
    recipe.losses.hard = Some(0.4);
    let mut reused = Vec::new();
    distill(&recipe, &output, options(Resume::No), &mut |progress| {
        if let Progress::Reused { stage } = progress {
            reused.push(stage);
        }
        ControlFlow::Continue(())
    })
    .expect("another student");
    assert_eq!(reused, [Stage::Teacher, Stage::Answers]);
}

#[test]
fn an_unfinished_training_of_another_recipe_is_not_continued() {
    let folder = folder();
    let mut recipe = tiny::recipe(folder.path());
    let output = folder.path().join("out");
    let stop = distill(&recipe, &output, options(Resume::No), &mut |_| ControlFlow::Break(()));
    assert!(matches!(stop, Err(Error::Interrupted { .. })), "{stop:?}");
    recipe.seed += 1;
    let error = run(&recipe, &output, Resume::Yes).expect_err("another seed");
    assert!(error.to_string().contains("leave out `--resume`"), "{error}");
}

#[test]
fn a_missing_teacher_and_missing_data_are_named_with_the_next_step() {
    let folder = folder();
    let recipe = tiny::recipe(folder.path());
    let output = folder.path().join("out");
    std::fs::remove_file(folder.path().join("val.tsv")).expect("it was there");
    let error = run(&recipe, &output, Resume::No).expect_err("no data").to_string();
    assert!(error.contains("val.tsv"), "{error}");
    std::fs::remove_file(folder.path().join("model.safetensors")).expect("it was there");
    let error = run(&recipe, &output, Resume::No).expect_err("no teacher").to_string();
    assert!(error.contains("`models/fetch.sh`"), "{error}");
}

#[test]
fn a_sentence_encoder_keeps_its_teachers_geometry() {
    let folder = folder();
    let recipe = tiny::changed(folder.path(), &tiny::SENTENCES);
    let report = once(&recipe);
    let Validation::Sentences { spearman, tried: Some(tried) } = &report.student.validation else {
        panic!("an encoder is measured on pairs and tried on labels: {report:?}")
    };
    let teacher = report.teacher.as_ref().expect("it teaches as it is").validation.score();
    assert!(*spearman > 0.8 * teacher, "{spearman} of {teacher}");
    assert!(tried.recall_at_1 > 0.5 && tried.linear_probe > 0.5, "{tried:?}");
    assert_eq!(report.student.architecture.labels, 0);
    // `a b c d e f g h i j` is the first of every pair, and no line of val.tsv is taken either.
    assert!(report.data.left_out > 20, "{report:?}");
    assert!(!folder.path().join("out/labels.txt").exists());
}

#[test]
fn every_loss_that_looks_inside_is_learned_from_and_resumed() {
    let folder = folder();
    let inside = "hard = 0.5\nhidden = { weight = 0.5, layers = [[0, 0], [1, 1], [2, 3]], distance = \
         \"mean_squared\" }\nattention = { weight = 0.1, layers = [[1, 1], [2, 3]] }\n\
         relations = { weight = 1.0, student_layer = 2, teacher_layer = 3, heads = 4 }\n";
    let recipe = tiny::changed(folder.path(), &[("hard = 0.5\n", inside)]);
    let report = once(&recipe);
    assert!(report.student.validation.score() > 0.9, "{report:?}");
    // Projections are part of the checkpoint.
    let parts = folder.path().join("parts");
    interrupted(40, 20, |tell| distill(&recipe, &parts, options(Resume::Yes), tell).map(drop));
    assert_same(artefacts(&parts), artefacts(&folder.path().join("out")));
}

#[test]
fn words_are_guessed_as_the_teacher_guesses_them() {
    let folder = folder();
    let words = (
        "similarity = 1.0\n",
        "hidden = { weight = 1.0, layers = [[2, 3]], distance = \"cosine\" }\n\
         words = { hard = 1.0, soft = 1.0, temperature = 2.0, share = 0.3 }\n",
    );
    // The teacher learns to guess words before it teaches.
    let changes = [tiny::SENTENCES[1], tiny::SENTENCES[2], words];
    let recipe = tiny::changed(folder.path(), &changes);
    let report = once(&recipe);
    let losses = losses(&folder.path().join("out"), "student");
    assert!(losses.last() < losses.first(), "{losses:?}");
    assert!(report.teacher.is_some());
}

#[test]
fn a_further_teacher_is_any_onnx_file_that_the_runtime_runs() {
    let folder = folder();
    let first = tiny::recipe(folder.path());
    once(&first);
    let out = folder.path().join("out");
    let further = "[[further_teachers]]\nonnx = \"out/student.onnx\"\n\
         tokenizer = \"out/tokenizer.json\"\ngives = \"logits\"\nweight = 0.5\n\
         licence = \"a student\"\n[data.labelled]";
    let recipe = tiny::changed(folder.path(), &[("[data.labelled]", further)]);
    let report = run(&recipe, &out, Resume::No).expect("a student");
    assert!(report.student.validation.score() > 0.9, "{report:?}");
    assert!(report.to_markdown().contains("further teacher: a student"));
    std::fs::write(folder.path().join("out/student.onnx"), b"no model").expect("writable");
    let error = run(&recipe, &out, Resume::No).expect_err("no model").to_string();
    assert!(error.contains("student.onnx") && error.contains("`dram check`"), "{error}");
}

/// The tiny recipe without a finished teacher, under `scheme`, for twice as many passes.
fn by_scheme(folder: &Path, scheme: &str) -> Recipe {
    by_scheme_in(folder, scheme, "epochs = 16")
}

/// The same in another number of passes.
fn by_scheme_in(folder: &Path, scheme: &str, epochs: &str) -> Recipe {
    let scheme = format!("{scheme}\n[losses]");
    let labels = ("embedding = { weight = 1.0, distance = \"relative\" }\n", "");
    let changes = [tiny::SENTENCES[0], labels, ("epochs = 8", epochs)];
    tiny::changed(folder, &[&changes[..], &[("[losses]", &scheme)]].concat())
}

#[test]
fn students_learn_without_a_finished_teacher() {
    for scheme in [
        "[scheme.mutual]\npeers = [[0, 1], [1, 2]]",
        "[scheme.average]\ndecay = 0.9",
        "[scheme.snapshots]\nevery = 2",
        "[scheme.progressive]\nlast = 0.8",
        "[scheme.born_again]\ngenerations = 2",
    ] {
        let folder = folder();
        let report = once(&by_scheme(folder.path(), scheme));
        assert!(report.teacher.is_none(), "{scheme}");
        assert!(report.student.validation.score() > 0.8, "{scheme}: {report:?}");
    }
}

#[test]
fn a_teacher_and_its_student_learn_together() {
    let folder = folder();
    let online = ("name = \"tiny\"", "name = \"tiny\"\nscheme = \"online\"");
    let labels = ("embedding = { weight = 1.0, distance = \"relative\" }\n", "");
    let changes = [tiny::SENTENCES[0], online, labels, ("epochs = 8", "epochs = 20")];
    let recipe = tiny::changed(folder.path(), &changes);
    let report = once(&recipe);
    let teacher = report.teacher.as_ref().expect("it learned along");
    assert_eq!(teacher.architecture.layers, 3);
    assert!(teacher.validation.score() > 0.9, "{report:?}");
    // One label of five by chance.
    assert!(report.student.validation.score() > 0.7, "{report:?}");
}

#[test]
fn generations_after_the_first_learn_from_the_one_before() {
    let folder = folder();
    let mut recipe = tiny::recipe(folder.path());
    recipe.scheme = Scheme::BornAgain { generations: 2 };
    let mut trainings = 0;
    let output = folder.path().join("out");
    let report = distill(&recipe, &output, options(Resume::No), &mut |progress| {
        if let Progress::Step { stage: Stage::Student, epoch: 1, step: 1, .. } = progress {
            trainings += 1;
        }
        ControlFlow::Continue(())
    });
    assert!(report.expect("a student").student.validation.score() > 0.9);
    assert_eq!(trainings, 2);
}

#[test]
fn exits_answer_after_every_layer_and_are_exported() {
    let folder = folder();
    let exits = "exits = { weight = 0.5, deepest = 1.0, temperature = 2.0 }\n[student.training]";
    let recipe = tiny::changed(folder.path(), &[("[student.training]", exits)]);
    let report = once(&recipe);
    let Validation::Labels { exits, .. } = &report.student.validation else {
        panic!("a classifier: {report:?}")
    };
    assert_eq!(exits.len(), 1);
    assert!(exits[0] > 0.8, "{report:?}");
    let bytes = std::fs::read(folder.path().join("out/student.onnx")).expect("a student");
    let graph = dram_runtime::Graph::from_onnx(&bytes).expect("a model");
    let outputs: Vec<&str> = graph.outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(outputs, ["logits", "exit.1"]);
    // In the runtime, an exit that is always taken answers as the trainer's does, for less.
    let bundle = packed(&folder.path().join("out"), dram_runtime::Precision::F32);
    let open = || Session::open(&bundle, &dram_runtime::Options::default()).expect("a bundle");
    let examples = Examples::read(&folder.path().join("val.tsv")).expect("labelled");
    let evaluated =
        |session: Session| match dram_runtime::evaluate::evaluate(&session, &examples, &mut |_| {})
        {
            Ok(Evaluation::Classification { accuracy, depth: Some(depth), .. }) => {
                (accuracy, depth)
            }
            other => panic!("no depth: {other:?}"),
        };
    let early = evaluated(open().with_exit_threshold(0.0).expect("it has exits"));
    assert_eq!((early.0, early.1.mean_exit), (exits[0], 1.0));
    assert!(early.1.mean_compute < 0.7, "{early:?}");
    let full = evaluated(open().with_exit_threshold(1.0).expect("it has exits"));
    assert_eq!(full.0, report.student.validation.score());
    assert_eq!((full.1.mean_exit, full.1.mean_compute), (2.0, 1.0));
    // Calibrated on these examples, it loses nothing on them.
    let calibrated = evaluated(open());
    assert!(calibrated.0 >= full.0 - 0.003, "{calibrated:?}");
}

/// The student in `out` as a bundle, with what is known of the validation examples.
fn packed(out: &Path, precision: dram_runtime::Precision) -> PathBuf {
    let bundle = out.join("student.dram");
    let options = dram_runtime::pack::PackOptions {
        tokenizer: Some(out.join("tokenizer.json")),
        labels: Some(out.join("labels.txt")),
        task: None,
        sequences: Some(vec![16]),
        shapes: Vec::new(),
        heap: None,
        precision,
        calibrate: None,
        evaluate: Some(out.with_file_name("val.tsv")),
        max_drop: 100.0,
        exit_drop: 0.3,
        // Narrow layers too.
        require_int8: Some(0.0),
    };
    let onnx = out.join("student.onnx");
    dram_runtime::pack::pack(&onnx, &bundle, &options, &mut |_| {}).expect("a bundle");
    bundle
}

#[test]
fn heads_and_layers_are_chosen_by_importance() {
    let folder = folder();
    let chosen = "layers = { most_important = 2 }\nheads = 1\n";
    let recipe = tiny::changed(folder.path(), &[("layers = [0, 2]\n", chosen)]);
    let report = once(&recipe);
    assert_eq!((report.student.architecture.heads, report.layers.len()), (1, 2));
    assert!(report.student.validation.score() > 0.9, "{report:?}");
}

#[test]
fn an_int8_student_is_measured_as_its_bundle_computes() {
    let folder = folder();
    let rounding = "int8 = { after_epochs = 4 }\n[student.training]";
    let recipe = tiny::changed(folder.path(), &[("[student.training]", rounding)]);
    once(&recipe);
    let out = folder.path().join("out");
    // The bundle's logits are the trainer's but for the order of sums.
    let bundle = packed(&out, dram_runtime::Precision::Int8);
    let inputs = Inputs::load(&recipe).expect("readable");
    let exam = inputs.of_student.exam.examples();
    let rows: Vec<&[u32]> = exam.rows.iter().map(Vec::as_slice).collect();
    let said =
        interview(&bundle, &rows, interview::Gives::Logits, &mut |_, _| ControlFlow::Continue(()));
    let said = said.expect("it runs").and_then(|said| said.logits).expect("nobody stops it");
    let entries = std::fs::read_dir(out.join("checkpoints")).expect("checkpoints");
    let student = entries.map(|entry| entry.expect("readable").path()).find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("student-"))
    });
    let bytes = std::fs::read(student.expect("a finished student")).expect("readable");
    let architecture = Architecture {
        vocabulary: inputs.vocabulary.kept.len(),
        layers: 2,
        feed_forward: 24,
        positions: 16,
        ..tiny::ARCHITECTURE
    };
    let arrays = weights::arrays(&bytes, "").expect("weights");
    let weights = Weights::new(architecture, arrays).expect("the student's");
    let encoder = Encoder::new(&weights, &tensor::Device::flex());
    let mode = Mode { arithmetic: Arithmetic::Int8, ..Mode::default() };
    let own =
        ask(&encoder, &tensor::Device::flex(), exam, mode, &mut |_, _| ControlFlow::Continue(()));
    let own = own.and_then(|own| own.logits).expect("nobody stops it");
    // A sum in another order may carry an activation over the edge of a step; that moves a logit by
    // about a step of a weight times a step of an activation.
    let largest = own.values.iter().fold(0.0_f32, |most, logit| most.max(logit.abs()));
    let apart: Vec<f32> =
        own.values.iter().zip(&said.values).map(|(a, b)| (a - b).abs() / largest).collect();
    let mean = apart.iter().sum::<f32>() / apart.len() as f32;
    assert!(mean < 2e-3, "off by {mean} of the largest logit in the mean");
}

#[test]
fn a_baseline_and_early_stopping_and_parts_of_batches() {
    let folder = folder();
    let more = "batch = 16\nparts = 4\npatience = 2";
    let mut recipe = tiny::recipe(folder.path());
    let text = std::fs::read_to_string(folder.path().join("recipe.toml")).expect("it");
    let place = text.rfind("batch = 16").expect("the student's");
    let text = format!("{}{more}{}", &text[..place], &text[place + 10..]);
    recipe = Recipe::parse(&text, &recipe.path).expect("a good recipe");
    recipe.student.training.epochs = 40;
    let options = Options { baseline: Baseline::Train, ..options(Resume::No) };
    let mut passes = 0;
    let output = folder.path().join("out");
    let report = distill(&recipe, &output, options, &mut |progress| {
        passes += usize::from(matches!(progress, Progress::Epoch { stage: Stage::Student, .. }));
        ControlFlow::Continue(())
    });
    let report = report.expect("a student");
    assert!(report.baseline.is_some() && report.to_markdown().contains("without teacher"));
    assert!(passes < 40, "it never stopped early");
}

#[test]
fn parts_of_a_batch_have_the_gradients_of_the_whole() {
    let folder = folder();
    let mut recipe = tiny::recipe(folder.path());
    recipe.student.training.epochs = 1;
    recipe.student.training.clip_norm = 1e6;
    // A mean over the labelled rows of a part is no mean over those of the whole; the rest is.
    recipe.losses.hard = None;
    recipe.data = match recipe.data {
        Data::Labelled(labelled) => Data::Labelled(recipe::Labelled { variations: 0, ..labelled }),
        sentences => sentences,
    };
    let loss = |recipe: &Recipe, name: &str| {
        let output = folder.path().join(name);
        run(recipe, &output, Resume::No).expect("a student");
        *losses(&output, "student").last().expect("a pass")
    };
    let whole = loss(&recipe, "whole");
    recipe.student.training.parts = Some(4);
    let parts = loss(&recipe, "parts");
    // Sums in another order, over a pass of steps.
    assert!((whole - parts).abs() < 1e-3 * whole, "{whole} and {parts}");
}

const CO_DISTIL: &str =
    "[scheme.co_distil]\nfolder = \"shared\"\nworkers = 2\nevery = 1\nburn_in = 0";

/// Names the folder in which [`the_other_process`] learns.
const OTHER: &str = "DRAM_TEST_OTHER_PROCESS";

#[test]
#[ignore = "the other process of two_processes_learn_from_each_other_and_one_is_killed"]
fn the_other_process() {
    let Some(folder) = std::env::var_os(OTHER).map(PathBuf::from) else { return };
    let recipe = Recipe::load(&folder.join("recipe.toml")).expect("a good recipe");
    let options = Options { worker: Some(1), ..options(Resume::No) };
    let go_on = &mut |_| ControlFlow::Continue(());
    distill(&recipe, &folder.join("other"), options, go_on).expect("a student");
}

#[test]
fn two_processes_learn_from_each_other_and_one_is_killed() {
    let folder = folder();
    // How much is heard of one that had learned next to nothing hangs on the moment; there are passes enough after it.
    let recipe = by_scheme_in(folder.path(), CO_DISTIL, "epochs = 32");
    let alone = |name: &str, tell: &mut dyn FnMut(Progress) -> ControlFlow<()>| {
        let options = Options { worker: Some(0), ..options(Resume::No) };
        let output = folder.path().join(name);
        let report = distill(&recipe, &output, options, tell).expect("a student");
        assert!(report.student.validation.score() > 0.8, "{name}: {report:?}");
        artefacts(&output)
    };
    let never_heard = alone("alone", &mut |_| ControlFlow::Continue(()));
    let own = std::env::current_exe().expect("a test runs from a file");
    let mut other = std::process::Command::new(own)
        .args(["--exact", "distill::tests::the_other_process", "--ignored"])
        .env(OTHER, folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the test's own binary runs");
    let left = folder.path().join("shared/worker-1.safetensors");
    while !left.exists() {
        let ended = other.try_wait().expect("a child");
        assert!(ended.is_none() || left.exists(), "it ended before it left anything: {ended:?}");
        std::thread::yield_now();
    }
    // It is killed within the first steps; what it left is listened to for a while, then no more.
    let heard = alone("heard", &mut |progress| {
        if let Progress::Step { step: 3, epoch: 1, .. } = progress {
            other.kill().expect("a child");
        }
        ControlFlow::Continue(())
    });
    other.wait().expect("a child");
    assert_ne!(heard, never_heard, "nobody listened to it");
}

#[test]
fn co_distillation_needs_to_know_which_worker_it_is() {
    let folder = folder();
    let recipe = by_scheme(
        folder.path(),
        "[scheme.co_distil]\nfolder = \"shared\"\nworkers = 2\nevery = 2\nburn_in = 4",
    );
    let error = run(&recipe, &folder.path().join("out"), Resume::No).expect_err("which one?");
    assert!(error.to_string().contains("`--worker N`, 0 to 1"), "{error}");
    // One of them alone still learns: the other is late for ever.
    let options = Options { worker: Some(1), ..options(Resume::No) };
    let output = folder.path().join("out");
    let report = distill(&recipe, &output, options, &mut |_| ControlFlow::Continue(()));
    assert!(report.expect("a student").student.validation.score() > 0.8);
    assert!(folder.path().join("shared/worker-1.safetensors").exists());
}
