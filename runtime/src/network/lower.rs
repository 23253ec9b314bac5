//! The stored graph to steps: each node to one kernel, each value to a slot.
//!
//! Shapes and types are checked here, once, as constants are in [`crate::operators`]. What passes can then
//! run without looking again.

use std::collections::BTreeMap;

use super::{Element, Kernel, Network, Step, Value};
use crate::arena::Slot;
use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::graph::{Dim, Graph, Node, ValueSpec};
use crate::operators::array::Array;
use crate::operators::grid::{Grid, Image};
use crate::operators::{Matrix, Operator};
use crate::tensor::DType;

/// Most elements of all values together, so that no sum of their bytes overflows.
const MOST_ELEMENTS: usize = isize::MAX as usize / 8;

impl Network {
    /// Compiles the bundle's graph for our kernels, for one element of its batch where its inputs leave open
    /// how many there are.
    ///
    /// # Errors
    /// [`Error::Graph`] for the first input whose shape is open or whose type is not f32, and the first node that
    /// has no kernel, contradicts its kernel, or does not keep the elements of a batch apart.
    pub(crate) fn lower(bundle: &Bundle, graph: &Graph) -> Result<Network> {
        let mut lowering = Lowering {
            bundle,
            opset: graph.opsets.get("").copied().unwrap_or_default(),
            batched: graph
                .inputs
                .iter()
                .any(|input| matches!(input.shape[..], [Dim::Symbol(_), ..])),
            place: 0,
            values: BTreeMap::new(),
            slots: Vec::new(),
            steps: Vec::new(),
            elements: 0,
        };
        let inputs =
            graph.inputs.iter().map(|input| lowering.input(input)).collect::<Result<_>>()?;
        for (place, node) in graph.nodes.iter().enumerate() {
            lowering.place = place;
            lowering.node(node)?;
        }
        lowering.finish(graph, inputs)
    }
}

struct Lowering<'a> {
    bundle: &'a Bundle,
    opset: i64,
    batched: bool,
    /// That of the node that is lowered.
    place: usize,
    values: BTreeMap<String, Value>,
    slots: Vec<Slot>,
    steps: Vec<Step>,
    /// Of all values.
    elements: usize,
}

