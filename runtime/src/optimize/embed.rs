//! The lookup of token vectors and the addition of positions become `dram.Embed`:
//! `hidden[i] = words[ids[i]] + positions[i]`, with the one token-type vector of single texts added
//! to every position.
//!
//! Recognized: sums of `Gather(table, ids)` with values that depend on the shape of `ids` only -
//! found by computing them for two different texts of five tokens. Refused: positions that are not
//! consecutive rows of a constant table, and token types that the caller gives.

use crate::error::Result;
use crate::graph::{Graph, Node};
use crate::optimize::pattern::{Rewrite, View, rewrite_all};
use crate::tensor::{DType, Tensor};

pub(super) fn run(graph: &mut Graph) -> Result<usize> {
    rewrite_all(graph, |view, index| Ok(find(view, index)))
}

fn find(view: &View, index: usize) -> Option<Rewrite> {
    let sum = view.node(index);
    let mut terms = Vec::new();
    flatten(view, sum.is("Add").then(|| sum.output())?, &mut terms);
    let lookup = terms.iter().position(|term| token_lookup(view, term).is_some())?;
    let (words, ids) = token_lookup(view, terms.remove(lookup))?;
    let width = *view.constant(words)?.shape().last()?;
    let positions = terms
        .into_iter()
        .map(|term| position_rows(view, term, ids, width))
        .try_fold(None, |sum, rows| Some(Some(add_rows(sum, rows?, width)?)))??;
    let name = format!("{}.positions", sum.output());
    let rows = positions.len() / width;
    let node = Node::fused("Embed", &[ids, words, &name], &[sum.output()]);
    let initializers = vec![(name, Tensor::from_f32(&[rows, width], &positions))];
    Some(Rewrite { initializers, ..Rewrite::new(index, node) })
}

fn flatten<'a>(view: &View<'a>, value: &'a str, terms: &mut Vec<&'a str>) {
    match view.written_by(value, "Add") {
        Some(add) if add.inputs.len() == 2 => {
            add.inputs.iter().for_each(|input| flatten(view, input, terms));
        }
        _ => terms.push(value),
    }
}

/// Of `Gather(table, ids)` over rows, with `ids` an input of the graph: table and ids.
fn token_lookup<'a>(view: &View<'a>, value: &str) -> Option<(&'a str, &'a str)> {
    let gather = view.written_by(value, "Gather").filter(|node| node.int("axis", 0) == 0)?;
    let (table, ids) = (gather.input(0)?, gather.input(1)?);
    let tensor = view.constant(table)?;
    let is_input = view.graph.inputs.iter().any(|i| i.name == ids && i.dtype == DType::I64);
    (is_input && tensor.shape().len() == 2 && tensor.dtype() == DType::F32).then_some((table, ids))
}

/// The rows that a term adds to positions 0, 1, 2 ...: one row where it adds the same everywhere.
fn position_rows(view: &View, term: &str, ids: &str, width: usize) -> Option<Vec<f32>> {
    const TOKENS: usize = 5;
    let on = |ids_value: i64| {
        let example = Tensor::from_i64(&[1, TOKENS], &[ids_value; TOKENS]);
        view.evaluate(term, &[(ids, &example)])?.to_f32()
    };
    let rows = on(0)?;
    if rows != on(1)? {
        return None;
    }
    // The same vector everywhere, given once or for each token: the one segment of a single text.
    if rows.chunks(width).all(|row| *row == rows[..width]) {
        return Some(rows[..width].to_vec());
    }
    let part = view.ancestors(term);
    let tables = part.initializers.values().filter(|tensor| {
        tensor.dtype() == DType::F32
            && tensor.shape().len() >= 2
            && tensor.shape().last() == Some(&width)
    });
    tables.filter_map(Tensor::to_f32).find_map(|table| {
        let starts = (0..table.len()).step_by(width);
        let start = starts.into_iter().find(|&start| table[start..].starts_with(&rows))?;
        (rows.len() == TOKENS * width).then(|| table[start..].to_vec())
    })
}

/// Adds rows to rows; a single row is added to all, else the shorter list bounds the positions.
fn add_rows(sum: Option<Vec<f32>>, rows: Vec<f32>, width: usize) -> Option<Vec<f32>> {
    let Some(sum) = sum else { return Some(rows) };
    let (long, short) = if sum.len() >= rows.len() { (sum, rows) } else { (rows, sum) };
    let bound = if short.len() == width { long.len() } else { short.len() };
    Some(long[..bound].iter().zip(short.iter().cycle()).map(|(a, b)| a + b).collect())
}
