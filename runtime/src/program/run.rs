//! Steps executed: one kernel call each, its rows shared out over the threads.

use std::ops::Range;

use super::{Needs, Program, Rows, Step};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::kernels::NoEmbedding;
use crate::operators::{Machine, Operator, Scratch};
use crate::profile::Profile;
use crate::tensor::Tensor;

/// Buffers for a run, allocated once.
#[derive(Debug)]
pub(crate) struct Workspace {
    arena: Vec<f32>,
    /// Where each slot begins in the arena.
    offsets: Vec<usize>,
    scratch: Scratch,
    ids: Vec<u32>,
    mask: Vec<u8>,
}

impl Workspace {
    pub(crate) fn new(needs: &Needs) -> Workspace {
        Workspace {
            arena: vec![0.0; needs.arena],
            offsets: needs.offsets.clone(),
            scratch: Scratch::new(needs.scratch),
            ids: vec![0; needs.tokens],
            mask: vec![0; needs.tokens],
        }
    }
}

impl Program {
    /// Runs on one sequence; `ids` and `mask` are as long as it, and not longer than the workspace was
    /// made for. Gives the graph's outputs, with a leading batch of one.
    ///
    /// # Errors
    /// [`Error::Input`] where an id has no row in the vocabulary.
    pub(crate) fn run(
        &self,
        machine: &Machine,
        workspace: &mut Workspace,
        ids: &[i64],
        mask: &[i64],
    ) -> Result<Vec<Tensor>> {
        let run = self.begin(machine, workspace, ids, mask);
        for step in &self.steps {
            run.step(step, workspace).map_err(|error| self.no_embedding(error, ids))?;
        }
        Ok(self.outputs.iter().map(|&slot| run.output(slot, workspace)).collect())
    }

    /// As [`Program::run`], but notes the steps in `profile`, by the nodes of `graph`, which it was made of, and
    /// gives no outputs.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub(crate) fn profile(
        &self,
        machine: &Machine,
        workspace: &mut Workspace,
        (ids, mask): (&[i64], &[i64]),
        graph: &Graph,
        profile: &mut Profile,
    ) -> Result<()> {
        let run = self.begin(machine, workspace, ids, mask);
        for step in &self.steps {
            let work = self.work_of(step, ids.len());
            let done = profile.node(&graph.nodes[step.node], work, || run.step(step, workspace));
            done.map_err(|error| self.no_embedding(error, ids))?;
        }
        Ok(())
    }

    /// As [`Program::run`], but ends at the first of the outputs `exits`, which are written in this order, that
    /// `enough` is satisfied with, or after the first output. Gives the output that it ended with.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub(crate) fn run_until(
        &self,
        machine: &Machine,
        workspace: &mut Workspace,
        ids: &[i64],
        exits: &[usize],
        enough: &dyn Fn(&Tensor) -> bool,
    ) -> Result<(usize, Tensor)> {
        let run = self.begin(machine, workspace, ids, &vec![1; ids.len()]);
        let mut done = 0;
        for &output in exits.iter().chain(&[0]) {
            let end = self.written_by(output) + 1;
            for step in self.steps.get(done..end).unwrap_or_default() {
                run.step(step, workspace).map_err(|error| self.no_embedding(error, ids))?;
            }
            done = done.max(end);
            let answer = run.output(self.outputs[output], workspace);
            if output == 0 || enough(&answer) {
                return Ok((output, answer));
            }
        }
        unreachable!("the first output ends the walk")
    }

    /// Puts the inputs of a run into `workspace`.
    fn begin<'a>(
        &'a self,
        machine: &'a Machine,
        workspace: &mut Workspace,
        ids: &[i64],
        mask: &[i64],
    ) -> Run<'a> {
        for (target, &id) in workspace.ids.iter_mut().zip(ids) {
            // Out of range for the table is out of range for `u32` too, or found by the lookup.
            *target = u32::try_from(id).unwrap_or(u32::MAX);
        }
        for (target, &keep) in workspace.mask.iter_mut().zip(mask) {
            *target = u8::from(keep != 0);
        }
        Run { program: self, machine, tokens: ids.len() }
    }

    fn no_embedding(&self, error: NoEmbedding, ids: &[i64]) -> Error {
        let (expected, got) = match error {
            NoEmbedding::Word { place, .. } => (
                "ids within the vocabulary".to_owned(),
                format!("{} at position {place}", ids[place]),
            ),
            NoEmbedding::Segment { place, segment } => {
                ("the first segment".to_owned(), format!("segment {segment} at position {place}"))
            }
            NoEmbedding::Position { place } => {
                (format!("at most {} tokens", self.positions), format!("position {place}"))
            }
        };
        Error::Input { name: self.ids.clone(), expected, got }
    }
}

struct Run<'a> {
    program: &'a Program,
    machine: &'a Machine,
    tokens: usize,
}

impl Run<'_> {
    fn step(&self, step: &Step, workspace: &mut Workspace) -> Result<(), NoEmbedding> {
        let Workspace { arena, offsets, scratch, ids, mask } = workspace;
        let (ids, mask) = (&ids[..self.tokens], &mask[..self.tokens]);
        let (machine, out) = (self.machine, step.out);
        let width = self.width(out);
        let ([x, out], residual) = match (step.x, step.residual) {
            (Some(x), Some(residual)) => {
                let [x, residual, out] = self.slots(arena, offsets, [x, residual, out]);
                ([x, out], Some(&*residual))
            }
            (Some(x), None) => (self.slots(arena, offsets, [x, out]), None),
            (None, _) => {
                let [out] = self.slots(arena, offsets, [out]);
                ([&mut [][..], out], None)
            }
        };
        match &step.operator {
            Operator::Embed(embedding) => return machine.embed(embedding, ids, scratch, out),
            Operator::LayerNorm(norm) => machine.layer_norm(norm, x, out),
            Operator::Linear(layer) => machine.linear(layer, x, residual, scratch, out),
            Operator::Attention(attention) => machine.attention(*attention, x, mask, scratch, out),
            Operator::Gelu => machine.gelu(width, x, out),
            Operator::MeanPool => machine.mean_pool(x, mask, out),
            Operator::FirstToken => out.copy_from_slice(&x[..width]),
            Operator::L2Normalize => machine.l2_normalize(width, x, out),
            Operator::Gather(_) => unreachable!("lowering admits no other lookup than that of ids"),
            Operator::Grid(_) => unreachable!("lowering admits no operator over images"),
        }
        Ok(())
    }

    fn width(&self, slot: usize) -> usize {
        self.program.slots[slot].width
    }

    /// The matrices in `slots`, all different, as parts of the arena.
    fn slots<'a, const N: usize>(
        &self,
        arena: &'a mut [f32],
        offsets: &[usize],
        slots: [usize; N],
    ) -> [&'a mut [f32]; N] {
        arena
            .get_disjoint_mut(slots.map(|slot| self.range(slot, offsets)))
            .expect("slots that live at the same time do not overlap")
    }

    fn range(&self, slot: usize, offsets: &[usize]) -> Range<usize> {
        let length = self.program.slots[slot].rows.count(self.tokens) * self.width(slot);
        offsets[slot]..offsets[slot] + length
    }

    fn output(&self, slot: usize, workspace: &Workspace) -> Tensor {
        let values = &workspace.arena[self.range(slot, &workspace.offsets)];
        let width = self.width(slot);
        match self.program.slots[slot].rows {
            Rows::One => Tensor::from_f32(&[1, width], values),
            Rows::Tokens => Tensor::from_f32(&[1, self.tokens, width], values),
        }
    }
}
