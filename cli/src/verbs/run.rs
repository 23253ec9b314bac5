//! `dram run`: predictions for texts, or for tensors.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use dram_runtime::{Prediction, Session, Tensor, npy};
use serde_json::{Value, json};

use crate::Answer;
use crate::arguments::{EarlyExits, Limits};
use crate::output::{Output, table};
use crate::verbs::takes_text;

/// Predict: labels or an embedding for a text, tensors for tensors
#[derive(Debug, Args)]
#[command(after_help = "\
Without --text and --input, texts are read from stdin, one a line.")]
pub(crate) struct Run {
    /// A bundle, a folder that `dram install` keeps, or an ONNX file
    file: PathBuf,

    /// A text to predict for; may be repeated
    #[arg(long, value_name = "TEXT", conflicts_with = "input")]
    text: Vec<String>,

    /// A tensor for the input NAME; may be repeated
    #[arg(long, value_name = "NAME=FILE.npy", value_parser = named_file)]
    input: Vec<(String, PathBuf)>,

    /// Write every output to this folder as NAME.npy
    #[arg(long, value_name = "DIR", requires = "input")]
    save: Option<PathBuf>,

    /// Labels to print for each text, the likeliest first
    #[arg(long, value_name = "K", default_value = "3")]
    top: usize,

    #[command(flatten)]
    early: EarlyExits,

    #[command(flatten)]
    limits: Limits,
}

impl Run {
    pub(crate) fn call(&self, output: &Output) -> Result<Answer> {
        let session = self.early.apply(self.limits.open(&self.file)?)?;
        match &self.text[..] {
            _ if !self.input.is_empty() => self.tensors(&session, output)?,
            [] if !takes_text(&session) => bail!(inputs_wanted(&session)),
            [] => self.lines(&session, output)?,
            texts => self.texts(&session, texts, output)?,
        }
        Ok(Answer::Yes)
    }

    fn texts(&self, session: &Session, texts: &[String], output: &Output) -> Result<()> {
        let predictions =
            texts.iter().map(|text| session.predict(text)).collect::<Result<Vec<_>, _>>()?;
        let documents: Vec<Value> = predictions.iter().map(|it| self.document(it)).collect();
        let answers: Vec<String> = predictions.iter().map(|it| self.answer(it)).collect();
        let text = match &answers[..] {
            [answer] => answer.clone(),
            answers => {
                let headed = texts.iter().zip(answers);
                headed.map(|(text, answer)| format!("{}\n{answer}", heading(text))).collect()
            }
        };
        output.result(&text, &documents)
    }

    /// Answers each line of stdin before it reads the next, or with `--json` all at the end.
    fn lines(&self, session: &Session, output: &Output) -> Result<()> {
        let stdin = std::io::stdin().lock();
        if stdin.is_terminal() {
            output.note(&"reading texts, one a line; end with Ctrl-D");
        }
        let mut documents = Vec::new();
        for (index, line) in stdin.lines().enumerate() {
            let text =
                line.map_err(|error| anyhow::anyhow!("stdin line {}: {error}", index + 1))?;
            let prediction = session.predict(&text)?;
            if output.is_json() {
                documents.push(self.document(&prediction));
            } else {
                let answer = self.answer(&prediction);
                output.result(&format_args!("{}\n{answer}", heading(&text)), &())?;
            }
        }
        if output.is_json() { output.result(&"", &documents) } else { Ok(()) }
    }

    fn tensors(&self, session: &Session, output: &Output) -> Result<()> {
        let mut inputs = BTreeMap::new();
        for (name, path) in &self.input {
            if inputs.insert(name.clone(), npy::read(path)?).is_some() {
                bail!("`--input {name}=` stands twice; give each input once");
            }
        }
        let outputs = session.run(&inputs)?;
        let files = match &self.save {
            Some(folder) => save(folder, &outputs)?,
            None => Vec::new(),
        };
        let mut text = String::new();
        let mut documents = Vec::new();
        for (index, (name, tensor)) in outputs.iter().enumerate() {
            let file = files.get(index).map(|path| path.display().to_string());
            let to = file.as_ref().map(|file| format!(" -> {file}")).unwrap_or_default();
            text +=
                &format!("{name} {} {:?}{to}{}\n", tensor.dtype(), tensor.shape(), first(tensor));
            documents.push(json!({
                "name": name,
                "dtype": tensor.dtype().name(),
                "shape": tensor.shape(),
                "file": file,
            }));
        }
        output.result(&text, &documents)
    }

    /// The `--top` likeliest labels, or the embedding, for people.
    fn answer(&self, prediction: &Prediction) -> String {
        match prediction {
            Prediction::Labels(scored) => {
                let row = |label: &str, probability: f32| {
                    vec![format!("  {label}"), format!("{:.1} %", 100.0 * probability)]
                };
                let best = scored.iter().take(self.top);
                table(&best.map(|it| row(&it.label, it.probability)).collect::<Vec<_>>())
            }
            Prediction::Embedding(vector) => {
                let numbers: Vec<String> = vector.iter().map(f32::to_string).collect();
                format!("  {}\n", numbers.join(" "))
            }
        }
    }

    fn document(&self, prediction: &Prediction) -> Value {
        match prediction {
            Prediction::Labels(scored) => scored
                .iter()
                .take(self.top)
                .map(|it| json!({ "label": it.label, "probability": it.probability }))
                .collect(),
            Prediction::Embedding(vector) => json!({ "embedding": vector }),
        }
    }
}

fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.to_owned(), PathBuf::from(path)))
        }
        _ => Err("write the input's name and a file: `input_ids=ids.npy`".to_owned()),
    }
}

fn inputs_wanted(session: &Session) -> String {
    let inputs: Vec<String> = session
        .inputs()
        .iter()
        .map(|input| format!("\n  --input {}=FILE.npy ({input})", input.name))
        .collect();
    format!("this model takes tensors, not text; give:{}", inputs.concat())
}

/// Enough of the text to know it by.
fn heading(text: &str) -> String {
    const LONGEST: usize = 72;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// The first numbers of an f32 tensor.
fn first(tensor: &Tensor) -> String {
    const SHOWN: usize = 6;
    let values = tensor.to_f32().unwrap_or_default();
    let numbers: Vec<String> = values.iter().take(SHOWN).map(|value| format!("{value}")).collect();
    let more = if values.len() > SHOWN { " ..." } else { "" };
    if numbers.is_empty() { String::new() } else { format!(": {}{more}", numbers.join(" ")) }
}

/// Writes each of `outputs` into `folder`, under its name with everything but letters, digits, `-`,
/// `_` and `.` replaced, so that no name leaves the folder.
fn save(folder: &Path, outputs: &[(String, Tensor)]) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create `{}`", folder.display()))?;
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let mut paths: Vec<PathBuf> = Vec::new();
    for (name, tensor) in outputs {
        let path = folder.join(format!("{}.npy", name.chars().map(safe).collect::<String>()));
        if paths.contains(&path) {
            bail!("two outputs would be written to `{}`; rename one in the model", path.display());
        }
        npy::write(&path, tensor)?;
        paths.push(path);
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_has_both_parts() {
        assert_eq!(named_file("ids=a=b.npy"), Ok(("ids".to_owned(), "a=b.npy".into())));
        for text in ["ids", "=a.npy", "ids="] {
            assert!(named_file(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_long_text_is_headed_by_its_beginning() {
        assert_eq!(heading("short"), "short");
        assert_eq!(heading(&"ä".repeat(100)), format!("{}...", "ä".repeat(72)));
    }
}