impl Lowering<'_> {
    fn input(&mut self, input: &ValueSpec) -> Result<Value> {
        let extent = |(axis, dim): (usize, &Dim)| match dim {
            Dim::Symbol(_) if axis == 0 => Some(1),
            Dim::Symbol(_) => None,
            // Beside inputs of any batch, one of its own.
            Dim::Fixed(_) if axis == 0 && self.batched => None,
            Dim::Fixed(extent) => Some(*extent),
        };
        let shape = input.shape.iter().enumerate().map(extent).collect::<Option<Vec<usize>>>();
        match shape {
            Some(shape) if input.dtype == DType::F32 => {
                self.add(&input.name, &format!("input `{}`", input.name), shape, Element::F32)
            }
            _ => {
                let expected = "token ids, or f32 of which the outermost extent alone is open";
                Err(Error::graph(format!("input `{}`", input.name), expected, input.to_string()))
            }
        }
    }

    fn node(&mut self, node: &Node) -> Result<()> {
        if let Some(array) = Array::of(self.bundle, node, self.opset) {
            return self.array(node, array);
        }
        let operator = Operator::of(self.bundle, node)?.ok_or_else(|| {
            Error::graph(node.place(), "an operator that our kernels cover", "another")
        })?;
        self.fused(node, operator)
    }

    fn array(&mut self, node: &Node, array: Array) -> Result<()> {
        let values = self.reads(node, &array.values(node))?;
        if let Some(x) = values.iter().find(|x| x.element != Element::F32) {
            return Err(Error::graph(node.place(), "an f32 value", format!("u8 {:?}", x.shape)));
        }
        let shapes: Vec<&[usize]> = values.iter().map(|x| &x.shape[..]).collect();
        let shape = array.output(&shapes, self.batched).ok_or_else(|| {
            let expected = "values whose shapes belong together, each element of a batch by itself";
            Error::graph(node.place(), expected, format!("{shapes:?}"))
        })?;
        let mut values = values.into_iter();
        let x = values.next().ok_or_else(|| {
            Error::graph(node.place(), "a value that one of our kernels computed", "constants")
        })?;
        if array.is_view(&x.shape) {
            self.values.insert(node.output().to_owned(), Value { shape, ..x });
            return Ok(());
        }
        let out = self.add(node.output(), &node.place(), shape, Element::F32)?;
        self.step(Kernel::Array(array), x, values.next(), out);
        Ok(())
    }

    fn fused(&mut self, node: &Node, operator: Operator) -> Result<()> {
        let mut values = self.reads(node, &operator.values(node))?.into_iter();
        let refuse = |expected: String, got: String| Error::graph(node.place(), expected, got);
        let x = values.next().ok_or_else(|| refuse("an input".to_owned(), "none".to_owned()))?;
        let other = values.next();
        let width = x.shape.last().copied().unwrap_or(1);
        let wide = |expected: usize| match width == expected && x.shape.len() > 1 {
            true => Ok(()),
            false => Err(refuse(format!("rows {expected} wide"), format!("{:?}", x.shape))),
        };
        let like_x = |last: usize| {
            let outer = &x.shape[..x.shape.len().saturating_sub(1)];
            outer.iter().copied().chain([last]).collect::<Vec<usize>>()
        };
        let takes_u8 = match &operator {
            Operator::Grid(Grid::Conv(conv)) => conv.int8.is_some_and(|int8| int8.x.is_some()),
            _ => false,
        };
        let (shape, element) = match &operator {
            Operator::Grid(grid) => {
                let shape = grid.output(&x.shape).ok_or_else(|| {
                    refuse("an image that fits it".to_owned(), format!("{:?}", x.shape))
                })?;
                (shape, if grid.is_rounded() { Element::U8 } else { Element::F32 })
            }
            Operator::Linear(layer) => {
                wide(layer.k)?;
                (like_x(layer.n), Element::F32)
            }
            Operator::LayerNorm(norm) => {
                wide(norm.width)?;
                (x.shape.clone(), Element::F32)
            }
            Operator::Gelu | Operator::L2Normalize => {
                wide(width)?;
                (x.shape.clone(), Element::F32)
            }
            _ => return Err(refuse("an operator over signals".to_owned(), "another".to_owned())),
        };
        if x.element == Element::U8 && !takes_u8 {
            return Err(refuse("an f32 value".to_owned(), "u8".to_owned()));
        }
        // A factor a channel, or a residual like the result.
        let beside = match &operator {
            Operator::Grid(Grid::Scale) => {
                Some(Image::of(&x.shape).map_or(0, |image| image.batch * image.channels))
            }
            _ => other.as_ref().map(|_| shape.iter().product()),
        };
        let got = other.as_ref().map(Value::count);
        let like_result = matches!(operator, Operator::Grid(Grid::Scale))
            || other.as_ref().is_none_or(|other| other.shape == shape);
        if beside != got
            || !like_result
            || other.as_ref().is_some_and(|other| other.element != Element::F32)
        {
            let expected = format!("a residual of {shape:?}, or a factor a channel");
            return Err(refuse(expected, format!("{:?}", other.map(|other| other.shape))));
        }
        let matrix = Matrix { rows: x.count() / width.max(1), tokens: 1, width };
        let out = self.add(node.output(), &node.place(), shape, element)?;
        self.step(Kernel::Fused(Box::new(operator), matrix), x, other, out);
        Ok(())
    }

    /// The values that a node reads next.
    fn reads(&self, node: &Node, names: &[&str]) -> Result<Vec<Value>> {
        let read = |name: &&str| {
            self.values.get(*name).cloned().ok_or_else(|| {
                let expected = "a value that one of our kernels computed";
                Error::graph(node.place(), expected, format!("`{name}`"))
            })
        };
        names.iter().map(read).collect()
    }

    /// A new value, written by the next step.
    fn add(
        &mut self,
        name: &str,
        place: &str,
        shape: Vec<usize>,
        element: Element,
    ) -> Result<Value> {
        let product = |count: usize, &extent: &usize| count.checked_mul(extent);
        let count = shape.iter().try_fold(1, product).filter(|&count| count > 0);
        let all = count.and_then(|count| self.elements.checked_add(count));
        let (Some(count), Some(all @ ..=MOST_ELEMENTS)) = (count, all) else {
            let expected = format!("one element, and at most {MOST_ELEMENTS} in all values");
            return Err(Error::graph(place, expected, format!("the shape {shape:?}")));
        };
        self.elements = all;
        let length = match element {
            Element::F32 => count,
            Element::U8 => count.div_ceil(size_of::<f32>()),
        };
        let written = self.steps.len();
        let value = Value { slot: self.slots.len(), shape, element };
        self.slots.push(Slot { length, live: (written, written) });
        self.values.insert(name.to_owned(), value.clone());
        Ok(value)
    }

    fn step(&mut self, kernel: Kernel, x: Value, other: Option<Value>, out: Value) {
        for read in std::iter::once(&x).chain(&other) {
            self.slots[read.slot].live.1 = self.steps.len();
        }
        self.steps.push(Step { node: self.place, kernel, x, other, out });
    }

    fn finish(mut self, graph: &Graph, inputs: Vec<Value>) -> Result<Network> {
        let end = self.steps.len();
        let mut outputs = Vec::new();
        for output in &graph.outputs {
            let value = self.values.get(&output.name);
            let value = value.filter(|value| value.element == Element::F32).ok_or_else(|| {
                Error::graph(format!("output `{}`", output.name), "a computed f32 value", "another")
            })?;
            self.slots[value.slot].live.1 = end;
            outputs.push(value.clone());
        }
        Ok(Network { inputs, outputs, slots: self.slots, steps: self.steps, batched: self.batched })
    }
}
