//! In a build without tract no session holds a graph that our kernels do not run from end to end: the type
//! below has no values, and making one says what is missing.

use std::sync::Arc;

use super::{Options, takes_ids};
use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::network::Network;
use crate::operators::{Machine, Work};
use crate::plan::Plan;
use crate::profile::Profile;
use crate::program::Program;
use crate::shapes::Fact;
use crate::tensor::Tensor;

#[derive(Debug)]
pub(super) enum Mixture {}

impl Mixture {
    /// # Errors
    /// Always [`Error::KernelsOnly`], with the first node that our kernels do not run.
    pub(super) fn new(
        machine: Arc<Machine>,
        graph: &Graph,
        _lengths: &[usize],
        _options: &Options,
    ) -> Result<Mixture> {
        let reason = match takes_ids(graph) {
            true => Program::lower(&machine.bundle, graph).err(),
            false => Network::lower(&machine.bundle, graph).err(),
        };
        Err(Error::KernelsOnly { reason: reason.map_or_else(String::new, |it| it.to_string()) })
    }

    /// Nothing: the graph will be refused.
    pub(super) fn least(_bundle: &Bundle) -> Plan {
        Plan::default()
    }

    pub(super) fn measured(_: &Bundle, _lengths: &[usize], _: &Options) -> Vec<Plan> {
        Vec::new()
    }

    pub(super) fn plan(&self) -> Plan {
        match *self {}
    }

    pub(super) fn run(&self, _: &Graph, _: &[Tensor]) -> Result<Vec<Tensor>> {
        match *self {}
    }

    pub(super) fn profile(&self, _: &Graph, _: &[Tensor], _: &mut Profile) -> Result<()> {
        match *self {}
    }

    pub(super) fn length_for(&self, _: &Graph, _tokens: usize) -> Option<usize> {
        match *self {}
    }

    pub(super) fn lengths(&self) -> &[usize] {
        match *self {}
    }

    pub(super) fn operators(&self) -> (usize, usize) {
        match *self {}
    }

    pub(super) fn controls(&self) -> &[usize] {
        match *self {}
    }

    pub(super) fn planned_facts(&self) -> std::iter::Empty<&[Fact]> {
        match *self {}
    }

    pub(super) fn example_facts(&self, _: &Graph, _sequence: usize) -> Vec<Fact> {
        match *self {}
    }

    pub(super) fn work(&self, _: &Graph, _sequence: usize) -> Work {
        match *self {}
    }
}
