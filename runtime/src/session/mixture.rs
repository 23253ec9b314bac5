//! The executor of all other graphs: tract's plan, with our kernels where they compute a node.

use std::sync::Arc;

use super::{Options, facts, opening_bytes, planned_shapes, tokenizer_bytes, with_beginning};
use crate::budget::Budget;
use crate::bundle::Bundle;
use crate::engine::{self, Memory};
use crate::error::Result;
use crate::graph::{Dim, Graph, Node};
use crate::operators::{Machine, Work};
use crate::plan::Plan;
use crate::profile::Profile;
use crate::rewrite;
use crate::shapes::Fact;
use crate::specialize::{Specializations, Specialized};
use crate::tensor::Tensor;

#[derive(Debug)]
pub(super) struct Mixture {
    specializations: Specializations,
    machine: Arc<Machine>,
    /// Planned sequence lengths, ascending; empty where it takes no sequences.
    lengths: Vec<usize>,
    budget: Budget,
    /// Operators that our kernels compute, and those that tract does.
    operators: (usize, usize),
    copied_bytes: u64,
}

impl Mixture {
    /// Compiles `graph` for the planned `lengths`, or the shapes that are planned in their place.
    pub(super) fn new(
        machine: Arc<Machine>,
        graph: &Graph,
        lengths: &[usize],
        options: &Options,
    ) -> Result<Mixture> {
        let mixture = engine::Mixture::new(&machine, graph)?;
        let stored = &machine.bundle.manifest().shapes;
        let shapes = planned_shapes(graph, lengths, stored, &options.shapes)?;
        if !options.shapes.is_empty() {
            shapes.iter().try_for_each(|facts| rewrite::decided(mixture.graph(), facts))?;
        }
        let specializations = Specializations::new(&mixture, &shapes)?;
        // From here on the copies are used: the weights are there once.
        mixture.release();
        Ok(Mixture {
            specializations,
            lengths: lengths.to_vec(),
            budget: options.budget,
            operators: mixture.operators(),
            copied_bytes: mixture.copied_bytes(),
            machine,
        })
    }

    /// What is known before anything is compiled: a lower bound.
    pub(super) fn least(bundle: &Bundle) -> Plan {
        Plan {
            weights_bytes: bundle.len() as u64,
            scratch_bytes: opening_bytes(bundle),
            tokenizer_bytes: tokenizer_bytes(bundle),
            ..Plan::default()
        }
    }

    /// The plans of a bundle whose need was measured when it was packed, for each of the planned `lengths`,
    /// the longest first; none where other shapes are asked for, or nobody measured.
    pub(super) fn measured(bundle: &Bundle, lengths: &[usize], options: &Options) -> Vec<Plan> {
        // Of a graph that was packed where our kernels ran it, only the tokenizer was measured.
        let heap = bundle.manifest().heap.as_ref().filter(|heap| heap.peak_bytes > 0);
        let Some(heap) = heap.filter(|_| options.shapes.is_empty()) else {
            return Vec::new();
        };
        let plan = |length: Option<usize>| {
            // A length between two that were measured needs no more than the longer one.
            let measured = heap.shorter.iter().find(|it| length.is_some_and(|l| l <= it.sequence));
            let (held, peak) = measured
                .map_or((heap.held_bytes, heap.peak_bytes), |it| (it.held_bytes, it.peak_bytes));
            let tokenizer_bytes = heap.tokenizer_bytes.min(held);
            let threads = heap.raised_by(options.threads.get());
            let plan = Plan {
                weights_bytes: bundle.len() as u64 + held - tokenizer_bytes,
                activations_bytes: 0,
                scratch_bytes: peak.saturating_sub(held) + threads,
                tokenizer_bytes,
                sequence: length,
            };
            with_beginning(plan, bundle)
        };
        match lengths {
            [] => vec![plan(None)],
            lengths => lengths.iter().rev().map(|&length| plan(Some(length))).collect(),
        }
    }

    /// The plan, for all that is compiled.
    pub(super) fn plan(&self) -> Plan {
        let Memory { constants, live, scratch } = self.specializations.memory();
        let least = Mixture::least(&self.machine.bundle);
        Plan {
            // While it compiles, tract holds the graph's own copy and the packed one.
            weights_bytes: least.weights_bytes + 2 * (constants + self.copied_bytes),
            activations_bytes: live,
            scratch_bytes: least.scratch_bytes + scratch,
            sequence: self.lengths.last().copied(),
            ..least
        }
    }

    /// Runs `graph`, which it was made of, on `inputs` in the order of its inputs; shapes that were not
    /// planned are compiled now, where the budget has room for them.
    pub(super) fn run(&self, graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        self.form(graph, inputs)?.run(inputs)
    }

    /// Notes the operators of the same run in `profile`: where our kernels compute a node of `graph`, by its name
    /// there.
    pub(super) fn profile(
        &self,
        graph: &Graph,
        inputs: &[Tensor],
        profile: &mut Profile,
    ) -> Result<()> {
        let stored = |value: &str| {
            let node = graph.producer(value).map(|place| &graph.nodes[place]);
            node.map_or_else(|| "dram".to_owned(), Node::kind)
        };
        self.form(graph, inputs)?.profile(inputs, &stored, profile)
    }

    /// What is compiled for `inputs`.
    fn form(&self, graph: &Graph, inputs: &[Tensor]) -> Result<Arc<Specialized>> {
        let mixture = || engine::Mixture::new(&self.machine, graph);
        let admit = |others: u64| {
            let least = Mixture::least(&self.machine.bundle);
            let scratch_bytes = least.scratch_bytes + others + self.copied_bytes;
            self.budget.admit(&[Plan { scratch_bytes, ..least }])
        };
        self.specializations.form(inputs, mixture, admit)
    }

    /// The shortest planned length that has room for so many tokens.
    pub(super) fn length_for(&self, graph: &Graph, tokens: usize) -> Option<usize> {
        let lengths = self.lengths.iter().copied();
        // A graph with fixed shapes says itself how long it is.
        let fixed = graph.inputs.first().and_then(|input| match input.shape.last() {
            Some(Dim::Fixed(length)) if self.lengths.is_empty() => Some(*length),
            _ => None,
        });
        lengths.chain(fixed).find(|&length| tokens <= length)
    }

    /// Planned sequence lengths, ascending; empty where it takes no sequences.
    pub(super) fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Operators that our kernels compute, and those that tract does.
    pub(super) fn operators(&self) -> (usize, usize) {
        self.operators
    }

    /// Positions of the inputs whose values decide how the graph computes: what plans must give.
    pub(super) fn controls(&self) -> &[usize] {
        self.specializations.controls()
    }

    /// Shapes that were planned for.
    pub(super) fn planned_facts(&self) -> impl Iterator<Item = &[Fact]> {
        self.specializations.planned_facts()
    }

    /// The shapes of an example: those of `sequence` tokens, else the first that were planned for.
    pub(super) fn example_facts(&self, graph: &Graph, sequence: usize) -> Vec<Fact> {
        if !self.lengths.is_empty() {
            return facts(graph, sequence);
        }
        let first = self.specializations.planned_facts().next();
        first.map_or_else(|| facts(graph, sequence.max(1)), <[Fact]>::to_vec)
    }

    /// The arithmetic of a run of the example.
    pub(super) fn work(&self, graph: &Graph, sequence: usize) -> Work {
        self.specializations.work(&self.example_facts(graph, sequence)).unwrap_or_default()
    }
}
