//! `dram fit`: which bundle on which board meets a goal, and what each would cost.

mod predict;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use dram_runtime::Budget;
use dram_runtime::plan::Size;
use dram_targets::boards::boards;
use serde::Serialize;
use serde_json::json;

use crate::Answer;
use crate::calibration::Calibration;
use crate::output::{Output, table};
use crate::verbs;
use predict::{HELD_OUT_ERROR, Length, Machine, Model, Work, default_calibration};

/// Rank bundles x boards by predicted latency and RAM; exit code 1 where none meets the goals
#[derive(Debug, Args)]
#[command(after_help = "\
Latencies are predicted, not measured: the peaks of `dram boards` times the shares of peak that a
calibration found (`dram doctor --calibrate --json`, or the one built in). A bundle is taken at the
longest of its planned lengths that keeps to RAM and time. docs/fit.md says how far predictions are off.")]
pub(crate) struct Fit {
    /// A folder of bundles, or one bundle
    bundles: PathBuf,

    /// It may take so much RAM, and never more than the board leaves to applications
    #[arg(long, value_name = "SIZE")]
    ram: Option<Budget>,

    /// Ninety-five of a hundred answers must come within this time: `30ms`, `1.5s`
    #[arg(long, value_name = "TIME", value_parser = milliseconds)]
    p95: Option<f64>,

    /// The accuracy that was measured when it was packed must reach this, 0 to 1; of a model that
    /// embeds, Spearman's correlation
    #[arg(long, value_name = "SHARE", value_parser = share)]
    min_accuracy: Option<f64>,

    /// Only this board; may be repeated
    #[arg(long, value_name = "BOARD")]
    board: Vec<String>,

    /// Threads that compute, as far as a board has cores
    #[arg(long, value_name = "N", default_value = "1")]
    threads: NonZeroUsize,

    /// Tokens of a text, in place of the longest planned length that keeps to RAM and time
    #[arg(long, value_name = "N")]
    seq: Option<NonZeroUsize>,

    /// What `dram doctor --calibrate --json` wrote; that machine is then ranked too, as `calibrated`
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
}

/// A bundle on a board, and what it would cost there.
#[derive(Debug, Serialize)]
struct Candidate {
    bundle: String,
    board: &'static str,
    /// Length of a text in tokens; `None` where shapes are fixed.
    seq: Option<usize>,
    /// `None` where not all of the graph runs on our kernels.
    predicted_ms: Option<f64>,
    predicted_p95_ms: Option<f64>,
    planned_peak_bytes: u64,
    ram_allowed_bytes: u64,
    /// As measured when it was packed.
    accuracy: Option<f64>,
    fits: bool,
    /// What it does not meet, with numbers.
    misses: Vec<String>,
}

impl Fit {
    pub(crate) fn call(&self, output: &Output) -> Result<Answer> {
        let calibration = match &self.calibration {
            Some(path) => read_calibration(path)?,
            None => default_calibration(),
        };
        let mut machines: Vec<Machine> = match &self.board[..] {
            [] => boards().iter().map(Machine::board).collect(),
            ids => {
                let named = ids.iter().map(|id| verbs::boards::named(id).map(Machine::board));
                named.collect::<Result<_>>()?
            }
        };
        if self.calibration.is_some() {
            machines.push(Machine::calibrated(&calibration));
        }
        let mut candidates = Vec::new();
        for path in bundles(&self.bundles)? {
            let model = Model::open(&path, self.threads, self.seq)?;
            candidates.extend(machines.iter().map(|it| self.best(&model, it, &calibration)));
        }
        // Those that fit first, then the fastest, then the smallest.
        candidates.sort_by(|a, b| {
            let ms = |it: &Candidate| it.predicted_ms.unwrap_or(f64::INFINITY);
            let missing = a.misses.len().cmp(&b.misses.len());
            let slower = missing.then(ms(a).total_cmp(&ms(b)));
            slower.then(a.planned_peak_bytes.cmp(&b.planned_peak_bytes))
        });
        let fits = candidates.iter().any(|candidate| candidate.fits);
        output.result(
            &text(&candidates, &calibration),
            &json!({
                "fits": fits,
                "calibration": calibration,
                "held_out_error": HELD_OUT_ERROR,
                "candidates": candidates,
            }),
        )?;
        Ok(if fits { Answer::Yes } else { Answer::No })
    }

    /// The bundle at the longest planned length that keeps to RAM and time, else at the shortest.
    fn best(&self, model: &Model, machine: &Machine, calibration: &Calibration) -> Candidate {
        let cost = |length: &Length| self.cost(model, length, machine, calibration);
        let mut lengths: Vec<Candidate> = model.lengths.iter().map(cost).collect();
        let kept = lengths.iter().position(|candidate| candidate.misses.is_empty());
        let mut best = lengths.swap_remove(kept.unwrap_or(lengths.len() - 1));
        best.misses.extend(self.inaccurate(model.accuracy));
        best.fits = best.misses.is_empty();
        best
    }

