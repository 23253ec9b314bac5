//! The executor of graphs that our kernels run from end to end.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use super::{opening_bytes, reading_bytes, tokenizer_bytes, with_beginning};
use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::operators::Machine;
use crate::plan::Plan;
use crate::profile::Profile;
use crate::program::{Program, Workspace};
use crate::tensor::Tensor;

#[derive(Debug)]
pub(super) struct Kernels {
    pub(super) program: Program,
    machine: Arc<Machine>,
    workspace: Mutex<Workspace>,
}

impl Kernels {
    /// The program with room for sequences of up to `longest` tokens.
    pub(super) fn new(program: Program, machine: Arc<Machine>, longest: usize) -> Kernels {
        let needs = program.needs(longest, machine.threads.count());
        Kernels { program, machine, workspace: Mutex::new(Workspace::new(&needs)) }
    }

    /// Plans for each planned length, the longest first; for all positions where no length is planned.
    pub(super) fn plans(
        bundle: &Bundle,
        program: &Program,
        planned: &[usize],
        threads: NonZeroUsize,
    ) -> Vec<Plan> {
        let (opening_bytes, tokenizer_bytes) = (opening_bytes(bundle), tokenizer_bytes(bundle));
        let plan = |&length: &usize| {
            let length = length.min(program.positions);
            let needs = program.needs(length, threads.get());
            let activations_bytes = needs.activations_bytes();
            let running = needs.scratch_bytes() + program.output_bytes(length) + opening_bytes;
            let reading = reading_bytes(bundle).saturating_sub(activations_bytes);
            let plan = Plan {
                weights_bytes: bundle.len() as u64,
                activations_bytes,
                scratch_bytes: running.max(reading),
                tokenizer_bytes,
                sequence: Some(length),
            };
            with_beginning(plan, bundle)
        };
        match planned {
            [] => vec![plan(&program.positions)],
            lengths => lengths.iter().rev().map(plan).collect(),
        }
    }

    /// The outputs for one sequence, which is not longer than there is room for.
    pub(super) fn run(&self, ids: &[i64], mask: &[i64]) -> Result<Vec<Tensor>> {
        // A panic of an earlier call leaves numbers behind that the next run overwrites.
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        self.program.run(&self.machine, &mut workspace, ids, mask)
    }

    /// The output that a run for one sequence, nothing masked, ends with: the first of `exits` that is `enough`,
    /// or the first output.
    pub(super) fn run_until(
        &self,
        ids: &[i64],
        exits: &[usize],
        enough: &dyn Fn(&Tensor) -> bool,
    ) -> Result<(usize, Tensor)> {
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        self.program.run_until(&self.machine, &mut workspace, ids, exits, enough)
    }

    /// The outputs for a batch of any size, one sequence after the other.
    pub(super) fn run_batch(&self, inputs: &BTreeMap<String, Tensor>) -> Result<Vec<Tensor>> {
        let batch = self.batch(inputs)?;
        let results: Vec<Vec<Tensor>> =
            batch.sequences().map(|(ids, mask)| self.run(ids, mask)).collect::<Result<_>>()?;
        (0..results[0].len()).map(|index| stacked(&results, index)).collect()
    }

    /// Notes the operators of the same run in `profile`; `graph` is that which the program was made of.
    pub(super) fn profile(
        &self,
        graph: &Graph,
        inputs: &BTreeMap<String, Tensor>,
        profile: &mut Profile,
    ) -> Result<()> {
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = self.batch(inputs)?;
        batch.sequences().try_for_each(|sequence| {
            self.program.profile(&self.machine, &mut workspace, sequence, graph, profile)
        })
    }

    fn batch(&self, inputs: &BTreeMap<String, Tensor>) -> Result<Batch> {
        let values = |name: &str| inputs.get(name).and_then(Tensor::to_i64).unwrap_or_default();
        let ids = values(&self.program.ids);
        let shape = inputs[&self.program.ids].shape().to_vec();
        let mask = match &self.program.mask {
            Some(mask) if inputs[mask].shape() != shape => {
                return Err(Error::Input {
                    name: mask.clone(),
                    expected: format!("the shape of `{}`, {shape:?}", self.program.ids),
                    got: format!("{:?}", inputs[mask].shape()),
                });
            }
            Some(mask) => values(mask),
            None => vec![1; ids.len()],
        };
        Ok(Batch { ids, mask, tokens: shape[1] })
    }
}

/// Sequences of one length, one after the other.
struct Batch {
    ids: Vec<i64>,
    mask: Vec<i64>,
    tokens: usize,
}

impl Batch {
    /// Ids and mask of each.
    fn sequences(&self) -> impl Iterator<Item = (&[i64], &[i64])> {
        self.ids.chunks_exact(self.tokens).zip(self.mask.chunks_exact(self.tokens))
    }
}

/// Output `index` of each row of a batch, one below the other.
fn stacked(results: &[Vec<Tensor>], index: usize) -> Result<Tensor> {
    let first = &results[0][index];
    let mut shape = first.shape().to_vec();
    shape[0] = results.len();
    let bytes = results.iter().flat_map(|outputs| outputs[index].bytes()).copied().collect();
    Tensor::from_bytes(first.dtype(), &shape, bytes)
}
