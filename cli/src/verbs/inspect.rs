//! `dram inspect`: what a model or a bundle holds.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dram_runtime::inspect::{Inspection, inspect};
use dram_runtime::manifest::Manifest;
use dram_runtime::plan::Size;

use crate::Answer;
use crate::opening::Patience;
use crate::output::{Output, table};
use crate::verbs::executor;

/// Show inputs, outputs, operators, parameters and work of an ONNX file or a bundle
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// An ONNX file or a bundle
    file: PathBuf,

    #[command(flatten)]
    patience: Patience,
}

impl Inspect {
    pub(crate) fn call(&self, output: &Output) -> Result<Answer> {
        let opening = self.patience.begin(&[&self.file], None)?;
        let inspection = inspect(&self.file)?;
        drop(opening);
        output.result(&text(&inspection), &inspection)?;
        Ok(Answer::Yes)
    }
}

fn text(model: &Inspection) -> String {
    let mut text = format!("{} `{}`, {}\n\n", model.kind, model.name, Size(model.bytes));
    let mut row = |name: &str, value: &str| text += &format!("{name:<11}{value}\n");
    model.inputs.iter().for_each(|input| row("input", input));
    model.outputs.iter().for_each(|output| row("output", output));
    for (domain, version) in &model.opset {
        row("opset", &format!("{} {version}", if domain.is_empty() { "ai.onnx" } else { domain }));
    }
    row("parameters", &model.parameters.to_string());
    if let (Some(name), Some(operators)) = (model.executor, model.operators_by_executor) {
        row("executor", &executor(name, operators));
    }
    for (tokens, macs) in &model.macs {
        // Shapes that are fixed are listed under one token.
        let at = if model.macs.len() > 1 { format!(" at {tokens} tokens") } else { String::new() };
        row("MACs", &format!("{:.1} million{at}", *macs as f64 / 1e6));
    }
    model.digest.iter().for_each(|digest| row("digest", digest));
    if let Some(manifest) = &model.manifest {
        row("signed by", model.signed_by.as_deref().unwrap_or("nobody"));
        row("golden", &format!("{} examples", manifest.golden.len()));
        describe(manifest, &mut row);
    }
    model.metadata.iter().for_each(|(key, value)| row("property", &format!("{key}: {value}")));
    let operators = model.operators.iter();
    let rows: Vec<_> =
        operators.map(|(name, count)| vec![name.clone(), count.to_string()]).collect();
    format!("{text}\n{}", table(&rows))
}

/// A bundle's manifest, row by row.
fn describe(manifest: &Manifest, row: &mut dyn FnMut(&str, &str)) {
    row("task", manifest.task.name());
    row("precision", manifest.precision.name());
    if !manifest.sequences.is_empty() {
        let lengths: Vec<String> = manifest.sequences.iter().map(usize::to_string).collect();
        row("sequences", &lengths.join(" "));
    }
    if !manifest.labels.is_empty() {
        row("labels", &manifest.labels.len().to_string());
    }
    if let Some(tokenizer) = manifest.tokenizer {
        row("tokenizer", &Size(tokenizer.bytes).to_string());
    }
    manifest
        .metrics
        .iter()
        .for_each(|(name, value)| row("measured", &format!("{name} {value:.4}")));
    manifest.lineage.iter().for_each(|(key, value)| row("lineage", &format!("{key}: {value}")));
}
