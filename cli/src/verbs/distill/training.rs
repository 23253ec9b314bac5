//! The verb where the training framework is built in.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow, ensure};
use dram_models::signals;
use dram_models::{
    Baseline, Device, Error, Model, Options, Progress, Recipe, Report, Resume, Stage, Task, distill,
};
use indicatif::ProgressBar;

use super::Distill;
use crate::output::{Output, table};
use crate::{Answer, malloc};

/// Hears of every batch, and says whether there shall be another.
type Tell<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;

/// Set by the first Ctrl-C; the next batch is the last.
static STOP: AtomicBool = AtomicBool::new(false);

impl Distill {
    pub(crate) fn call(&self, output: &Output) -> Result<Answer> {
        malloc::keep_freed_memory();
        let task = Task::load(&self.recipe)?;
        stop_on_interrupt()?;
        let mut watch = Watch::new(output);
        let mut tell = |progress| {
            watch.show(progress);
            if STOP.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let told = match task {
            Task::Text(recipe) => self.texts(*recipe, &mut tell),
            Task::Signals(recipe) => self.signals(*recipe, &mut tell),
        };
        watch.bar.finish_and_clear();
        match told {
            Ok((text, report)) => {
                output.result(&text, &report)?;
                Ok(Answer::Yes)
            }
            Err(error) => match error.downcast_ref() {
                Some(Error::Interrupted { .. }) => {
                    output.error(&error);
                    Ok(Answer::No)
                }
                _ => Err(error),
            },
        }
    }

    /// The result for people, and for scripts.
    fn texts(&self, recipe: Recipe, tell: &mut Tell) -> Result<(String, serde_json::Value)> {
        let recipe = Recipe { seed: self.seed.unwrap_or(recipe.seed), ..recipe };
        let report = distill(&recipe, &self.output, self.options()?, tell)?;
        Ok((summary(&report, self), serde_json::to_value(&report)?))
    }

    fn signals(
        &self,
        recipe: signals::Recipe,
        tell: &mut Tell,
    ) -> Result<(String, serde_json::Value)> {
        ensure!(self.worker.is_none(), "`--worker` is for recipes whose scheme is `co_distil`");
        let recipe = signals::Recipe { seed: self.seed.unwrap_or(recipe.seed), ..recipe };
        let report = signals::distill(&recipe, &self.output, self.options()?, tell)?;
        Ok((signals_summary(&report, self), serde_json::to_value(&report)?))
    }

    fn options(&self) -> Result<Options> {
        let device = self.device.parse::<Device>();
        Ok(Options {
            resume: if self.resume { Resume::Yes } else { Resume::No },
            baseline: if self.baseline { Baseline::Train } else { Baseline::Skip },
            worker: self.worker,
            device: device.map_err(|expected| anyhow!("`--device {}`: {expected}", self.device))?,
        })
    }
}

/// The first Ctrl-C asks for a checkpoint and an end, the second ends at once.
fn stop_on_interrupt() -> Result<()> {
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nstopping after this batch; Ctrl-C again ends at once");
    })
    .context("cannot listen for Ctrl-C")
}

/// Shows how far a distillation is: a bar that moves with each batch, a line that stays for each pass.
struct Watch<'a> {
    output: &'a Output,
    bar: ProgressBar,
}

