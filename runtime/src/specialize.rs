//! One graph for tract, compiled once for each set of input shapes that it is asked with.
//!
//! Shapes that were planned for are compiled when the session opens and stay; any other is compiled
//! when it first comes, from the constants that are already mapped, and leaves when others have pushed
//! it out. Where the value of an input decides how the graph computes (which branch of an `If` runs, how long
//! an output is), that value counts as a part of the shapes; another value than the planned one takes its
//! place, so that no more is held than was planned.

use std::sync::{Arc, Mutex, PoisonError};

use crate::engine::{Compiled, Memory, Mixture};
use crate::error::Result;
use crate::operators::Work;
use crate::profile::Profile;
use crate::rewrite;
use crate::shapes::{self, Fact};
use crate::tensor::Tensor;

/// Most compiled shapes that are kept beside the planned ones.
const RECENT: usize = 4;

/// The compiled forms of one graph. Callers on several threads take turns at compiling, not at running.
#[derive(Debug)]
pub(crate) struct Specializations {
    /// Positions of the inputs whose values decide how the graph computes.
    controls: Vec<usize>,
    planned: Vec<Slot>,
    /// The last one was used last.
    recent: Mutex<Vec<Arc<Specialized>>>,
}

/// A planned set of input shapes.
#[derive(Debug)]
struct Slot {
    /// As it was planned, with all the values that were given.
    facts: Vec<Fact>,
    /// Compiled for the values that decide: those that were planned, or the last that came. Empty where
    /// compiling for others failed.
    form: Mutex<Option<Arc<Specialized>>>,
}

/// A graph compiled for one set of input shapes.
#[derive(Debug)]
pub(crate) struct Specialized {
    /// With the values that decide how it computes, and no others.
    facts: Vec<Fact>,
    compiled: Compiled,
}

impl Specializations {
    /// Compiles `mixture` for each of `planned` that gives the values that decide how it computes; any other is
    /// not planned for.
    ///
    /// # Errors
    /// Those of [`Mixture::compile`].
    pub(crate) fn new(mixture: &Mixture, planned: &[Vec<Fact>]) -> Result<Specializations> {
        let controls = rewrite::controls(mixture.graph());
        let mut slots: Vec<Slot> = Vec::new();
        let is_decided =
            |facts: &&Vec<Fact>| controls.iter().all(|&input| facts[input].value.is_some());
        for facts in planned.iter().filter(is_decided) {
            let others: Vec<_> = slots.iter().filter_map(Slot::form).collect();
            let deciding = facts.iter().enumerate().map(|(input, fact)| match &fact.value {
                Some(_) if !controls.contains(&input) => Fact::new(fact.dtype, &fact.shape),
                _ => fact.clone(),
            });
            let form = Specialized::new(mixture, deciding.collect(), &others)?;
            let form = Mutex::new(Some(Arc::new(form)));
            slots.push(Slot { facts: facts.clone(), form });
        }
        Ok(Specializations { controls, planned: slots, recent: Mutex::default() })
    }

    /// Positions of the inputs whose values decide how the graph computes: what plans must give.
    pub(crate) fn controls(&self) -> &[usize] {
        &self.controls
    }

    /// The graph compiled for `inputs`, in the order of its inputs. `mixture` gives it with its constants, and
    /// `admit` refuses to compile another form beside those that take so many bytes; neither is called
    /// where the shapes are known.
    ///
    /// # Errors
    /// Those of [`Mixture::compile`], `mixture` and `admit`.
    pub(crate) fn form(
        &self,
        inputs: &[Tensor],
        mixture: impl FnOnce() -> Result<Mixture>,
        admit: impl FnOnce(u64) -> Result<()>,
    ) -> Result<Arc<Specialized>> {
        let shaped: Vec<&Slot> = self.planned.iter().filter(|it| it.is_shaped(inputs)).collect();
        let found = shaped.iter().filter_map(|slot| slot.form()).find(|it| it.holds_for(inputs));
        if let Some(found) = found {
            return Ok(found);
        }
        let compile = |others: Vec<Arc<Specialized>>| {
            let taken = totals(&others);
            admit(taken.constants + taken.live + taken.scratch)?;
            let facts = shapes::known(inputs, &self.controls);
            Specialized::new(&mixture()?, facts, &others).map(Arc::new)
        };
        // Whoever compiles holds this.
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut forms = recent.iter().cloned().chain(shaped.iter().filter_map(|slot| slot.form()));
        let found = match (forms.find(|it| it.holds_for(inputs)), shaped.first()) {
            (Some(found), _) => found,
            (None, Some(slot)) => {
                // What was there leaves first.
                slot.put(None);
                let held = self.planned.iter().filter_map(Slot::form);
                let found = compile(held.chain(recent.iter().cloned()).collect())?;
                slot.put(Some(found.clone()));
                found
            }
            (None, None) => {
                let room = recent.len().min(RECENT - 1);
                let surplus = recent.len() - room;
                recent.drain(..surplus);
                let planned = self.planned.iter().filter_map(Slot::form);
                compile(recent.iter().cloned().chain(planned).collect())?
            }
        };
        if shaped.is_empty() {
            recent.retain(|it| !Arc::ptr_eq(it, &found));
            recent.push(Arc::clone(&found));
        }
        Ok(found)
    }

    /// The arithmetic of a run of the form that was planned for these shapes.
    pub(crate) fn work(&self, facts: &[Fact]) -> Option<Work> {
        let slot = self.planned.iter().find(|slot| slot.facts == facts)?;
        Some(slot.form()?.compiled.work())
    }

    /// Shapes that were planned for.
    pub(crate) fn planned_facts(&self) -> impl Iterator<Item = &[Fact]> {
        self.planned.iter().map(|slot| &slot.facts[..])
    }

    /// What all planned forms take from memory.
    pub(crate) fn memory(&self) -> Memory {
        totals(&self.planned.iter().filter_map(Slot::form).collect::<Vec<_>>())
    }
}

fn totals(forms: &[Arc<Specialized>]) -> Memory {
    forms.iter().map(|it| it.compiled.memory()).fold(Memory::default(), Memory::beside)
}

impl Slot {
    fn is_shaped(&self, inputs: &[Tensor]) -> bool {
        self.facts.iter().zip(inputs).all(|(fact, input)| fact.is_shaped_like(input))
    }

    fn form(&self) -> Option<Arc<Specialized>> {
        self.form.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put(&self, form: Option<Arc<Specialized>>) {
        *self.form.lock().unwrap_or_else(PoisonError::into_inner) = form;
    }
}

impl Specialized {
    /// Runs it once.
    ///
    /// # Errors
    /// Those of [`Compiled::run`].
    pub(crate) fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        self.compiled.run(inputs)
    }

    /// As [`Compiled::profile`].
    ///
    /// # Errors
    /// Those of [`Compiled::run`].
    pub(crate) fn profile(
        &self,
        inputs: &[Tensor],
        stored: &dyn Fn(&str) -> String,
        profile: &mut Profile,
    ) -> Result<()> {
        self.compiled.profile(inputs, stored, profile)
    }

    fn new(
        mixture: &Mixture,
        facts: Vec<Fact>,
        others: &[Arc<Specialized>],
    ) -> Result<Specialized> {
        let others: Vec<&Compiled> = others.iter().map(|it| &it.compiled).collect();
        let compiled = mixture.compile(&facts, &others)?;
        Ok(Specialized { facts, compiled })
    }

    fn holds_for(&self, inputs: &[Tensor]) -> bool {
        self.facts.iter().zip(inputs).all(|(fact, input)| fact.holds_for(input))
    }
}
