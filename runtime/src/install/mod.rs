//! A new bundle in the place of the running one, such that a good one remains whatever happens.
//!
//! A slot folder holds bundles named by their digests, and the file `current`, which names the running
//! one and the previous one. The order of an update, each step on the disk before the next begins:
//!
//! 1. the new bundle is verified where it lies: digest, signature, golden examples, budget;
//! 2. it is written beside the others as `DIGEST.partial`, synced, read again, renamed to `DIGEST.dram`;
//! 3. the folder is synced: the name is there before anything refers to it;
//! 4. `current.partial` is written, synced and renamed to `current`: this is the switch;
//! 5. the folder is synced, and what `current` does not name is removed.
//!
//! A new bundle is on trial: its first start is noted on the disk before it opens, and unless
//! [`confirm`] is called, the next start returns to the previous one.

mod files;
mod state;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::session::{Options, Session};
use crate::trust::{Digest, unhex};
use crate::verify::{Verification, self_test};
use files::{Disk, Files};

pub use state::{Stage, Status};

/// An open model of a slot folder.
#[derive(Debug)]
pub struct Started {
    /// The model.
    pub session: Session,
    /// How it came to be this one.
    pub start: Start,
}

/// How a start went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// The running bundle, which has worked before.
    Confirmed,
    /// A new one, which passed its self-test just now: call [`confirm`] when it has done its work.
    Trial,
    /// The previous one, because the new one failed.
    Returned {
        /// The new one.
        from: Digest,
        /// What was wrong with it.
        why: String,
    },
}

/// Puts the bundle `new` in the place of the running one of the folder `slots`, which is made where it is
/// missing. The running one becomes the previous one; one that was never confirmed is dropped. A
/// bundle that runs already and is confirmed is only written again.
///
/// # Errors
/// Those of [`verify`](crate::verify::verify), before anything in the folder changes; [`Error::Io`]: then
/// either nothing has changed, or the switch is done but may not outlast a power cut. In every case
/// [`open_current`] opens a verified bundle, if the folder had one or the switch is done.
pub fn install(new: &Path, slots: &Path, options: &Options) -> Result<Verification> {
    Slots { folder: slots, files: &mut Disk }.install(new, options)
}

/// Makes the previous bundle the running one, after verifying it; the running one becomes the previous
/// one if it was ever confirmed. Gives the digest of the one that runs now.
///
/// # Errors
/// [`Error::Missing`] where there is no previous one; those of [`install`].
pub fn rollback(slots: &Path, options: &Options) -> Result<Digest> {
    Slots { folder: slots, files: &mut Disk }.rollback(options)
}

/// Opens the running bundle. One on trial is noted as tried, opened and self-tested; where that fails, or
/// where an earlier trial was not confirmed, the previous one is made the running one again. A
/// confirmed bundle whose file is damaged gives way to the previous one too.
///
/// One process at a time starts from a folder: a second start during a trial counts as the failure of
/// the first. Once confirmed, any number may open it.
///
/// # Errors
/// [`Error::Missing`] where the folder holds no bundle; those of opening the bundle, where there is none
/// to return to.
pub fn open_current(slots: &Path, options: &Options) -> Result<Started> {
    Slots { folder: slots, files: &mut Disk }.open_current(options)
}

/// Ends the trial of the running bundle: it has worked. Does nothing where it was confirmed before.
///
/// # Errors
/// [`Error::Missing`] where the folder holds no bundle; [`Error::Io`].
pub fn confirm(slots: &Path) -> Result<()> {
    Slots { folder: slots, files: &mut Disk }.confirm()
}

/// What the folder holds; `None` where nothing was ever installed.
///
/// # Errors
/// [`Error::Io`]; [`Error::Data`] where its state file is none.
pub fn status(slots: &Path) -> Result<Option<Status>> {
    Status::read(&slots.join(CURRENT))
}

/// Where the bundle `digest` lies in the folder `slots`, if it is there.
pub fn bundle_path(slots: &Path, digest: Digest) -> PathBuf {
    slots.join(format!("{digest}.dram"))
}

