//! The few operations on files that an update consists of, so that tests can cut the power at each.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// What an update does to a disk. Nothing that is written or renamed is there after a power cut unless
/// it was synced.
pub(super) trait Files {
    /// Makes the folder `path` and those above it, where they are missing.
    fn create_folder(&mut self, path: &Path) -> io::Result<()>;

    /// Gives the file at `path` the content `bytes`, in place; a failure may leave a part of it.
    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Returns when the content of the file at `path` is on the disk.
    fn sync(&mut self, path: &Path) -> io::Result<()>;

    /// Puts `from` in the place of `to`; whoever looks sees the one or the other.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;

    /// Returns when the names in the folder `path` are on the disk.
    fn sync_folder(&mut self, path: &Path) -> io::Result<()>;

    /// Takes the file away.
    fn remove(&mut self, path: &Path) -> io::Result<()>;
}

/// The disk of this machine.
pub(super) struct Disk;

impl Files for Disk {
    fn create_folder(&mut self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        File::create(path)?.write_all(bytes)
    }

    fn sync(&mut self, path: &Path) -> io::Result<()> {
        // Some systems flush only what was opened to write.
        File::options().write(true).open(path)?.sync_all()
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_folder(&mut self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
}
