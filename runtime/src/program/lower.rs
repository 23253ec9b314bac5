//! The stored graph to steps: each node to one kernel, each value to a slot.
//!
//! Everything a kernel relies on is checked here, once: constants of the right type and extent,
//! widths that fit, rows that fit. What passes can then run without looking again.

use std::collections::BTreeMap;

use super::{Program, Rows, Slot, Step, Weights, Words};
use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::graph::{Graph, Node, ValueSpec};
use crate::kernels::{Activation, Heads, PANEL};
use crate::manifest::Extent;
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
            values: BTreeMap::new(),
            slots: Vec::new(),
            steps: Vec::new(),
            ids: None,
            mask: None,
            positions: usize::MAX,
        };
        for node in &graph.nodes {
            lowering.node(node)?;
        }
        lowering.finish()
    }
}

struct Lowering<'a> {
    bundle: &'a Bundle,
    graph: &'a Graph,
    values: BTreeMap<String, usize>,
    slots: Vec<Slot>,
    steps: Vec<Step>,
    ids: Option<String>,
    mask: Option<String>,
    positions: usize,
}

impl Lowering<'_> {
    fn node(&mut self, node: &Node) -> Result<()> {
        match (node.is_onnx(), node.op.as_str()) {
            (false, "Embed" | "EmbedInt8") => self.embed(node),
            (true, "LayerNormalization") => self.layer_norm(node),
            (false, "LinearF32" | "LinearInt8") => self.linear(node),
            (false, "Attention") => self.attention(node),
            (false, "Gelu") => self.elementwise(node, |x, out| Step::Gelu { x, out }),
            (false, "L2Normalize") => self.elementwise(node, |x, out| Step::L2Normalize { x, out }),
            (false, "MeanPool") => {
                self.set_mask(node, 1)?;
                self.pool(node, |hidden, out| Step::MeanPool { hidden, out })
            }
            (false, "FirstToken") => {
                self.pool(node, |hidden, out| Step::FirstToken { hidden, out })
            }
            _ => Err(Error::graph(node.place(), "an operator that our kernels cover", "another")),
        }
    }

    fn embed(&mut self, node: &Node) -> Result<()> {
        let ids = self.sequence_input(node, 0)?;
        self.ids = Some(same_input(node, self.ids.take(), ids)?);
        let int8 = node.op == "EmbedInt8";
        let (rows, shape) = self.constant(node, 1, if int8 { DType::I8 } else { DType::F32 })?;
        let [vocabulary, width] = shape[..] else {
            return Err(Error::graph(
                node.place(),
                "words [vocabulary, width]",
                format!("{shape:?}"),
            ));
        };
        let words = if int8 {
            Words::Int8 { rows, scales: self.vector(node, 2, vocabulary)? }
        } else {
            Words::F32(rows)
        };
        let (positions, shape) = self.constant(node, if int8 { 3 } else { 2 }, DType::F32)?;
        let fits = vocabulary > 0 && width > 0 && shape.len() == 2 && shape[0] > 0;
        if !fits || shape[1] != width {
            return Err(Error::graph(
                node.place(),
                format!("positions [n, {width}]"),
                format!("{shape:?}"),
            ));
        }
        self.positions = self.positions.min(shape[0]);
        let out = self.write(node, Rows::Tokens, width);
        self.steps.push(Step::Embed { words, positions, width, out });
        Ok(())
    }

    fn layer_norm(&mut self, node: &Node) -> Result<()> {
        let x = self.read(node, 0)?;
        let Slot { rows, width, .. } = self.slots[x];
        if node.int("axis", -1) != -1 {
            return Err(Error::graph(node.place(), "normalization over the last axis", "another"));
        }
        let (gamma, beta) = (self.vector(node, 1, width)?, self.vector(node, 2, width)?);
        let epsilon = node.float("epsilon", 1e-5);
        let out = self.write(node, rows, width);
        self.steps.push(Step::LayerNorm { x, gamma, beta, epsilon, out });
        Ok(())
    }

    fn linear(&mut self, node: &Node) -> Result<()> {
        let x = self.read(node, 0)?;
        let Slot { rows, width, .. } = self.slots[x];
        let (weights, next) = self.weights(node, width)?;
        let residual = node.input(next).map(|_| self.read(node, next)).transpose()?;
        if let Some(other) = residual.map(|slot| self.slots[slot])
            && (other.rows, other.width) != (rows, weights.n)
        {
            let expected = format!("a residual like the output, {} wide", weights.n);
            return Err(Error::graph(node.place(), expected, format!("{} wide", other.width)));
        }
        let activation = activation(node)?;
        let out = self.write(node, rows, weights.n);
        self.steps.push(Step::Linear { x, weights, activation, residual, out });
        Ok(())
    }

    /// The packed weights of a linear layer, and the index of the input after them.
    fn weights(&self, node: &Node, width: usize) -> Result<(Weights, usize)> {
        let extent = |name: &str| usize::try_from(node.int(name, 0)).unwrap_or(0);
        let (k, n) = (extent("k"), extent("n"));
        if k != width || n == 0 {
            let expected = format!("k = {width} and n > 0");
            return Err(Error::graph(node.place(), expected, format!("k = {k}, n = {n}")));
        }
        let count = n.div_ceil(PANEL);
        let columns = count * PANEL;
        let shaped = |index: usize, dtype: DType, expected: &[usize]| {
            let (extent, shape) = self.constant(node, index, dtype)?;
            if shape != expected {
                let expected = format!("input {index} of {dtype} {expected:?}");
                return Err(Error::graph(node.place(), expected, format!("{shape:?}")));
            }
            Ok(extent)
        };
        if node.op == "LinearInt8" {
            let panels = shaped(1, DType::I8, &[count, k.div_ceil(4), PANEL, 4])?;
            let sums = shaped(2, DType::I32, &[columns])?;
            let scales = shaped(3, DType::F32, &[columns])?;
            let bias = shaped(4, DType::F32, &[columns])?;
            Ok((Weights { k, n, panels, bias, int8: Some((sums, scales)) }, 5))
        } else {
            let panels = shaped(1, DType::F32, &[count, k, PANEL])?;
            let bias = shaped(2, DType::F32, &[columns])?;
            Ok((Weights { k, n, panels, bias, int8: None }, 3))
        }
    }

    fn attention(&mut self, node: &Node) -> Result<()> {
        let qkv = self.read(node, 0)?;
        self.set_mask(node, 1)?;
        let Slot { rows, width, .. } = self.slots[qkv];
        let heads = usize::try_from(node.int("heads", 0)).unwrap_or(0);
        if heads == 0 || rows != Rows::Tokens || !width.is_multiple_of(heads.saturating_mul(3)) {
            let expected = "3 · heads · head width columns for each token";
            return Err(Error::graph(
                node.place(),
                expected,
                format!("{width} columns, {heads} heads"),
            ));
        }
        let heads = Heads { heads, head_width: width / (3 * heads) };
        let out = self.write(node, Rows::Tokens, heads.hidden());
        self.steps.push(Step::Attention { qkv, heads, out });
        Ok(())
    }

    fn elementwise(&mut self, node: &Node, step: fn(usize, usize) -> Step) -> Result<()> {
        let x = self.read(node, 0)?;
        let Slot { rows, width, .. } = self.slots[x];
        let out = self.write(node, rows, width);
        self.steps.push(step(x, out));
        Ok(())
    }

    fn pool(&mut self, node: &Node, step: fn(usize, usize) -> Step) -> Result<()> {
        let hidden = self.read(node, 0)?;
        let Slot { rows, width, .. } = self.slots[hidden];
        if rows != Rows::Tokens {
            return Err(Error::graph(node.place(), "a row for each token", "a single row"));
        }
        let out = self.write(node, Rows::One, width);
        self.steps.push(step(hidden, out));
        Ok(())
    }

    fn set_mask(&mut self, node: &Node, index: usize) -> Result<()> {
        let mask = self.sequence_input(node, index)?;
        self.mask = Some(same_input(node, self.mask.take(), mask)?);
        Ok(())
    }

    /// The name of an i64 input `[batch, sequence]` of the graph.
    fn sequence_input(&self, node: &Node, index: usize) -> Result<String> {
        let name = node.input(index).unwrap_or_default();
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

    fn constant(&self, node: &Node, index: usize, dtype: DType) -> Result<(Extent, Vec<usize>)> {
        let (extent, shape) = self.bundle.constant(node.input(index).unwrap_or_default(), dtype)?;
        Ok((extent, shape.to_vec()))
    }

    /// An f32 constant of `width` elements.
    fn vector(&self, node: &Node, index: usize, width: usize) -> Result<Extent> {
        let (extent, shape) = self.constant(node, index, DType::F32)?;
        if extent.bytes != (width * size_of::<f32>()) as u64 {
            return Err(Error::graph(
                node.place(),
                format!("{width} elements"),
                format!("{shape:?}"),
            ));
        }
        Ok(extent)
    }

    fn read(&mut self, node: &Node, index: usize) -> Result<usize> {
        let name = node.input(index).unwrap_or_default();
        let slot = *self.values.get(name).ok_or_else(|| {
            let expected = "a value that one of our kernels computed";
            Error::graph(node.place(), expected, format!("`{name}`"))
        })?;
        self.slots[slot].live.1 = self.steps.len();
        Ok(slot)
    }

    fn write(&mut self, node: &Node, rows: Rows, width: usize) -> usize {
        let step = self.steps.len();
        self.slots.push(Slot { rows, width, live: (step, step) });
        self.values.insert(node.output().to_owned(), self.slots.len() - 1);
        self.slots.len() - 1
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

fn activation(node: &Node) -> Result<Activation> {
    match node.string("activation", "none") {
        "none" => Ok(Activation::None),
        "gelu" => Ok(Activation::Gelu),
        "relu" => Ok(Activation::Relu),
        "tanh" => Ok(Activation::Tanh),
        other => Err(Error::graph(node.place(), "activation none, gelu, relu or tanh", other)),
    }
}
