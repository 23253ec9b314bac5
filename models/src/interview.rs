//! What a finished teacher says about every example, asked through the runtime: a few times faster than
//! through the training framework, and whatever it can run may teach.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;

use dram_runtime::session::{Options, Session};
use dram_runtime::tensor::Tensor;

use crate::answers::{Answers, Each};
use crate::error::{Error, Result};
use crate::weights::Array;

/// Sessions side by side at most: each holds the weights once.
const MOST_SESSIONS: usize = 4;

/// Examples between two calls of the caller's callback.
const ROUND: usize = 256;

/// What the outputs of a teacher mean, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gives {
    /// One output, `[1, labels]`.
    Logits,
    /// One output, `[1, width]` or `[1, tokens, width]`.
    Embedding,
    /// Two outputs, `[1, labels]` and `[1, width]`.
    Both,
}

/// The answers of the model at `path` about each of `rows`, asked one by one; `None` where `each`, called
/// with the number of rounds done and of all, says stop.
///
/// # Errors
/// [`Error::Further`] where the runtime cannot run it, or it answers something else than `gives`.
pub(crate) fn interview(
    path: &Path,
    rows: &[&[u32]],
    gives: Gives,
    each: &mut Each,
) -> Result<Option<Answers>> {
    let fault = |reason: String| Error::Further { path: path.to_owned(), reason };
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let sessions = (0..cores.min(MOST_SESSIONS)).map(|_| {
        let session = Session::open(path, &Options::default());
        session.map_err(|error| fault(error.to_string()))
    });
    let sessions: Vec<Session> = sessions.collect::<Result<_>>()?;
    // Rows of one length one after the other: what our kernels do not run whole is compiled for each length anew.
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&place| rows[place].len());
    let mut answers: Vec<Vec<Vec<f32>>> = vec![Vec::new(); rows.len()];
    let rounds = rows.len().div_ceil(ROUND);
    for (done, places) in order.chunks(ROUND).enumerate() {
        let round: Vec<&[u32]> = places.iter().map(|&place| rows[place]).collect();
        let share = round.len().div_ceil(sessions.len());
        let parts: Vec<Result<Vec<Vec<Vec<f32>>>>> = std::thread::scope(|scope| {
            let ask = |(session, rows)| scope.spawn(move || ask_all(session, rows, gives));
            let asked: Vec<_> = sessions.iter().zip(round.chunks(share)).map(ask).collect();
            let joined = asked.into_iter().map(|thread| {
                thread.join().expect("asking panics only where an invariant is broken")
            });
            joined.map(|part| part.map_err(&fault)).collect()
        });
        let said = parts.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten();
        places.iter().zip(said).for_each(|(&place, answer)| answers[place] = answer);
        if each(done + 1, rounds).is_break() {
            return Ok(None);
        }
    }
    gathered(&answers, gives).map(Some).map_err(fault)
}

/// The outputs for each row.
fn ask_all(session: &Session, rows: &[&[u32]], gives: Gives) -> Result<Vec<Vec<Vec<f32>>>, String> {
    rows.iter().map(|row| ask(session, row, gives)).collect()
}

fn ask(session: &Session, row: &[u32], gives: Gives) -> Result<Vec<Vec<f32>>, String> {
    let outputs = session.run(&inputs(session, row)).map_err(|error| error.to_string())?;
    let wanted = if gives == Gives::Both { 2 } else { 1 };
    if outputs.len() < wanted {
        return Err(format!("it has {} outputs, expected {wanted}", outputs.len()));
    }
    let values = |(name, tensor): &(String, Tensor)| {
        let values = tensor.to_f32().ok_or_else(|| format!("`{name}` is {}", tensor.dtype()))?;
        match tensor.shape() {
            [1, _] => Ok(values),
            &[1, tokens, width] if gives == Gives::Embedding && tokens > 0 => {
                let mean = |column: usize| {
                    values.iter().skip(column).step_by(width).sum::<f32>() / tokens as f32
                };
                Ok((0..width).map(mean).collect())
            }
            shape => Err(format!("`{name}` is {shape:?}, expected one row")),
        }
    };
    outputs.iter().take(wanted).map(values).collect()
}

/// The inputs by the names that exporters give: ids, a mask of ones, segments of zeros.
fn inputs(session: &Session, row: &[u32]) -> BTreeMap<String, Tensor> {
    let shape = [1, row.len()];
    let tensor = |name: &str| match name {
        name if name.contains("mask") => Tensor::from_i64(&shape, &vec![1; row.len()]),
        name if name.contains("type") || name.contains("segment") => {
            Tensor::from_i64(&shape, &vec![0; row.len()])
        }
        _ => Tensor::from_i64(&shape, &row.iter().map(|&id| i64::from(id)).collect::<Vec<_>>()),
    };
    session.inputs().iter().map(|input| (input.name.clone(), tensor(&input.name))).collect()
}

fn gathered(answers: &[Vec<Vec<f32>>], gives: Gives) -> Result<Answers, String> {
    let column = |index: usize| {
        let width = answers.first().map_or(0, |outputs| outputs[index].len());
        if answers.iter().any(|outputs| outputs[index].len() != width) {
            return Err("its answers differ in width".to_owned());
        }
        let values = answers.iter().flat_map(|outputs| &outputs[index]).copied().collect();
        Ok(Array { shape: vec![answers.len(), width], values })
    };
    Ok(match gives {
        Gives::Logits => Answers { logits: Some(column(0)?), embeddings: None },
        Gives::Embedding => Answers { logits: None, embeddings: Some(column(0)?) },
        Gives::Both => Answers { logits: Some(column(0)?), embeddings: Some(column(1)?) },
    })
}
