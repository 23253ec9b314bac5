//! `dram boards`: the machines that a student may run on, and how each number is known.

use anyhow::{Result, bail};
use clap::Args;
use dram_runtime::plan::Size;
use dram_targets::boards::{Board, Figure, Known, boards, find};
use serde_json::{Value, json};

use crate::Answer;
use crate::output::{Output, table};

/// List the boards that `--board` knows, and how each number is known
#[derive(Debug, Args)]
pub(crate) struct Boards {
    /// Show one board, with the source of each figure
    board: Option<String>,
}

impl Boards {
    pub(crate) fn call(&self, output: &Output) -> Result<Answer> {
        match &self.board {
            Some(id) => {
                let board = named(id)?;
                output.result(&one(board), &document(board))?;
            }
            None => {
                let documents: Vec<Value> = boards().iter().map(document).collect();
                output.result(&all(), &documents)?;
            }
        }
        Ok(Answer::Yes)
    }
}

/// The board of that id.
///
/// # Errors
/// Where there is none; the message lists those that there are.
pub(crate) fn named(id: &str) -> Result<&'static Board> {
    let Some(board) = find(id) else {
        let known: Vec<&str> = boards().iter().map(|board| board.id).collect();
        bail!("no board `{id}`; known are {}; or give `--ram SIZE`", known.join(", "));
    };
    Ok(board)
}

fn all() -> String {
    let heading = [
        "board",
        "target",
        "core",
        "features",
        "cores",
        "MHz",
        "RAM",
        "usable",
        "GB/s",
        "f32 MACs/cycle",
        "int8 MACs/cycle",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for board in boards() {
        rows.push(vec![
            board.id.to_owned(),
            board.target_triple.to_owned(),
            board.core.name.to_owned(),
            features(board),
            marked(board.cores, u32::to_string),
            marked(board.clock_mhz, u32::to_string),
            marked(board.ram_bytes, |&bytes| Size(bytes).to_string()),
            marked(board.ram_usable_bytes, |&bytes| Size(bytes).to_string()),
            marked(board.memory_bytes_per_second, |&rate| gigabytes(rate)),
            marked(board.core.f32_macs_per_cycle, u32::to_string),
            marked(board.core.int8_macs_per_cycle, u32::to_string),
        ]);
    }
    format!(
        "{}\nno mark: datasheet; ' published measurement; = derived by arithmetic; ~ estimated\n\
         `dram boards BOARD` gives the source of each figure\n",
        table(&rows)
    )
}

fn features(board: &Board) -> String {
    let names: Vec<&str> = board.core.features.iter().map(|feature| feature.name()).collect();
    names.join(" ")
}

fn one(board: &Board) -> String {
    let mut text = format!(
        "{} ({})\ntarget {}, core {}, features {}\n\n",
        board.name,
        board.id,
        board.target_triple,
        board.core.name,
        features(board)
    );
    fn row<T>(name: &str, figure: Figure<T>, show: impl Fn(&T) -> String) -> String {
        let value = show(&figure.value);
        format!("{name:<16}{value:>10}  {:<11}{}\n", figure.known.name(), figure.source)
    }
    text += &row("cores", board.cores, u32::to_string);
    text += &row("clock MHz", board.clock_mhz, u32::to_string);
    text += &row("RAM", board.ram_bytes, |&bytes| Size(bytes).to_string());
    text += &row("usable RAM", board.ram_usable_bytes, |&bytes| Size(bytes).to_string());
    text += &row("memory GB/s", board.memory_bytes_per_second, |&rate| gigabytes(rate));
    text += &row("f32 MACs/cycle", board.core.f32_macs_per_cycle, u32::to_string);
    text += &row("int8 MACs/cycle", board.core.int8_macs_per_cycle, u32::to_string);
    text
}

fn document(board: &Board) -> Value {
    fn figure<T: serde::Serialize>(figure: Figure<T>) -> Value {
        json!({ "value": figure.value, "known": figure.known.name(), "source": figure.source })
    }
    let features: Vec<&str> = board.core.features.iter().map(|feature| feature.name()).collect();
    json!({
        "id": board.id,
        "name": board.name,
        "target_triple": board.target_triple,
        "core": board.core.name,
        "features": features,
        "cores": figure(board.cores),
        "clock_mhz": figure(board.clock_mhz),
        "ram_bytes": figure(board.ram_bytes),
        "ram_usable_bytes": figure(board.ram_usable_bytes),
        "memory_bytes_per_second": figure(board.memory_bytes_per_second),
        "f32_macs_per_cycle": figure(board.core.f32_macs_per_cycle),
        "int8_macs_per_cycle": figure(board.core.int8_macs_per_cycle),
    })
}

/// The value behind a mark for how it is known.
fn marked<T>(figure: Figure<T>, show: impl Fn(&T) -> String) -> String {
    let mark = match figure.known {
        Known::Datasheet => "",
        Known::Published => "'",
        Known::Derived => "=",
        _ => "~",
    };
    format!("{mark}{}", show(&figure.value))
}

fn gigabytes(bytes_per_second: u64) -> String {
    format!("{:.1}", bytes_per_second as f64 / 1e9)
}
