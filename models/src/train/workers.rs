//! Co-distillation over a folder that all processes see: each leaves its weights there and reads the
//! others' (Anil et al. 2018, "Large scale distributed neural network training through online
//! distillation"). There is no protocol but whole files, so any shared file system will do; nobody waits
//! for anybody.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::encoder::Encoder;
use crate::error::Result;
use crate::files;
use crate::interface::Student;
use crate::recipe::CoDistil;
use crate::weights::{self, Weights};

/// Exchanges that a worker may be behind before the others stop listening to it: what is lost teaches
/// what everybody has outgrown.
const PATIENCE: usize = 10;

/// One process's place among the others.
pub(crate) struct Workers<S: Student = Encoder> {
    folder: PathBuf,
    me: usize,
    plan: CoDistil,
    /// What the others must have in common with this process: recipe, data and teacher, hashed.
    key: String,
    /// Where those who are listened to compute.
    device: Device,
    heard: RefCell<Vec<Heard<S>>>,
}

/// What is known of another worker.
struct Heard<S> {
    worker: usize,
    step: usize,
    network: S,
}

#[derive(Serialize, Deserialize)]
struct Header<Z> {
    key: String,
    step: usize,
    sizes: Z,
}

impl<S: Student> Workers<S> {
    /// Worker `me` of `plan`, whose files lie in `folder`, and which computes on `device`.
    pub(crate) fn new(
        folder: PathBuf,
        me: usize,
        plan: CoDistil,
        key: String,
        device: Device,
    ) -> Workers<S> {
        Workers { folder, me, plan, key, device, heard: RefCell::default() }
    }

    /// The others' networks, as they were last heard of; none before the burn-in ends.
    pub(super) fn listened(&self) -> Vec<S> {
        self.heard.borrow().iter().map(|heard| heard.network.clone()).collect()
    }

    /// Where step `step` is one for an exchange: leaves `weights` for the others, and reads what they
    /// left. A file that is missing, damaged, or another recipe's is passed over.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) where the folder cannot be written.
    pub(super) fn exchange(
        &self,
        step: usize,
        weights: impl FnOnce() -> Weights<S::Sizes>,
    ) -> Result<()> {
        if !step.is_multiple_of(self.plan.every) {
            return Ok(());
        }
        self.leave(step, &weights())?;
        if step >= self.plan.burn_in {
            self.listen(step);
        }
        Ok(())
    }

    fn leave(&self, step: usize, weights: &Weights<S::Sizes>) -> Result<()> {
        let header = Header { key: self.key.clone(), step, sizes: weights.sizes().clone() };
        let header = serde_json::to_string(&header).expect("plain numbers are JSON");
        let tensors =
            weights.arrays().iter().map(|(name, array)| (name.clone(), weights::view(array)));
        files::write(&self.path(self.me), &weights::serialize(tensors, "worker", header))
    }

    fn listen(&self, step: usize) {
        let mut heard = self.heard.borrow_mut();
        for worker in (0..self.plan.workers).filter(|&worker| worker != self.me) {
            let known = heard.iter().find(|heard| heard.worker == worker).map(|heard| heard.step);
            let Some((left_at, weights)) = self.read(&self.path(worker)) else { continue };
            if known != Some(left_at) {
                heard.retain(|heard| heard.worker != worker);
                let network = S::new(&weights, &self.device);
                heard.push(Heard { worker, step: left_at, network });
            }
        }
        heard.retain(|heard| heard.step + PATIENCE * self.plan.every >= step);
        // The order of the sum must not depend on who came first.
        heard.sort_by_key(|heard| heard.worker);
    }

    /// What another left at `path`, and at which step.
    fn read(&self, path: &Path) -> Option<(usize, Weights<S::Sizes>)> {
        let bytes = std::fs::read(path).ok()?;
        let header: Header<S::Sizes> =
            serde_json::from_str(&weights::metadata(&bytes, "worker").ok()?).ok()?;
        if header.key != self.key {
            return None;
        }
        let weights = Weights::new(header.sizes, weights::arrays(&bytes, "").ok()?).ok()?;
        Some((header.step, weights))
    }

    fn path(&self, worker: usize) -> PathBuf {
        self.folder.join(format!("worker-{worker}.safetensors"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiny;

    fn workers(folder: &Path, me: usize, key: &str) -> Workers {
        let plan = CoDistil { folder: PathBuf::new(), workers: 3, every: 2, burn_in: 4 };
        Workers::new(folder.to_owned(), me, plan, key.to_owned(), Device::flex())
    }

    #[test]
    fn lost_damaged_and_foreign_workers_are_not_listened_to() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let weights = || tiny::weights(tiny::ARCHITECTURE, 1);
        let [me, other, foreign] =
            [(0, "key"), (1, "key"), (2, "another")].map(|(n, key)| workers(folder.path(), n, key));
        other.exchange(4, weights).expect("writable");
        foreign.exchange(4, weights).expect("writable");
        me.exchange(2, weights).expect("writable");
        assert_eq!(me.listened().len(), 0, "before the burn-in ends");
        me.exchange(5, || unreachable!("no step for an exchange")).expect("nothing to do");
        me.exchange(6, weights).expect("writable");
        assert_eq!(me.listened().len(), 1, "the foreign one counts");
        std::fs::write(folder.path().join("worker-1.safetensors"), b"cut").expect("writable");
        me.exchange(24, weights).expect("writable");
        assert_eq!(me.listened().len(), 1, "what is known stays for a while");
        me.exchange(26, weights).expect("writable");
        assert_eq!(me.listened().len(), 0, "lost for good");
    }
}
