//! One graph for tract, compiled once for each set of input shapes that it is asked with.
//!
//! Shapes that were planned for are compiled when the session opens and stay; any other is compiled
//! when it first comes, from the constants that are already mapped, and leaves when others have pushed
//! it out. Where the value of an input decides which branch of an `If` runs, that value counts as a
//! part of the shapes.

use std::sync::{Arc, Mutex, PoisonError};

use crate::engine::{Compiled, Memory, Mixture};
use crate::error::Result;
use crate::rewrite;
use crate::shapes::Fact;
use crate::tensor::Tensor;

/// Most compiled shapes that are kept beside the planned ones.
const RECENT: usize = 4;

/// The compiled forms of one graph. Callers on several threads take turns at compiling, not at running.
#[derive(Debug)]
pub(crate) struct Specializations {
    /// Positions of the inputs whose values choose branches.
    controls: Vec<usize>,
    planned: Vec<Arc<Specialized>>,
    /// The last one was used last.
    recent: Mutex<Vec<Arc<Specialized>>>,
}

/// A graph compiled for one set of input shapes.
#[derive(Debug)]
struct Specialized {
    facts: Vec<Fact>,
    controls: Vec<Tensor>,
    compiled: Compiled,
}

impl Specializations {
    /// Compiles `mixture` for each of `planned`; for none where an input chooses branches, because its value
    /// comes only with the call.
    ///
    /// # Errors
    /// Those of [`Mixture::compile`].
    pub(crate) fn new(mixture: &Mixture, planned: &[Vec<Fact>]) -> Result<Specializations> {
        let controls = rewrite::controls(mixture.graph());
        let mut forms = Vec::new();
        for facts in planned.iter().filter(|_| controls.is_empty()) {
            let form = Specialized::new(mixture, facts.clone(), &[], Vec::new(), &forms)?;
            forms.push(Arc::new(form));
        }
        Ok(Specializations { controls, planned: forms, recent: Mutex::default() })
    }

    /// Runs the graph on `inputs`, in the order of its inputs. `mixture` gives it with its constants, and
    /// `admit` refuses to compile another form beside those that take so many bytes; neither is called
    /// where the shapes are known.
    ///
    /// # Errors
    /// Those of [`Mixture::compile`], [`Compiled::run`], `mixture` and `admit`.
    pub(crate) fn run(
        &self,
        inputs: &[Tensor],
        mixture: impl FnOnce() -> Result<Mixture>,
        admit: impl FnOnce(u64) -> Result<()>,
    ) -> Result<Vec<Tensor>> {
        let facts: Vec<Fact> = inputs.iter().map(Fact::of).collect();
        let controls: Vec<Tensor> =
            self.controls.iter().map(|&input| inputs[input].clone()).collect();
        let fits = |it: &Arc<Specialized>| it.facts == facts && it.controls == controls;
        if let Some(found) = self.planned.iter().find(|it| fits(it)) {
            return found.compiled.run(inputs);
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match recent.iter().position(fits) {
            Some(place) => recent.remove(place),
            None => {
                let room = recent.len().min(RECENT - 1);
                let surplus = recent.len() - room;
                recent.drain(..surplus);
                let others: Vec<_> = recent.iter().chain(&self.planned).cloned().collect();
                let taken = totals(&others);
                admit(taken.constants + taken.live + taken.scratch)?;
                let (mixture, inputs) = (mixture()?, &self.controls);
                Arc::new(Specialized::new(&mixture, facts, inputs, controls, &others)?)
            }
        };
        recent.push(Arc::clone(&found));
        drop(recent);
        found.compiled.run(inputs)
    }

    /// The form for exactly these shapes, of those that were planned.
    pub(crate) fn planned(&self, facts: &[Fact]) -> Option<&Compiled> {
        self.planned.iter().find(|it| it.facts == facts).map(|it| &it.compiled)
    }

    /// Shapes that were planned for.
    pub(crate) fn planned_facts(&self) -> impl Iterator<Item = &[Fact]> {
        self.planned.iter().map(|it| &it.facts[..])
    }

    /// What all planned forms take from memory.
    pub(crate) fn memory(&self) -> Memory {
        totals(&self.planned)
    }
}

fn totals<'a>(forms: impl IntoIterator<Item = &'a Arc<Specialized>>) -> Memory {
    forms.into_iter().map(|it| it.compiled.memory()).fold(Memory::default(), Memory::beside)
}

impl Specialized {
    fn new(
        mixture: &Mixture,
        facts: Vec<Fact>,
        inputs: &[usize],
        values: Vec<Tensor>,
        others: &[Arc<Specialized>],
    ) -> Result<Specialized> {
        let known: Vec<(usize, Tensor)> =
            inputs.iter().copied().zip(values.iter().cloned()).collect();
        let others: Vec<&Compiled> = others.iter().map(|it| &it.compiled).collect();
        let compiled = mixture.compile(&facts, &known, &others)?;
        Ok(Specialized { facts, controls: values, compiled })
    }
}
