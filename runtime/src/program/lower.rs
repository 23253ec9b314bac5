//! The stored graph to steps: each node to one kernel, each value to a slot.
//!
//! Widths and rows that fit are checked here, once, as constants are in [`crate::operators`]. What
//! passes can then run without looking again.

use std::collections::BTreeMap;

use super::{Program, Rows, Slot, Step};
use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::graph::{Graph, Node, ValueSpec};
use crate::operators::{Attention, Operator};
use crate::tensor::DType;

impl Program {
    /// Compiles the bundle's graph for our kernels.
    ///
    /// # Errors
    /// [`Error::Graph`] for the first node that has no kernel, or contradicts its kernel.
    pub(crate) fn lower(bundle: &Bundle, graph: &Graph) -> Result<Program> {
        let mut lowering = Lowering {
            bundle,
            graph,
            place: 0,
            values: BTreeMap::new(),
            slots: Vec::new(),
            steps: Vec::new(),
            ids: None,
            mask: None,
            positions: usize::MAX,
        };
        for (place, node) in graph.nodes.iter().enumerate() {
            lowering.place = place;
            lowering.node(node)?;
        }
        lowering.finish()
    }
}

struct Lowering<'a> {
    bundle: &'a Bundle,
    graph: &'a Graph,
    /// That of the node that is lowered.
    place: usize,
    values: BTreeMap<String, usize>,
    slots: Vec<Slot>,
    steps: Vec<Step>,
    ids: Option<String>,
    mask: Option<String>,
    positions: usize,
}

