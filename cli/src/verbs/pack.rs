//! `dram pack`: an ONNX file -> the one file that a device needs.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use dram_runtime::calibrate::Calibration;
use dram_runtime::exits::DEFAULT_EXIT_DROP;
use dram_runtime::optimize::PassReport;
use dram_runtime::pack::{Calibrate, DEFAULT_MAX_DROP, PackOptions, PackReport, pack};
use dram_runtime::plan::Size;
use dram_runtime::repair::Repair;
use dram_runtime::{Planned, Precision, Task};

use crate::arguments::{named_shape, named_values, shapes};
use crate::opening::Patience;
use crate::output::{Output, table};
use crate::verbs::executor;
use crate::{Answer, HEAP};

/// Optimize, quantize, gate on accuracy, and write the bundle
#[derive(Debug, Args)]
pub(crate) struct Pack {
    /// An ONNX file
    model: PathBuf,

    /// The bundle to write
    #[arg(short, long, value_name = "M.dram")]
    output: PathBuf,

    /// The model's `tokenizer.json`, where it takes text
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,

    /// One label a line, in the order of the output's columns
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,

    /// What the output means; labels mean classify, a tokenizer alone embed, neither raw
    #[arg(long, value_parser = PossibleValuesParser::new(["classify", "embed", "raw"])
        .try_map(|name| name.parse::<Task>()))]
    task: Option<Task>,

    /// Sequence lengths to plan for, in tokens [default: 16,32,64,128]
    #[arg(long, value_name = "N,N,...", value_delimiter = ',')]
    seq: Option<Vec<NonZeroUsize>>,

    /// Shape of an input to plan for, `x=1x3x48x320`; the second one for the same input is of a second plan
    #[arg(long, value_name = "NAME=1x3x...", value_parser = named_shape)]
    shape: Vec<(String, Planned)>,

    /// Values of an input to plan for, `sr=16000` or `ids=3,7,4`: where they decide how the model computes
    #[arg(long, value_name = "NAME=V,V...", value_parser = named_values)]
    value: Vec<(String, Planned)>,

    /// Numbers that weights are stored and multiplied in
    #[arg(long, default_value = "int8", value_parser = PossibleValuesParser::new(Precision::ALL.map(Precision::name))
        .try_map(|name| name.parse::<Precision>()))]
    precision: Precision,

    /// Inputs whose activations set the ranges of `int8-static`, and the rounding of int8 weights: a TSV of texts, a
    /// `.npy`, or a folder of them
    #[arg(long, value_name = "DATA", required_if_eq("precision", "int8-static"))]
    calibrate: Option<PathBuf>,

    /// How a range is chosen from the activations
    #[arg(long, requires = "calibrate", default_value = "mse",
        value_parser = PossibleValuesParser::new(["min-max", "percentile", "entropy", "mse"])
        .try_map(|name| name.parse::<Calibration>()))]
    calibration: Calibration,

    /// Measure f32 and the packed precision on this: labelled as for `dram eval`, or inputs alone, on which
    /// it is to answer as f32 does
    #[arg(long, value_name = "DATA")]
    eval: Option<PathBuf>,

    /// Refuse to lose more than this against f32, in percentage points
    #[arg(long, value_name = "POINTS", requires = "eval", default_value_t = DEFAULT_MAX_DROP)]
    max_drop: f64,

    /// Calibrate early exits to lose at most this against the last layer, in percentage points
    #[arg(long, value_name = "POINTS", requires = "eval", default_value_t = DEFAULT_EXIT_DROP)]
    exit_drop: f64,

    /// Refuse where less of the multiply-accumulates runs in int8, `90%`, and round what gains nothing by it too
    #[arg(long, value_name = "SHARE", value_parser = share)]
    require_int8: Option<f64>,

    #[command(flatten)]
    patience: Patience,
}

/// A percentage as a share of one.
fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>().ok();
    number
        .filter(|percent| (0.0..=100.0).contains(percent))
        .map(|percent| percent / 100.0)
        .ok_or_else(|| "give a percentage: 90%".to_owned())
}

