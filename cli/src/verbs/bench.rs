//! `dram bench`: how long an answer takes, how soon the first one comes, what memory it costs.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use dram_runtime::plan::Size;
use dram_runtime::session::Operators;
use dram_runtime::{Planned, Session};
use serde::Serialize;
use serde_json::json;

use crate::arguments::{Limits, mapped_bytes};
use crate::output::{Output, table};
use crate::verbs::{executor, takes_text};
use crate::{ALLOCATOR, Answer, process};

/// Measure cold start, latency, memory and the share of int8 work
#[derive(Debug, Args)]
#[command(after_help = "\
cold_start_ms   median over five fresh processes, from spawn to the first answer, files in the
                page cache; a model with a tokenizer answers a five-word text, any other its
                example inputs
median_ms ...   wall time of one inference at --seq tokens, after a tenth of the time as warm-up
cpu_ms          processor time of one inference, all threads together
peak_rss_bytes  physical memory at its highest (VmHWM), pages of the program included
peak_heap_bytes heap at its highest plus the mapped bundle; planned_peak_bytes bounds it")]
pub(crate) struct Bench {
    /// A bundle or an ONNX file
    file: PathBuf,

    #[command(flatten)]
    limits: Limits,

    /// How long to measure
    #[arg(long, value_name = "S", default_value = "3", value_parser = seconds)]
    seconds: Duration,

    /// Answer once, say so and end: what the cold start of this process measures, and its plan and peak
    #[arg(long, hide = true)]
    first_answer: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Measured {
    median_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    cpu_ms: f64,
    cold_start_ms: f64,
    peak_rss_bytes: Option<u64>,
    peak_heap_bytes: u64,
    planned_peak_bytes: u64,
    int8_mac_share: f64,
    executor: &'static str,
    operators: Operators,
    threads: usize,
    seq: Option<usize>,
    /// Inputs whose values it was measured for; others are compiled when they come.
    values: Vec<String>,
    inferences: usize,
}

/// What an assistant hears; the cold start's first text.
const FIRST_TEXT: &str = "wake me at six tomorrow";

impl Bench {
    pub(crate) fn call(&self, output: &Output) -> Result<Answer> {
        if self.first_answer {
            return self.answer_once(output);
        }
        // First, while this process is small and holds nothing of the model.
        let cold_start_ms = self.cold_start_ms()?;
        let session = self.limits.open(&self.file)?;
        refuse_without_example(&session)?;
        let measured = self.measure(&session, cold_start_ms)?;
        output.result(&text(&measured), &measured)?;
        Ok(Answer::Yes)
    }

    fn measure(&self, session: &Session, cold_start_ms: f64) -> Result<Measured> {
        let seq = session.plan().sequence;
        let inputs = session.example(seq.unwrap_or_default());
        let infer = || session.run(&inputs).map(drop);
        let warm = Instant::now();
        infer()?;
        while warm.elapsed() < self.seconds / 10 {
            infer()?;
        }
        // What is noted from here on is not the model's.
        let peak_heap_bytes = self.peak_heap_bytes()?;
        let mut times = Vec::new();
        let (begin, cpu) = (Instant::now(), process::cpu_time());
        while begin.elapsed() < self.seconds || times.len() < FEWEST {
            let one = Instant::now();
            infer()?;
            times.push(milliseconds(one.elapsed()));
        }
        let cpu = process::cpu_time() - cpu;
        times.sort_by(f64::total_cmp);
        Ok(Measured {
            median_ms: quantile(&times, 0.5),
            p95_ms: quantile(&times, 0.95),
            p99_ms: quantile(&times, 0.99),
            cpu_ms: milliseconds(cpu) / times.len() as f64,
            cold_start_ms,
            peak_rss_bytes: process::peak_rss_bytes(),
            peak_heap_bytes,
            planned_peak_bytes: session.plan().peak_bytes(),
            int8_mac_share: session.work(seq.unwrap_or_default()).int8_mac_share(),
            executor: session.executor(),
            operators: session.operators(),
            threads: self.limits.threads.get(),
            seq,
            values: session.controls().iter().map(|input| input.name.clone()).collect(),
            inferences: times.len(),
        })
    }

    /// The heap at its highest, and what is mapped of the file.
    fn peak_heap_bytes(&self) -> dram_runtime::Result<u64> {
        Ok(ALLOCATOR.peak_bytes() + mapped_bytes(&self.file)?)
    }