impl Lowering<'_> {
    fn node(&mut self, node: &Node) -> Result<()> {
        let operator = Operator::of(self.bundle, node)?.ok_or_else(|| {
            Error::graph(node.place(), "an operator that our kernels cover", "another")
        })?;
        let values = operator.values(node);
        let first = values.first().copied().unwrap_or_default();
        if let Operator::Embed(embedding) = &operator {
            let ids = self.sequence_input(node, first)?;
            self.ids = Some(same_input(node, self.ids.take(), ids)?);
            self.positions = self.positions.min(embedding.longest);
            let width = embedding.words.width;
            self.step(node, operator, None, None, (Rows::Tokens, width));
            return Ok(());
        }
        if matches!(operator, Operator::Gather(_)) {
            return Err(Error::graph(node.place(), "a lookup of token ids", "another lookup"));
        }
        if matches!(operator, Operator::Grid(_)) {
            return Err(Error::graph(node.place(), "an operator over tokens", "one over images"));
        }
        if matches!(operator, Operator::FirstToken) && self.asks_one_query(first) {
            let slot = self.read(node, first)?;
            self.slots[slot].rows = Rows::One;
            self.values.insert(node.output().to_owned(), slot);
            return Ok(());
        }
        let x = self.read(node, first)?;
        let Slot { rows, width, .. } = self.slots[x];
        let (out_rows, out_width) = self.shape(node, &operator, rows, width)?;
        let mut residual = None;
        match (&operator, values.get(1)) {
            (Operator::Attention(_) | Operator::MeanPool, _) => self.set_mask(node, &values)?,
            (_, Some(name)) => {
                let slot = self.read(node, name)?;
                let Slot { rows, width, .. } = self.slots[slot];
                if (rows, width) != (out_rows, out_width) {
                    let expected = format!("a residual like the output, {out_width} wide");
                    return Err(Error::graph(node.place(), expected, format!("{width} wide")));
                }
                residual = Some(slot);
            }
            (_, None) => {}
        }
        self.step(node, operator, Some(x), residual, (out_rows, out_width));
        Ok(())
    }

    /// Rows and width of the result, from those of the first input.
    fn shape(
        &self,
        node: &Node,
        operator: &Operator,
        rows: Rows,
        width: usize,
    ) -> Result<(Rows, usize)> {
        let refuse = |expected: String, got: String| Error::graph(node.place(), expected, got);
        let wide = |expected: usize| match width == expected {
            true => Ok(()),
            false => Err(refuse(format!("an input {expected} wide"), format!("{width}"))),
        };
        let tokens = || match rows {
            Rows::Tokens => Ok(()),
            Rows::One => Err(refuse("a row for each token".to_owned(), "a single row".to_owned())),
        };
        match operator {
            Operator::LayerNorm(norm) => wide(norm.width).map(|()| (rows, width)),
            Operator::Linear(layer) => wide(layer.k).map(|()| (rows, layer.n)),
            Operator::Attention(Attention { heads, .. }) => {
                tokens()?;
                match width.is_multiple_of(heads.saturating_mul(3)) {
                    true => Ok((Rows::Tokens, width / 3)),
                    false => Err(refuse(
                        "3 · heads · head width columns for each token".to_owned(),
                        format!("{width} columns, {heads} heads"),
                    )),
                }
            }
            Operator::MeanPool | Operator::FirstToken => tokens().map(|()| (Rows::One, width)),
            _ => Ok((rows, width)),
        }
    }

    /// Whether `value` is what an attention wrote for this reader alone, so that it needs its first row only.
    fn asks_one_query(&self, value: &str) -> bool {
        let slot = self.values.get(value);
        let attends = |step: &Step| {
            Some(&step.out) == slot && matches!(step.operator, Operator::Attention(_))
        };
        self.steps.iter().any(attends) && self.graph.uses(value) == 1
    }

    fn step(
        &mut self,
        node: &Node,
        operator: Operator,
        x: Option<usize>,
        residual: Option<usize>,
        (rows, width): (Rows, usize),
    ) {
        let (step, out) = (self.steps.len(), self.slots.len());
        self.slots.push(Slot { rows, width, live: (step, step) });
        self.values.insert(node.output().to_owned(), out);
        self.steps.push(Step { node: self.place, operator, x, residual, out });
    }

    fn set_mask(&mut self, node: &Node, values: &[&str]) -> Result<()> {
        let mask = self.sequence_input(node, values.get(1).copied().unwrap_or_default())?;
        self.mask = Some(same_input(node, self.mask.take(), mask)?);
        Ok(())
    }

    /// `name`, where it is an i64 input `[batch, sequence]` of the graph.
    fn sequence_input(&self, node: &Node, name: &str) -> Result<String> {
        let fits = |input: &&ValueSpec| {
            input.name == name && input.dtype == DType::I64 && input.shape.len() == 2
        };
        match self.graph.inputs.iter().find(fits) {
            Some(input) => Ok(input.name.clone()),
            None => {
                let expected = "an i64 input [batch, sequence] of the graph";
                Err(Error::graph(node.place(), expected, format!("`{name}`")))
            }
        }
    }

    fn read(&mut self, node: &Node, name: &str) -> Result<usize> {
        let slot = *self.values.get(name).ok_or_else(|| {
            let expected = "a value that one of our kernels computed";
            Error::graph(node.place(), expected, format!("`{name}`"))
        })?;
        self.slots[slot].live.1 = self.steps.len();
        Ok(slot)
    }

    fn finish(mut self) -> Result<Program> {
        let place = || format!("graph `{}`", self.graph.name);
        let ids = self
            .ids
            .take()
            .ok_or_else(|| Error::graph(place(), "a lookup of token ids", "none"))?;
        let unread =
            |input: &&ValueSpec| input.name != ids && self.mask.as_ref() != Some(&input.name);
        if let Some(input) = self.graph.inputs.iter().find(unread) {
            let got = format!("`{}` too", input.name);
            return Err(Error::graph(place(), "token ids and a mask as inputs", got));
        }
        let end = self.steps.len();
        let mut outputs = Vec::new();
        for output in &self.graph.outputs {
            let slot = *self.values.get(&output.name).ok_or_else(|| {
                Error::graph(format!("output `{}`", output.name), "a computed value", "another")
            })?;
            self.slots[slot].live.1 = end;
            outputs.push(slot);
        }
        Ok(Program {
            slots: self.slots,
            steps: self.steps,
            ids,
            mask: self.mask,
            positions: self.positions,
            outputs,
        })
    }
}

fn same_input(node: &Node, known: Option<String>, name: String) -> Result<String> {
    match known {
        Some(known) if known != name => {
            Err(Error::graph(node.place(), format!("the input `{known}`"), format!("`{name}`")))
        }
        _ => Ok(name),
    }
}
