//! The executor of graphs over signals and images that our kernels run from end to end.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use super::{opening_bytes, tokenizer_bytes, with_beginning};
use crate::bundle::Bundle;
use crate::error::Result;
use crate::graph::Graph;
use crate::network::{Network, Workspace};
use crate::operators::Machine;
use crate::plan::Plan;
use crate::profile::Profile;
use crate::shapes::Fact;
use crate::tensor::Tensor;

/// What an attribute of a node takes while the graph is decoded, at most, as it was measured.
const ATTRIBUTE_BYTES: u64 = 1000;

#[derive(Debug)]
pub(super) struct Signals {
    pub(super) network: Network,
    machine: Arc<Machine>,
    /// Taken when somebody gives inputs: a small file may declare vast ones.
    workspace: Mutex<Option<Workspace>>,
    /// Types and shapes of the inputs that it is planned for.
    planned: Vec<Vec<Fact>>,
}

impl Signals {
    pub(super) fn new(network: Network, machine: Arc<Machine>, planned: Vec<Vec<Fact>>) -> Signals {
        Signals { network, machine, workspace: Mutex::default(), planned }
    }

    /// The plan for the largest of the `planned` batches.
    pub(super) fn plan(
        bundle: &Bundle,
        graph: &Graph,
        network: &Network,
        planned: &[Vec<Fact>],
        threads: NonZeroUsize,
    ) -> Plan {
        let needs = network.needs(threads.get());
        let batch = planned.iter().map(|facts| network.batch_of(facts)).max().unwrap_or(1);
        let running = needs.scratch_bytes() + network.output_bytes(batch);
        let activations_bytes = needs.activations_bytes();
        // Small networks take most while their graph is decoded, before they have activations.
        let attributes: usize = graph.nodes.iter().map(|node| node.attributes.len()).sum();
        let decoding = ATTRIBUTE_BYTES * attributes as u64;
        let plan = Plan {
            weights_bytes: bundle.len() as u64,
            activations_bytes,
            scratch_bytes: running.max(decoding.saturating_sub(activations_bytes))
                + opening_bytes(bundle),
            tokenizer_bytes: tokenizer_bytes(bundle),
            sequence: None,
        };
        with_beginning(plan, bundle)
    }

    /// Runs `graph`, which it was made of, on `inputs` in the order of its inputs.
    pub(super) fn run(&self, graph: &Graph, inputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let inputs = named(graph, inputs);
        self.with_workspace(|workspace| self.network.run(&self.machine, workspace, &inputs))
    }

    /// Notes the operators of the same run in `profile`.
    pub(super) fn profile(
        &self,
        graph: &Graph,
        inputs: Vec<Tensor>,
        profile: &mut Profile,
    ) -> Result<()> {
        let inputs = named(graph, inputs);
        self.with_workspace(|workspace| {
            self.network.profile(&self.machine, workspace, &inputs, graph, profile)
        })
    }

    fn with_workspace<T>(&self, work: impl FnOnce(&mut Workspace) -> T) -> T {
        // A panic of an earlier call leaves numbers behind that the next run overwrites.
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        let threads = self.machine.threads.count();
        work(workspace.get_or_insert_with(|| Workspace::new(&self.network.needs(threads))))
    }

    /// Shapes that were planned for, one at least.
    pub(super) fn planned(&self) -> &[Vec<Fact>] {
        &self.planned
    }
}

/// `inputs` by the names of the graph's.
fn named(graph: &Graph, inputs: Vec<Tensor>) -> Vec<(&str, Tensor)> {
    graph.inputs.iter().map(|input| input.name.as_str()).zip(inputs).collect()
}