    /// Median time from the spawn of a process to its first answer.
    fn cold_start_ms(&self) -> Result<f64> {
        let mut times = (0..5).map(|_| self.first_answer_ms()).collect::<Result<Vec<_>>>()?;
        times.sort_by(f64::total_cmp);
        Ok(quantile(&times, 0.5))
    }

    fn first_answer_ms(&self) -> Result<f64> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        command.arg("bench").arg(&self.file).arg("--first-answer");
        command.arg("--threads").arg(self.limits.threads.to_string());
        if let Some(seq) = self.limits.seq {
            command.arg("--seq").arg(seq.to_string());
        }
        for (name, planned) in self.limits.shape.iter().chain(&self.limits.value) {
            let (flag, list) = match planned {
                Planned::Shape(shape) => ("--shape", joined(shape, "x")),
                Planned::Values { values } => ("--value", joined(values, ",")),
            };
            command.arg(flag).arg(format!("{name}={list}"));
        }
        for key in &self.limits.require_signature {
            command.arg("--require-signature").arg(key.to_string());
        }
        let begin = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut stdout = child.stdout.take().expect("stdout is piped");
        let answered = stdout.read(&mut [0])?;
        let time = begin.elapsed();
        // The child has said on stderr why.
        if !child.wait()?.success() || answered == 0 {
            bail!("a fresh process gave no answer");
        }
        Ok(milliseconds(time))
    }

    fn answer_once(&self, output: &Output) -> Result<Answer> {
        let session = self.limits.open(&self.file)?;
        if takes_text(&session) {
            session.predict(FIRST_TEXT)?;
        } else {
            refuse_without_example(&session)?;
            session.run(&session.example(session.plan().sequence.unwrap_or_default()))?;
        }
        let document = json!({
            "planned_peak_bytes": session.plan().peak_bytes(),
            "peak_heap_bytes": self.peak_heap_bytes()?,
        });
        output.result(&"answered\n", &document)?;
        Ok(Answer::Yes)
    }
}

pub(super) fn refuse_without_example(session: &Session) -> Result<()> {
    if session.has_example() {
        return Ok(());
    }
    match (session.controls().first(), session.inputs().first()) {
        (Some(input), _) => bail!(
            "the value of an input decides how the model computes; choose one with `--value {}=...` ({input})",
            input.name
        ),
        (None, Some(input)) => bail!(
            "the model leaves its shapes open; choose one with `--shape {}=...` ({input})",
            input.name
        ),
        (None, None) => Ok(()),
    }
}

fn joined(numbers: &[impl ToString], separator: &str) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}

/// Below this many inferences the outer percentiles mean nothing at all.
const FEWEST: usize = 20;

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse::<f64>().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    number
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "give seconds, up to a day: 3 or 0.5".to_owned())
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The smallest of `sorted` that at least the share `q` of them does not exceed (nearest rank).
pub(super) fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

fn text(measured: &Measured) -> String {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let ms = |name: &str, value: f64| row(name, format!("{value:.2} ms"));
    let bytes = |name: &str, value: u64| row(name, Size(value).to_string());
    let mut rows = vec![
        ms("cold start", measured.cold_start_ms),
        ms("median", measured.median_ms),
        ms("p95", measured.p95_ms),
        ms("p99", measured.p99_ms),
        ms("cpu", measured.cpu_ms),
        bytes("planned peak", measured.planned_peak_bytes),
        bytes("peak heap + map", measured.peak_heap_bytes),
    ];
    rows.extend(measured.peak_rss_bytes.map(|peak| bytes("peak RSS", peak)));
    rows.push(row("int8 MACs", format!("{:.1} %", 100.0 * measured.int8_mac_share)));
    rows.push(row("executor", executor(measured.executor, measured.operators)));
    if !measured.values.is_empty() {
        let names = measured.values.join(", ");
        let told =
            format!("{names} as planned; others are compiled first, which a cold start tells");
        rows.push(row("values", told));
    }
    let tokens = measured.seq.map_or(String::new(), |seq| format!("{seq} tokens, "));
    let (count, threads) = (measured.inferences, measured.threads);
    format!("{}{tokens}threads {threads}, {count} inferences\n", table(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measured_values() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        for (q, expected) in [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0), (1.0, 100.0)] {
            assert_eq!(quantile(&hundred, q), expected, "{q}");
        }
        assert_eq!(quantile(&[7.0], 0.01), 7.0);
    }
}
