//! A bound on time for what cannot be interrupted, like reading a model that is not trusted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::error::{Error, Result};

/// The stack of the thread that works, as large as that of a main thread.
const STACK_BYTES: usize = 8 << 20;

/// What `work` gives, if it is done within `time`: on a thread of its own, for which nobody waits any
/// longer than that.
///
/// An ONNX file says what is computed while it is read, and a hostile one can keep an engine busy for as
/// long as it likes. A program that opens files from strangers opens them behind this:
/// ```
/// use dram_runtime::{Options, Session, deadline};
/// use std::time::Duration;
///
/// # let path = std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/zoo/intents.dram"));
/// let session = deadline::within(Duration::from_secs(60), move || {
///     Session::open(&path, &Options::default())
/// })?;
/// # Ok::<(), dram_runtime::Error>(())
/// ```
/// A thread cannot be stopped from outside: work that was given up goes on until it is done or the process
/// ends, and holds its memory until then.
///
/// # Errors
/// Those of `work`; [`Error::Deadline`]; [`Error::Io`] where the system refuses another thread. A panic of
/// `work` goes on in the caller.
pub fn within<T: Send + 'static>(
    time: Duration,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (send, receive) = sync_channel(1);
    let work = move || {
        // Nobody may be waiting any more.
        let _ = send.send(catch_unwind(AssertUnwindSafe(work)));
    };
    let thread = std::thread::Builder::new().name("deadline".to_owned()).stack_size(STACK_BYTES);
    thread.spawn(work).map_err(Error::io("start", std::path::Path::new("a thread")))?;
    match receive.recv_timeout(time) {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(RecvTimeoutError::Timeout) => Err(Error::Deadline { time }),
        Err(RecvTimeoutError::Disconnected) => unreachable!("the thread sends before it ends"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_in_time_is_given_and_what_is_not_is_given_up() {
        let minute = Duration::from_secs(60);
        assert_eq!(within(minute, || Ok(7)).unwrap(), 7);
        let failed = within::<()>(minute, || {
            Err(Error::Missing { what: "tokenizer", next: "pack it with one" })
        });
        assert!(matches!(failed, Err(Error::Missing { .. })));
        // It waits for an end that comes when this test drops the sender.
        let (hold, held) = sync_channel::<()>(0);
        let late = within(Duration::ZERO, move || Ok(held.recv().is_err()));
        assert!(matches!(late, Err(Error::Deadline { time }) if time.is_zero()));
        drop(hold);
    }

    #[test]
    #[should_panic(expected = "as it was")]
    fn a_panic_goes_on_in_the_caller() {
        let _ = within::<()>(Duration::from_secs(60), || panic!("as it was"));
    }
}