impl Watch<'_> {
    fn new(output: &Output) -> Watch<'_> {
        let bar = output.bar(0, "{prefix} {wide_bar} {pos}/{len}  {msg}");
        Watch { output, bar }
    }

    fn show(&mut self, progress: Progress) {
        match progress {
            Progress::Step {
                stage,
                epoch,
                epochs,
                step,
                steps,
                loss,
                examples_per_second,
                seconds_left,
            } => {
                self.bar.set_length(steps as u64);
                self.bar.set_position(step as u64);
                self.bar.set_prefix(format!("{} {epoch}/{epochs}", stage.name()));
                self.bar.set_message(format!(
                    "loss {loss:.4}, {examples_per_second:.0} examples/s, {} left",
                    clock(seconds_left)
                ));
            }
            Progress::Asked { step, steps, seconds_left } => {
                self.bar.set_length(steps as u64);
                self.bar.set_position(step as u64);
                self.bar.set_prefix(Stage::Answers.name());
                self.bar.set_message(format!("{} left", clock(seconds_left)));
            }
            Progress::Epoch { stage, epoch, epochs, loss, score, measure, seconds_left } => self
                .say(format!(
                    "{} {epoch}/{epochs}: loss {loss:.4}, validation {} {:.2} %, {} left",
                    stage.name(),
                    measure.name(),
                    100.0 * score,
                    clock(seconds_left)
                )),
            Progress::Reused { stage } => self.say(format!("{}: found finished", stage.name())),
            _ => {}
        }
    }

    /// Prints a line that stays, above the bar where there is one.
    fn say(&self, line: String) {
        self.bar.suspend(|| self.output.note(&line));
    }
}

/// Minutes and seconds.
fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

fn summary(report: &Report, distill: &Distill) -> String {
    let figures = report.student.validation.figures();
    let mut heading = vec![String::new()];
    heading.extend(figures.iter().map(|(name, _)| format!("validation {name}")));
    heading.extend(["parameters", "in layers"].map(str::to_owned));
    let row = |(name, model): (&str, &Model)| {
        let mut row = vec![name.to_owned()];
        let figures = model.validation.figures();
        row.extend(figures.iter().map(|(_, figure)| format!("{:.2} %", 100.0 * figure)));
        row.extend([model.parameters.to_string(), model.encoder_parameters.to_string()]);
        row
    };
    let models = [
        ("teacher", report.teacher.as_ref()),
        ("without teacher", report.baseline.as_ref()),
        ("student", Some(&report.student)),
    ];
    let models = models.into_iter().filter_map(|(name, model)| Some((name, model?)));
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(models.map(row)).collect();
    let kept = report.retention.map_or(String::new(), |retention| {
        format!(
            "the student keeps {:.1} % of the teacher's score with {:.1} % of the layers' parameters\n",
            100.0 * retention,
            100.0 * report.encoder_share
        )
    });
    let alarms = warnings(&report.alarms);
    let student = distill.output.join("student.onnx");
    format!("{}{kept}{alarms}{}\n", table(&rows), student.display())
}

fn signals_summary(report: &signals::Report, distill: &Distill) -> String {
    let row = |name: &str, model: &signals::Model| {
        vec![
            name.to_owned(),
            format!("{:.2} %", 100.0 * model.validation.accuracy),
            model.parameters.to_string(),
            model.multiply_adds.to_string(),
        ]
    };
    let heading =
        ["", "validation accuracy", "parameters", "multiply-adds"].map(str::to_owned).to_vec();
    let alone = report.baseline.as_ref().map(|model| row("student from labels alone", model));
    let rows: Vec<_> = [heading, row("teacher", &report.teacher), row("student", &report.student)]
        .into_iter()
        .chain(alone)
        .collect();
    format!(
        "{}the student keeps {:.1} % of the accuracy with {:.1} % of the parameters\n{}{}{}\n",
        table(&rows),
        100.0 * report.retention,
        100.0 * report.student.parameters as f64 / report.teacher.parameters as f64,
        gain(report),
        warnings(&report.alarms),
        distill.output.join("student.onnx").display()
    )
}

/// What the teacher brought, where it brought anything; that it brought nothing is an alarm.
fn gain(report: &signals::Report) -> String {
    let Some(alone) = &report.baseline else { return String::new() };
    match 100.0 * (report.student.validation.accuracy - alone.validation.accuracy) {
        points if points > 0.0 => format!("the teacher brought it {points:.2} points\n"),
        _ => String::new(),
    }
}

fn warnings(alarms: &[String]) -> String {
    alarms.iter().map(|alarm| format!("warning: {alarm}\n")).collect()
}
