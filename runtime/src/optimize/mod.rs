//! Graph to graph: fewer, larger operators that compute the same.
//!
//! Each pass is one file and one function, `fn run(&mut Graph) -> usize`: it returns how many
//! rewrites it made and leaves inputs and outputs alone. A pass recognizes what exporters write;
//! where a pattern hinges on what a subexpression *computes* (a mask turned into a bias, positions
//! counted from zero), the subexpression is evaluated on a small example instead of matched by
//! its spelling.

use crate::graph::{DRAM_DOMAIN, Graph};

mod attention;
mod batch_norm;
mod channels_last;
mod constants;
mod conv;
#[cfg(test)]
mod convolutions;
mod embed;
mod epilogue;
mod finish;
mod first_token;
mod fold;
mod function;
mod gelu;
pub(crate) mod import;
mod layer_norm;
mod linear;
mod lookup;
pub(crate) mod marks;
mod pattern;
mod pool;
#[cfg(test)]
mod properties;

/// How often one pass rewrote the graph.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PassReport {
    /// The pass, by the name of its file.
    pub pass: &'static str,
    /// Rewrites it made.
    pub rewrites: usize,
}

type Pass = fn(&mut Graph) -> usize;

/// The passes in order. Constants come first because every pattern asks "is this constant?";
/// GELU and layer norm before linear so that their halves and means are not taken for biases;
/// attention before epilogue because it takes three linear layers that must have none yet; first_token when layers are
/// whole. What is
/// folded into convolutions comes before functions, so that those begin at a convolution; what a lookup
/// takes in follows functions; channels move last before a convolution takes what then follows it.
const PASSES: [(&str, Pass); 16] = [
    ("constants", constants::run),
    ("fold", fold::run),
    ("layer_norm", layer_norm::run),
    ("gelu", gelu::run),
    ("linear", linear::run),
    ("attention", attention::run),
    ("embed", embed::run),
    ("pool", pool::run),
    ("epilogue", epilogue::run),
    ("first_token", first_token::run),
    ("batch_norm", batch_norm::run),
    ("function", function::run),
    ("lookup", lookup::run),
    ("conv", conv::run),
    ("channels_last", channels_last::run),
    ("finish", finish::run),
];

/// Runs all passes once and removes what they left dead. What no pass understands stays as it is.
pub fn optimize(graph: &mut Graph) -> Vec<PassReport> {
    let mut reports = Vec::with_capacity(PASSES.len());
    for (pass, run) in PASSES {
        let rewrites = run(graph);
        graph.remove_dead();
        reports.push(PassReport { pass, rewrites });
    }
    graph.opsets.entry(DRAM_DOMAIN.to_owned()).or_insert(1);
    reports
}