impl Pack {
    pub(crate) fn call(&self, output: &Output) -> Result<Answer> {
        let options = PackOptions {
            tokenizer: self.tokenizer.clone(),
            labels: self.labels.clone(),
            task: self.task,
            sequences: self.seq.as_ref().map(|lengths| lengths.iter().map(|n| n.get()).collect()),
            shapes: shapes(&self.shape, &self.value),
            heap: Some(HEAP),
            precision: self.precision,
            calibrate: self
                .calibrate
                .clone()
                .map(|data| Calibrate { data, calibration: self.calibration }),
            evaluate: self.eval.clone(),
            max_drop: self.max_drop,
            exit_drop: self.exit_drop,
            require_int8: self.require_int8,
        };
        let mut opening = Some(self.patience.begin(&[&self.model], None)?);
        let mut progress = |step: &str| {
            // What follows takes as long, and as much, as the data that the user chose.
            opening = opening.take().filter(|_| matches!(step, "reading" | "optimizing"));
            output.note(&step);
        };
        let report = pack(&self.model, &self.output, &options, &mut progress)?;
        output.result(&self.text(&report), &report)?;
        Ok(Answer::Yes)
    }

    fn text(&self, report: &PackReport) -> String {
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let percent = |share: f64| format!("{:.2} %", 100.0 * share);
        let mut rows = vec![
            row("task", report.task.to_string()),
            row("precision", report.precision.to_string()),
            row("executor", executor(report.executor, report.operators)),
            row("int8 MACs", counted(report.int8_mac_share)),
        ];
        if !report.without_gain.is_empty() {
            let count = report.without_gain.len();
            let kept = format!(
                "{count} layers, too narrow to gain by int8 on a core without a dot product; `--require-int8 0%` rounds them"
            );
            rows.push(row("kept in f32", kept));
        }
        rows.extend(report.calibrated.map(|it| {
            let mut value = format!("{} on {} examples", it.calibration, it.samples);
            if it.equalized > 0 {
                value.push_str(&format!(", channels of {} values equalized", it.equalized));
            }
            row("calibration", value)
        }));
        let measure = report.measure.unwrap_or_default();
        let score = |what: &str, score| row(&format!("{measure} {what}"), percent(score));
        rows.extend(report.f32_score.map(|it| score("in f32", it)));
        rows.extend(report.score.map(|it| score("as packed", it)));
        rows.extend(report.exits.iter().map(|exits| {
            let certainty =
                format!("{} from a certainty of {}", exits.outputs.len(), exits.threshold);
            row("early exits", certainty)
        }));
        let rewrites = |it: &PassReport| row(&format!("pass {}", it.pass), it.rewrites.to_string());
        rows.extend(report.passes.iter().map(rewrites));
        let tract = report.left_to_tract.as_ref();
        let tract = tract.map_or(String::new(), |why| format!("tract takes part: {why}\n"));
        let repair = report.repair.as_ref().map_or(String::new(), repaired);
        let written = format!("{}, {}\n", self.output.display(), Size(report.bytes));
        format!("{}{tract}{repair}{written}", table(&rows))
    }
}

/// A share that can be counted where the shapes are known.
fn counted(share: Option<f64>) -> String {
    share.map_or("not counted, for want of `--shape`".to_owned(), |share| {
        format!("{:.2} %", 100.0 * share)
    })
}

/// What was put back, attempt by attempt and node by node.
fn repaired(repair: &Repair) -> String {
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
    let mut rounds = vec![row(["nodes put back", "score", "int8 MACs"])];
    rounds.extend(repair.rounds.iter().map(|round| {
        let back = match round.put_back {
            0 => format!("none, all {}", round.to),
            count => format!("{count} to {}", round.to),
        };
        vec![back, percent(round.score), counted(round.int8_mac_share)]
    }));
    let mut nodes = vec![row(["node", "signal to noise", "stored as"])];
    nodes.extend(repair.nodes.iter().map(|noise| {
        let signal = format!("{:.1} dB", noise.signal_to_noise_db);
        vec![noise.node.clone(), signal, noise.stored_as.to_string()]
    }));
    format!("\n{}\n{}\n", table(&rounds), table(&nodes))
}
