//! The file `current` of a slot folder: which bundle runs, which one to return to, how far a trial is.
//!
//! ```text
//! dram slots 1
//! running 5f0c...
//! previous none
//! stage installed
//! ```

use std::path::Path;

use crate::error::{Error, Result};
use crate::trust::{Digest, unhex};

const HEADER: &str = "dram slots 1";

/// More than any state has: what is longer is another file.
const LONGEST: u64 = 1024;

/// How far the running bundle has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It passed its self-test on arrival and was never started.
    Installed,
    /// It was started, and nobody has confirmed it since.
    Tried,
    /// It has worked.
    Confirmed,
}

/// What a slot folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The bundle to start.
    pub running: Digest,
    /// The one to return to.
    pub previous: Option<Digest>,
    /// How far the running one has come.
    pub stage: Stage,
}

impl Stage {
    const ALL: [Stage; 3] = [Stage::Installed, Stage::Tried, Stage::Confirmed];

    /// The word that the file uses.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Installed => "installed",
            Stage::Tried => "tried",
            Stage::Confirmed => "confirmed",
        }
    }
}

impl Status {
    /// Reads the state file at `path`; `None` where there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Status>> {
        use std::io::Read;
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
        let text = String::from_utf8_lossy(&bytes);
        parse(&text).map(Some).ok_or_else(|| Error::Data {
            path: path.to_owned(),
            place: "as a whole".to_owned(),
            expected: format!("`{HEADER}` and the lines running, previous and stage"),
            got: "something else; install a bundle into another folder".to_owned(),
        })
    }

    /// What is to be run if the running bundle may not be: the last one that worked, or the only one.
    pub(super) fn proven(&self) -> Digest {
        match self.stage {
            Stage::Confirmed => self.running,
            Stage::Installed | Stage::Tried => self.previous.unwrap_or(self.running),
        }
    }

    /// The state after returning to the previous bundle; `None` where there is none.
    pub(super) fn returned(&self) -> Option<Status> {
        self.previous.map(|running| Status { running, previous: None, stage: Stage::Confirmed })
    }

    pub(super) fn keeps(&self, digest: &Digest) -> bool {
        self.running == *digest || self.previous == Some(*digest)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let previous = self.previous.map_or("none".to_owned(), |digest| digest.to_string());
        let (running, stage) = (self.running, self.stage.name());
        writeln!(f, "{HEADER}\nrunning {running}\nprevious {previous}\nstage {stage}")
    }
}

fn parse(text: &str) -> Option<Status> {
    let mut lines = text.strip_suffix('\n')?.split('\n');
    if lines.next()? != HEADER {
        return None;
    }
    let running = Digest(unhex(lines.next()?.strip_prefix("running ")?)?);
    let previous = match lines.next()?.strip_prefix("previous ")? {
        "none" => None,
        digest => Some(Digest(unhex(digest)?)),
    };
    let stage = lines.next()?.strip_prefix("stage ")?;
    let stage = Stage::ALL.into_iter().find(|known| known.name() == stage)?;
    lines.next().is_none().then_some(Status { running, previous, stage })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_no_part_of_it_does() {
        for previous in [None, Some(Digest([0xa5; 32]))] {
            for stage in Stage::ALL {
                let status = Status { running: Digest([7; 32]), previous, stage };
                let text = status.to_string();
                assert_eq!(parse(&text), Some(status));
                for length in 0..text.len() {
                    assert_eq!(parse(&text[..length]), None, "{length} bytes of {text}");
                }
                assert_eq!(parse(&format!("{text}more\n")), None);
            }
        }
    }
}
