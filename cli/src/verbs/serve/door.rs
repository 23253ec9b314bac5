//! Where clients come in: a Unix socket of our own, one that systemd passes on, or stdin.

use std::fmt;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use listenfd::ListenFd;

use super::client::Connection;

/// Where clients come in. A socket file of our own is removed when it is dropped.
#[derive(Debug)]
pub(super) enum Door {
    /// One client, on stdin and stdout, who is there from the start.
    Standard,
    /// The socket that systemd listens on.
    Passed(UnixListener),
    /// Our own.
    Own(UnixListener, PathBuf),
}

impl Door {
    /// The socket at `path`; without one, the socket that was passed on, else stdin.
    ///
    /// # Errors
    /// Where somebody listens at `path`, or something else than a socket lies there.
    pub(super) fn open(path: Option<&Path>) -> Result<Door> {
        let door = match path {
            Some(path) => Door::Own(listen(path)?, path.to_owned()),
            None => match ListenFd::from_env().take_unix_listener(0) {
                Ok(Some(listener)) => Door::Passed(listener),
                Ok(None) => Door::Standard,
                Err(error) => bail!("LISTEN_FDS: {error}; pass one Unix stream socket"),
            },
        };
        door.listener().map_or(Ok(()), |listener| listener.set_nonblocking(true))?;
        Ok(door)
    }

    /// The socket that listens, where there is one.
    pub(super) fn listener(&self) -> Option<&UnixListener> {
        match self {
            Door::Standard => None,
            Door::Passed(listener) | Door::Own(listener, _) => Some(listener),
        }
    }

    /// A client who is waiting to come in, if there is one.
    ///
    /// # Errors
    /// Where the system refuses; a client who left again is none.
    pub(super) fn admit(&self) -> io::Result<Option<Connection>> {
        let Some(listener) = self.listener() else { return Ok(None) };
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                Ok(Some(Connection::Socket(stream)))
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock
                | io::ErrorKind::Interrupted
                | io::ErrorKind::ConnectionAborted => Ok(None),
                _ => Err(error),
            },
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Door::Own(_, path) = self {
            // Where it stays, the next start finds that nobody listens there and takes its place.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Door::Standard => f.write_str("stdin"),
            Door::Passed(_) => f.write_str("the socket of LISTEN_FDS"),
            Door::Own(_, path) => write!(f, "`{}`", path.display()),
        }
    }
}

fn listen(path: &Path) -> Result<UnixListener> {
    let is_socket = path.symlink_metadata().is_ok_and(|file| file.file_type().is_socket());
    if is_socket {
        if UnixStream::connect(path).is_ok() {
            bail!("somebody listens on `{}` already; choose another `--socket`", path.display());
        }
        // Left by a process that could not clean up.
        std::fs::remove_file(path)
            .with_context(|| format!("cannot replace `{}`", path.display()))?;
    }
    UnixListener::bind(path).with_context(|| format!("cannot listen on `{}`", path.display()))
}