const CURRENT: &str = "current";

struct Slots<'a> {
    folder: &'a Path,
    files: &'a mut dyn Files,
}

impl Slots<'_> {
    fn install(&mut self, new: &Path, options: &Options) -> Result<Verification> {
        let session = Session::from_bundle(Bundle::open_trusted(new, &options.trust)?, options)?;
        let verification = self_test(&session)?;
        self.files.create_folder(self.folder).map_err(Error::io("create", self.folder))?;
        let _lock = lock(self.folder)?;
        let before = status(self.folder)?;
        // What `current` says must have reached the disk before anything that it does not name goes.
        self.sync_folder()?;
        self.clean(before.as_ref());
        self.store(session.image(), verification.digest)?;
        let after = after_install(before, verification.digest);
        if before != Some(after) {
            self.switch(&after)?;
        }
        self.clean(Some(&after));
        Ok(verification)
    }

    fn rollback(&mut self, options: &Options) -> Result<Digest> {
        self.status()?;
        let _lock = lock(self.folder)?;
        let now = self.status()?;
        let back = now.previous.ok_or(Error::Missing {
            what: "previous bundle",
            next: "install the one to return to with `dram install`",
        })?;
        self_test(&self.open(back, options)?)?;
        let previous = (now.stage == Stage::Confirmed).then_some(now.running);
        self.switch(&Status { running: back, previous, stage: Stage::Confirmed })?;
        Ok(back)
    }

    fn open_current(&mut self, options: &Options) -> Result<Started> {
        let now = self.status()?;
        // The common start takes no lock and writes nothing.
        if now.stage == Stage::Confirmed {
            match self.open(now.running, options) {
                Err(error) if is_damage(&error) && now.previous.is_some() => {}
                opened => return Ok(Started { session: opened?, start: Start::Confirmed }),
            }
        }
        let _lock = lock(self.folder)?;
        // An update may have gone ahead while this waited for the lock.
        let now = self.status()?;
        let started = match now.stage {
            Stage::Confirmed => self
                .open(now.running, options)
                .map(|session| Started { session, start: Start::Confirmed }),
            Stage::Tried if now.previous.is_some() => Err(unconfirmed(now.running)),
            Stage::Installed | Stage::Tried => self.trial(&now, options),
        };
        match (started, now.returned()) {
            (Err(error), Some(back)) if now.stage != Stage::Confirmed || is_damage(&error) => {
                self.go_back(&now, &back, error, options)
            }
            (started, _) => started,
        }
    }

    /// Notes the attempt on the disk, then opens and tests the running bundle.
    fn trial(&mut self, now: &Status, options: &Options) -> Result<Started> {
        let noted = self.switch(&Status { stage: Stage::Tried, ..*now });
        // Without a bundle to return to, the note would change nothing.
        if now.previous.is_some() {
            noted?;
        }
        let session = self.open(now.running, options)?;
        self_test(&session)?;
        Ok(Started { session, start: Start::Trial })
    }

    /// Opens the previous bundle and makes it the running one, because the running one failed.
    fn go_back(
        &mut self,
        now: &Status,
        back: &Status,
        error: Error,
        options: &Options,
    ) -> Result<Started> {
        let session = match self.open(back.running, options) {
            Ok(session) => session,
            // The trial may have ended by a loss of power, and there is nothing better.
            Err(_) if now.stage == Stage::Tried => return self.trial(now, options),
            Err(_) => return Err(error),
        };
        // On a disk that takes no more writes the device still answers, and returns again next time.
        if self.switch(back).is_ok() {
            self.clean(Some(back));
        }
        Ok(Started {
            session,
            start: Start::Returned { from: now.running, why: error.to_string() },
        })
    }

    fn confirm(&mut self) -> Result<()> {
        self.status()?;
        let _lock = lock(self.folder)?;
        match self.status()? {
            Status { stage: Stage::Confirmed, .. } => Ok(()),
            now => self.switch(&Status { stage: Stage::Confirmed, ..now }),
        }
    }

    fn status(&self) -> Result<Status> {
        status(self.folder)?.ok_or(Error::Missing {
            what: "bundle in this folder",
            next: "install one with `dram install`",
        })
    }

    fn open(&self, digest: Digest, options: &Options) -> Result<Session> {
        let path = bundle_path(self.folder, digest);
        let bundle = Bundle::open_trusted(&path, &options.trust)?;
        is_named(digest, &bundle, &path)?;
        Session::from_bundle(bundle, options)
    }

    /// Writes a verified bundle under its name, for good.
    fn store(&mut self, image: &[u8], digest: Digest) -> Result<()> {
        let (path, partial) =
            (bundle_path(self.folder, digest), self.folder.join(format!("{digest}.partial")));
        self.write(&partial, image)?;
        // What was just verified was another copy.
        is_named(digest, &Bundle::open(&partial)?, &partial)?;
        self.files.rename(&partial, &path).map_err(Error::io("write", &path))?;
        self.sync_folder()
    }

    /// Makes `status` the state of the folder, for good.
    fn switch(&mut self, status: &Status) -> Result<()> {
        let (path, partial) = (self.folder.join(CURRENT), self.folder.join("current.partial"));
        self.write(&partial, status.to_string().as_bytes())?;
        self.files.rename(&partial, &path).map_err(Error::io("write", &path))?;
        self.sync_folder()
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        let written = self.files.write(path, bytes).and_then(|()| self.files.sync(path));
        if written.is_err() {
            // The first error is the one to report; the next update cleans up.
            let _ = self.files.remove(path);
        }
        written.map_err(Error::io("write", path))
    }

    fn sync_folder(&mut self) -> Result<()> {
        self.files.sync_folder(self.folder).map_err(Error::io("sync", self.folder))
    }

    /// Removes the bundles that `status` does not name, and what interrupted updates left.
    fn clean(&mut self, status: Option<&Status>) {
        let Ok(entries) = std::fs::read_dir(self.folder) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let digest = unhex(stem).map(Digest);
            let goes = match path.extension().and_then(|extension| extension.to_str()) {
                Some("dram") => {
                    digest.is_some_and(|digest| !status.is_some_and(|it| it.keeps(&digest)))
                }
                Some("partial") => digest.is_some() || stem == CURRENT,
                _ => false,
            };
            if goes {
                // What stays costs space, not safety, and the next update tries again.
                let _ = self.files.remove(&path);
            }
        }
    }
}

