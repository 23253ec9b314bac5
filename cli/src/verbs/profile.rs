//! `dram profile`: where the time of a run goes, operator by operator.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use dram_runtime::session::Operators;
use dram_runtime::{Session, Span};
use serde::Serialize;
use serde_json::{Value, json};

use super::bench::{milliseconds, quantile, refuse_without_example, seconds};
use super::executor;
use crate::Answer;
use crate::arguments::Limits;
use crate::output::{Output, table};

/// Show where the time of a run goes, by kind of operator and by node
#[derive(Debug, Args)]
#[command(after_help = "\
Runs the inputs that `dram bench` runs, in turn with a clock at each operator and without: `median_ms` is
of runs without, `besides_ms` what they take beyond all operators. The time of a node is the median over the
runs, that of an operator the sum of its nodes. A node is named after the value that it writes; GMAC/s are
its multiply-accumulates, in int8 or f32.")]
pub(crate) struct Profile {
    /// A bundle or an ONNX file
    file: PathBuf,

    #[command(flatten)]
    limits: Limits,

    /// How long to measure
    #[arg(long, value_name = "S", default_value = "3", value_parser = seconds)]
    seconds: Duration,

    /// Write the run of median length as a trace, which Perfetto and chrome://tracing open
    #[arg(long, value_name = "FILE.json")]
    trace: Option<PathBuf>,
}

/// The runs of a measurement, the shortest first.
struct Runs {
    plain_ms: Vec<f64>,
    /// The operators of those that were timed one by one.
    timed: Vec<Vec<Span>>,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Measured {
    median_ms: f64,
    besides_ms: f64,
    /// The longest first.
    operators: Vec<Kind>,
    /// In the order in which they run.
    nodes: Vec<Node>,
    executor: &'static str,
    #[serde(skip)]
    counts: Operators,
    threads: usize,
    seq: Option<usize>,
    inferences: usize,
}

/// All nodes of one operator.
#[derive(Debug, Serialize)]
struct Kind {
    operator: String,
    count: usize,
    median_ms: f64,
    share: f64,
    macs: u64,
    int8_macs: u64,
}

#[derive(Debug, Serialize)]
struct Node {
    value: String,
    operator: String,
    median_ms: f64,
    share: f64,
    macs: u64,
    int8_macs: u64,
}

/// Nodes that the text shows, of those that take longest.
const SHOWN: usize = 20;

impl Profile {
    pub(crate) fn call(&self, output: &Output) -> Result<Answer> {
        let session = self.limits.open(&self.file)?;
        refuse_without_example(&session)?;
        let runs = self.runs(&session)?;
        if let Some(path) = &self.trace {
            write_trace(path, &runs.timed[runs.timed.len() / 2])?;
        }
        let measured = self.measured(&session, &runs);
        output.result(&text(&measured), &measured)?;
        Ok(Answer::Yes)
    }

    fn runs(&self, session: &Session) -> Result<Runs> {
        let inputs = session.example(session.plan().sequence.unwrap_or_default());
        let warm = Instant::now();
        session.run(&inputs)?;
        while warm.elapsed() < self.seconds / 10 {
            session.run(&inputs)?;
        }
        let mut runs = Runs { plain_ms: Vec::new(), timed: Vec::new() };
        let begin = Instant::now();
        while begin.elapsed() < self.seconds || runs.timed.is_empty() {
            let one = Instant::now();
            session.run(&inputs)?;
            runs.plain_ms.push(milliseconds(one.elapsed()));
            runs.timed.push(session.profile(&inputs)?);
        }
        runs.plain_ms.sort_by(f64::total_cmp);
        runs.timed.sort_by_key(|spans| whole(spans));
        Ok(runs)
    }

