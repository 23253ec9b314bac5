//! The lookup of token vectors and the addition of positions become `dram.Embed`:
//! `hidden[i] = words[ids[i]] + positions[i]`, with the one token-type vector of single texts added
//! to every position.
//!
//! Recognized: sums of `Gather(table, ids)` with values that depend on the shape of `ids` only -
//! found by computing them for two different texts of five tokens. Refused: positions that are not
//! consecutive rows of a constant table, and token types that the caller gives.

use crate::graph::{Graph, Node};
use crate::optimize::marks;
use crate::optimize::pattern::{Rewrite, View, rewrite_all};
use crate::tensor::{DType, Tensor};

pub(super) fn run(graph: &mut Graph) -> usize {
    rewrite_all(graph, find)
}

fn find(view: &View, index: usize) -> Option<Rewrite> {
    let sum = view.node(index);
    let mut terms = Vec::new();
    flatten(view, sum.is("Add").then(|| sum.output())?, &mut terms);
    let lookup = terms.iter().position(|term| token_lookup(view, term).is_some())?;
    let lookup = terms.remove(lookup);
    let (words, ids) = token_lookup(view, lookup)?;
    let width = *view.constant(words)?.shape().last().filter(|&&width| width > 0)?;
    let positions = terms
        .into_iter()
        .map(|term| position_rows(view, term, width))
        .try_fold(None, |sum, rows| Some(Some(add_rows(sum, rows?, width)?)))??;
    let name = format!("{}.positions", sum.output());
    // One row for all tokens is no position: a table of it would end after the first.
    let rows = Some(positions.len() / width).filter(|&rows| rows > 1)?;
    let node = Node::fused("Embed", &[ids, words, &name], &[sum.output()]);
    let node = marks::carry(view.writer(lookup)?, node);
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
fn position_rows(view: &View, term: &str, width: usize) -> Option<Vec<f32>> {
    const TOKENS: usize = 5;
    // Token types that the caller gives are an input of their own: none may matter.
    let on = |value: i64| {
        let example = Tensor::from_i64(&[1, TOKENS], &[value; TOKENS]);
        let integers = view.graph.inputs.iter().filter(|input| input.dtype == DType::I64);
        let given: Vec<_> = integers.map(|input| (input.name.as_str(), &example)).collect();
        view.evaluate(term, &given)
    };
    let rows = on(0)?;
    // Rows of the width of words, for all texts alike: no single numbers, no column.
    let is_row = match rows.shape() {
        [width_of_row] => *width_of_row == width,
        [ones @ .., tokens, width_of_row] => {
            *width_of_row == width
                && matches!(*tokens, 1 | TOKENS)
                && ones.iter().all(|&extent| extent == 1)
        }
        [] => false,
    };
    if !is_row || on(1)? != rows {
        return None;
    }
    let rows = rows.to_f32()?;
    // The same vector everywhere, given once or for each token: the one segment of a single text.
    if rows.chunks(width).all(|row| *row == rows[..width]) {
        return Some(rows[..width].to_vec());
    }
    let part = view.graph.ancestors(term);
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

#[cfg(test)]
mod tests {
    use super::super::pattern::by_hand::{after, graph};
    use super::*;

    fn table(rows: usize, start: f32) -> Tensor {
        let values: Vec<f32> = (0..rows * 2).map(|value| value as f32 + start).collect();
        Tensor::from_f32(&[rows, 2], &values)
    }

    /// Words, the first rows of a position table from `offset` on, and one token-type vector.
    fn spelled_out(offset: i64) -> Graph {
        let nodes = vec![
            Node::new("Gather", &["words", "input_ids"], &["word"]),
            Node::new("Shape", &["input_ids"], &["shape"]),
            Node::new("Slice", &["shape", "one", "two", "zero"], &["length"]),
            Node::new("Add", &["length", "offset"], &["end"]),
            Node::new("Slice", &["places", "offset", "end", "zero"], &["position"]),
            Node::new("Add", &["word", "position"], &["sum"]),
            Node::new("Add", &["kind", "sum"], &["y"]),
        ];
        let integer = |value| Tensor::from_i64(&[1], &[value]);
        let constants = vec![
            ("words", table(7, 100.0)),
            ("places", table(20, 0.0)),
            ("kind", Tensor::from_f32(&[2], &[1000.0, 2000.0])),
            ("zero", integer(0)),
            ("one", integer(1)),
            ("two", integer(2)),
            ("offset", integer(offset)),
        ];
        graph(nodes, constants)
    }

    #[test]
    fn the_rows_for_position_zero_onwards_are_found_and_the_type_is_added_to_them() {
        for offset in [0, 2] {
            let (operators, graph) = after(run, spelled_out(offset));
            assert_eq!(operators, ["Embed"], "offset {offset}");
            let positions = &graph.initializers["y.positions"];
            assert_eq!(positions.shape(), [20 - offset as usize, 2]);
            let first = positions.to_f32().unwrap()[..2].to_vec();
            let start = 2.0 * offset as f32;
            assert_eq!(first, [start + 1000.0, start + 1.0 + 2000.0], "offset {offset}");
        }
    }

    #[test]
    fn a_term_that_depends_on_the_text_or_on_given_types_is_no_position() {
        for input in ["input_ids", "attention_mask"] {
            let nodes = vec![
                Node::new("Gather", &["words", "input_ids"], &["word"]),
                Node::new("Gather", &["other", input], &["position"]),
                Node::new("Add", &["word", "position"], &["y"]),
            ];
            let constants = vec![("words", table(7, 0.0)), ("other", table(7, 50.0))];
            assert_eq!(after(run, graph(nodes, constants)).0.len(), 3, "{input}");
        }
    }

    #[test]
    fn a_term_that_is_no_row_or_the_same_for_all_tokens_is_no_position() {
        for shape in [&[][..], &[1], &[5, 1], &[2], &[1, 1, 2]] {
            let nodes = vec![
                Node::new("Gather", &["words", "input_ids"], &["word"]),
                Node::new("Add", &["word", "term"], &["y"]),
            ];
            let term = Tensor::from_f32(shape, &vec![0.5; shape.iter().product()]);
            let constants = vec![("words", table(7, 0.0)), ("term", term)];
            assert_eq!(after(run, graph(nodes, constants)).0, ["Gather", "Add"], "{shape:?}");
        }
    }
}