/// The state once `new` is installed over `before`.
fn after_install(before: Option<Status>, new: Digest) -> Status {
    match before {
        Some(same @ Status { stage: Stage::Confirmed, running, .. }) if running == new => same,
        // Back to the bundle that worked, from one on trial.
        Some(Status { stage: Stage::Installed | Stage::Tried, previous, .. })
            if previous == Some(new) =>
        {
            Status { running: new, previous: None, stage: Stage::Confirmed }
        }
        before => Status {
            running: new,
            previous: before.map(|before| before.proven()).filter(|proven| *proven != new),
            stage: Stage::Installed,
        },
    }
}

fn is_named(digest: Digest, bundle: &Bundle, path: &Path) -> Result<()> {
    if bundle.digest() == digest {
        return Ok(());
    }
    Err(Error::Bundle {
        path: path.to_owned(),
        reason: format!("its digest is {}, expected {digest}", bundle.digest()),
        next: "install it again",
    })
}

/// Whether the file is at fault, and not what is asked of it.
fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Bundle { .. } | Error::Io { .. })
}

fn unconfirmed(digest: Digest) -> Error {
    Error::Gate {
        what: format!("the first start of {digest}"),
        measured: "not confirmed".to_owned(),
        allowed: "a confirmation before the next start".to_owned(),
        next: "it crashed, or whoever started it did not confirm it; mend it and install it again",
    }
}

/// Keeps other updates of the folder out until it is dropped; waits for the one that is under way.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    file.and_then(|file| file.lock().map(|()| file)).map_err(Error::io("lock", &path))
}
