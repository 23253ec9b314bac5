//! Steps executed: one kernel call each.

use std::ops::Range;

use super::{Element, Kernel, Needs, Network, Step, Value};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::operators::grid::{Results, Values};
use crate::operators::{Machine, Operator, Scratch};
use crate::profile::Profile;
use crate::tensor::{DType, Tensor};

/// Buffers for a run, allocated once.
#[derive(Debug)]
pub(crate) struct Workspace {
    arena: Vec<f32>,
    /// Where each slot begins in the arena.
    offsets: Vec<usize>,
    scratch: Scratch,
}

impl Workspace {
    pub(crate) fn new(needs: &Needs) -> Workspace {
        Workspace {
            arena: vec![0.0; needs.arena],
            offsets: needs.offsets.clone(),
            scratch: Scratch::new(needs.scratch),
        }
    }
}

impl Network {
    /// Runs on inputs of the types and shapes that the graph declares, one element of the batch after the
    /// other; gives the graph's outputs.
    ///
    /// # Errors
    /// [`Error::Input`] where the inputs are batches of different lengths.
    pub(crate) fn run(
        &self,
        machine: &Machine,
        workspace: &mut Workspace,
        inputs: &[(&str, Tensor)],
    ) -> Result<Vec<Tensor>> {
        let batch = self.batch(inputs)?;
        let bytes = |value: &Value| Vec::with_capacity(batch * value.count() * size_of::<f32>());
        let mut outputs: Vec<Vec<u8>> = self.outputs.iter().map(bytes).collect();
        for index in 0..batch {
            self.take(inputs, index, workspace);
            self.steps.iter().for_each(|step| self.step(step, machine, workspace));
            for (value, output) in self.outputs.iter().zip(&mut outputs) {
                let range = self.range(value, &workspace.offsets);
                output.extend_from_slice(bytemuck::cast_slice(&workspace.arena[range]));
            }
        }
        let tensor = |(value, bytes): (&Value, Vec<u8>)| {
            let mut shape = value.shape.clone();
            if let (true, Some(extent)) = (self.batched, shape.first_mut()) {
                *extent = batch;
            }
            Tensor::from_bytes(DType::F32, &shape, bytes)
        };
        self.outputs.iter().zip(outputs).map(tensor).collect()
    }

    /// As [`Network::run`], but notes the steps in `profile`, by the nodes of `graph`, which it was made of, and
    /// gives no outputs.
    ///
    /// # Errors
    /// As [`Network::run`].
    pub(crate) fn profile(
        &self,
        machine: &Machine,
        workspace: &mut Workspace,
        inputs: &[(&str, Tensor)],
        graph: &Graph,
        profile: &mut Profile,
    ) -> Result<()> {
        for index in 0..self.batch(inputs)? {
            self.take(inputs, index, workspace);
            for step in &self.steps {
                let compute = || self.step(step, machine, workspace);
                profile.node(&graph.nodes[step.node], step.work(), compute);
            }
        }
        Ok(())
    }

    /// Puts element `index` of the batch into `workspace`.
    fn take(&self, inputs: &[(&str, Tensor)], index: usize, workspace: &mut Workspace) {
        for (value, (_, tensor)) in self.inputs.iter().zip(inputs) {
            let range = self.range(value, &workspace.offsets);
            let target: &mut [u8] = bytemuck::cast_slice_mut(&mut workspace.arena[range]);
            let length = target.len();
            target.copy_from_slice(&tensor.bytes()[index * length..][..length]);
        }
    }

    /// The elements of the batch that all inputs are.
    fn batch(&self, inputs: &[(&str, Tensor)]) -> Result<usize> {
        let Some((first, tensor)) = inputs.first().filter(|_| self.batched) else { return Ok(1) };
        let batch = tensor.shape()[0];
        match inputs.iter().find(|(_, tensor)| tensor.shape()[0] != batch) {
            None => Ok(batch),
            Some((name, tensor)) => Err(Error::Input {
                name: (*name).to_owned(),
                expected: format!("a batch of {batch}, as `{first}`"),
                got: format!("{:?}", tensor.shape()),
            }),
        }
    }

    fn step(&self, step: &Step, machine: &Machine, workspace: &mut Workspace) {
        let Workspace { arena, offsets, scratch } = workspace;
        let written = self.range(&step.out, offsets);
        let (before, rest) = arena.split_at_mut(written.start);
        let (out, after) = rest.split_at_mut(written.len());
        // What is read lies wholly on one side: slots that live at the same time do not overlap.
        let floats = |value: &Value| {
            let range = self.range(value, offsets);
            match range.end <= written.start {
                true => &before[range],
                false => &after[range.start - written.end..range.end - written.end],
            }
        };
        let x = floats(&step.x);
        let other = step.other.as_ref().map(|other| (floats(other), &other.shape[..]));
        match &step.kernel {
            Kernel::Array(array) => {
                let values: Vec<_> = std::iter::once((x, &step.x.shape[..])).chain(other).collect();
                machine.array(array, &values, (out, &step.out.shape));
            }
            Kernel::Fused(operator, matrix) => {
                let other = other.map(|(other, _)| other);
                match &**operator {
                    Operator::Grid(grid) => {
                        let x = match step.x.element {
                            Element::F32 => Values::F32(x),
                            Element::U8 => Values::U8(&bytemuck::cast_slice(x)[..step.x.count()]),
                        };
                        let out = match step.out.element {
                            Element::F32 => Results::F32(out),
                            Element::U8 => {
                                let out = bytemuck::cast_slice_mut(out);
                                Results::U8(&mut out[..step.out.count()])
                            }
                        };
                        machine.grid(grid, (x, &step.x.shape), other, scratch, out);
                    }
                    Operator::Linear(layer) => machine.linear(layer, x, other, scratch, out),
                    Operator::LayerNorm(norm) => machine.layer_norm(norm, x, out),
                    Operator::Gelu => machine.gelu(matrix.width, x, out),
                    Operator::L2Normalize => machine.l2_normalize(matrix.width, x, out),
                    _ => unreachable!("lowering admits no operator over tokens"),
                }
            }
        }
    }

    /// The floats of a value in the arena.
    fn range(&self, value: &Value, offsets: &[usize]) -> Range<usize> {
        let start = offsets[value.slot];
        start..start + self.slots[value.slot].length
    }
}