    /// What one length of a bundle costs, held to the goals for RAM and time.
    fn cost(
        &self,
        model: &Model,
        length: &Length,
        machine: &Machine,
        calibration: &Calibration,
    ) -> Candidate {
        let predict = |work: &Work| machine.predict_ms(work, self.threads.get(), calibration);
        let predicted = length.work.as_ref().map(predict);
        let p95 = predicted.map(|predicted| predicted * (1.0 + HELD_OUT_ERROR));
        let (peak, usable) = (length.plan.peak_bytes(), machine.ram_usable_bytes);
        let allowed = self.ram.map_or(usable, |ram| ram.ram_bytes().min(usable));
        let large = (peak > allowed)
            .then(|| format!("RAM: planned {}, allowed {}", Size(peak), Size(allowed)));
        Candidate {
            bundle: model.name.clone(),
            board: machine.id,
            seq: length.plan.sequence,
            predicted_ms: predicted,
            predicted_p95_ms: p95,
            planned_peak_bytes: peak,
            ram_allowed_bytes: allowed,
            accuracy: model.accuracy,
            fits: false,
            misses: large.into_iter().chain(self.slow(p95)).collect(),
        }
    }

    fn slow(&self, p95: Option<f64>) -> Option<String> {
        let allowed = self.p95?;
        match p95 {
            Some(p95) if p95 <= allowed => None,
            Some(p95) => Some(format!("p95: predicted {p95:.1} ms, allowed {allowed:.1} ms")),
            None => Some("p95: no prediction, not all of it runs on our kernels".to_owned()),
        }
    }

    fn inaccurate(&self, accuracy: Option<f64>) -> Option<String> {
        let least = self.min_accuracy?;
        match accuracy {
            Some(accuracy) if accuracy >= least => None,
            Some(accuracy) => {
                Some(format!("accuracy: {:.2} %, wanted {:.2} %", 100.0 * accuracy, 100.0 * least))
            }
            None => Some("accuracy: not known, pack it with `--eval`".to_owned()),
        }
    }
}

fn read_calibration(path: &Path) -> Result<Calibration> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!("`{}` is not what `dram doctor --calibrate --json` writes", path.display())
    })
}

/// The bundles of a folder by name, or the one file.
fn bundles(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let reading = || format!("cannot read `{}`", path.display());
    let entries = std::fs::read_dir(path).with_context(reading)?;
    let mut files = entries
        .map(|entry| Ok(entry.with_context(reading)?.path()))
        .filter(|file: &Result<PathBuf>| {
            file.as_ref().map_or(true, |file| file.extension().is_some_and(|it| it == "dram"))
        })
        .collect::<Result<Vec<_>>>()?;
    if files.is_empty() {
        bail!("no `.dram` files in `{}`; make one with `dram pack`", path.display());
    }
    files.sort();
    Ok(files)
}

fn text(candidates: &[Candidate], calibration: &Calibration) -> String {
    let heading =
        ["bundle", "board", "tokens", "predicted", "predicted p95", "planned RAM", "accuracy", ""];
    let ms = |value: Option<f64>| match value {
        None => "unknown".to_owned(),
        Some(ms) if ms < 0.1 => format!("{ms:.4} ms"),
        Some(ms) => format!("{ms:.1} ms"),
    };
    let row = |it: &Candidate| {
        vec![
            it.bundle.clone(),
            it.board.to_owned(),
            it.seq.map_or(String::new(), |tokens| tokens.to_string()),
            ms(it.predicted_ms),
            ms(it.predicted_p95_ms),
            Size(it.planned_peak_bytes).to_string(),
            it.accuracy.map_or("unknown".to_owned(), |share| format!("{:.2} %", 100.0 * share)),
            if it.fits { "fits".to_owned() } else { "no".to_owned() },
        ]
    };
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(candidates.iter().map(row));
    let mut text = table(&rows);
    let missing = candidates.iter().filter(|candidate| !candidate.fits);
    for (index, candidate) in missing.enumerate() {
        let heading = if index == 0 { "\nwhat is missed\n" } else { "" };
        let misses = candidate.misses.join("; ");
        text += &format!("{heading}  {} on {}: {misses}\n", candidate.bundle, candidate.board);
    }
    text += &format!(
        "\nlatencies are predicted from shares of peak measured on {} ({}); there, models that it was not\n\
         measured on took up to {:.0} % more, which is the margin of p95; on a board, measure\n",
        calibration.machine,
        calibration.kernels,
        100.0 * HELD_OUT_ERROR,
    );
    text
}

/// `30ms`, `1.5s` or `0.5` seconds, in milliseconds.
fn milliseconds(text: &str) -> Result<f64, String> {
    let (number, factor) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1.0),
        (None, Some(number)) => (number, 1e3),
        (None, None) => return Err("write a number and a unit: 30ms or 1.5s".to_owned()),
    };
    let number = number.trim().parse::<f64>().ok().filter(|it| *it > 0.0 && it.is_finite());
    number.map(|it| it * factor).ok_or_else(|| "write a number and a unit: 30ms or 1.5s".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "give a share from 0 to 1: 0.93".to_owned())
}