    fn measured(&self, session: &Session, runs: &Runs) -> Measured {
        let median_ms = quantile(&runs.plain_ms, 0.5);
        let timed = &runs.timed;
        let nodes: Vec<Node> = (0..timed[0].len()).map(|place| node(timed, place)).collect();
        let total: f64 = nodes.iter().map(|node| node.median_ms).sum();
        let share = |ms: f64| if total > 0.0 { ms / total } else { 0.0 };
        let nodes: Vec<Node> =
            nodes.into_iter().map(|node| Node { share: share(node.median_ms), ..node }).collect();
        let mut kinds: BTreeMap<&str, Kind> = BTreeMap::new();
        for node in &nodes {
            let kind = kinds.entry(&node.operator).or_insert_with(|| Kind {
                operator: node.operator.clone(),
                count: 0,
                median_ms: 0.0,
                share: 0.0,
                macs: 0,
                int8_macs: 0,
            });
            kind.count += 1;
            kind.median_ms += node.median_ms;
            kind.share += node.share;
            kind.macs += node.macs;
            kind.int8_macs += node.int8_macs;
        }
        let mut operators: Vec<Kind> = kinds.into_values().collect();
        operators.sort_by(|a, b| b.median_ms.total_cmp(&a.median_ms));
        Measured {
            median_ms,
            besides_ms: (median_ms - total).max(0.0),
            operators,
            nodes,
            executor: session.executor(),
            counts: session.operators(),
            threads: self.limits.threads.get(),
            seq: session.plan().sequence,
            inferences: timed.len(),
        }
    }
}

/// The operator at `place` of every run; its share is not known yet.
fn node(runs: &[Vec<Span>], place: usize) -> Node {
    let mut times: Vec<f64> =
        runs.iter().map(|spans| milliseconds(spans[place].duration)).collect();
    times.sort_by(f64::total_cmp);
    let span = &runs[0][place];
    Node {
        value: span.value.clone(),
        operator: span.operator.clone(),
        median_ms: quantile(&times, 0.5),
        share: 0.0,
        macs: span.work.macs,
        int8_macs: span.work.int8_macs,
    }
}

/// From the start of the first operator to the end of the last.
fn whole(spans: &[Span]) -> Duration {
    match (spans.first(), spans.last()) {
        (Some(first), Some(last)) => last.start + last.duration - first.start,
        _ => Duration::ZERO,
    }
}

/// One run in the Trace Event Format: a complete event (`ph` X) for each operator, in microseconds.
fn write_trace(path: &Path, spans: &[Span]) -> Result<()> {
    let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
    let event = |span: &Span| {
        json!({
            "name": span.operator,
            "cat": "operator",
            "ph": "X",
            "pid": 1,
            "tid": 1,
            "ts": microseconds(span.start),
            "dur": microseconds(span.duration),
            "args": { "value": span.value, "macs": span.work.macs, "int8_macs": span.work.int8_macs },
        })
    };
    let events: Vec<Value> = spans.iter().map(event).collect();
    let trace = json!({ "traceEvents": events, "displayTimeUnit": "ns" });
    std::fs::write(path, trace.to_string())
        .with_context(|| format!("cannot write the trace {}", path.display()))
}

fn text(measured: &Measured) -> String {
    let titles = |of: [&str; 5]| of.map(str::to_owned).to_vec();
    let mut kinds = vec![titles(["operator", "nodes", "µs", "share", "GMAC/s"])];
    for kind in &measured.operators {
        let Kind { operator, count, median_ms, share, macs, .. } = kind;
        kinds.push(row(operator, count.to_string(), *median_ms, *share, *macs));
    }
    let mut nodes: Vec<&Node> = measured.nodes.iter().collect();
    nodes.sort_by(|a, b| b.median_ms.total_cmp(&a.median_ms));
    let more = nodes.len().saturating_sub(SHOWN);
    nodes.truncate(SHOWN);
    let mut longest = vec![titles(["node", "operator", "µs", "share", "GMAC/s"])];
    for Node { value, operator, median_ms, share, macs, .. } in nodes {
        longest.push(row(value, operator.clone(), *median_ms, *share, *macs));
    }
    let more = match more {
        0 => String::new(),
        more => format!("and {more} shorter ones, which `--json` lists\n"),
    };
    let tokens = measured.seq.map_or(String::new(), |seq| format!("{seq} tokens, "));
    format!(
        "{}\n{}{more}\n{:.3} ms a run, {:.3} of it besides operators\n{tokens}threads {}, {} runs of each, {}\n",
        table(&kinds),
        table(&longest),
        measured.median_ms,
        measured.besides_ms,
        measured.threads,
        measured.inferences,
        executor(measured.executor, measured.counts),
    )
}

fn row(name: &str, second: String, ms: f64, share: f64, macs: u64) -> Vec<String> {
    let rate = match macs {
        0 => String::new(),
        macs => format!("{:.1}", macs as f64 / (ms * 1e6)),
    };
    vec![
        name.to_owned(),
        second,
        format!("{:.1}", 1e3 * ms),
        format!("{:.1} %", 100.0 * share),
        rate,
    ]
}
