//! From results and panics to a status and a sentence.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use dram_runtime::Error;

/// How a call ended; the numbers are the exit codes of the command.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It did what was asked.
    Ok = 0,
    /// The answer is no: it does not fit the budget, or is not signed by the key that is asked for.
    No = 1,
    /// It could not be done, or a pointer or length was wrong.
    Error = 2,
}

/// What [`answer`] reports.
#[derive(Debug)]
pub(crate) struct Failure {
    status: Status,
    message: String,
}

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Calls `work`, and keeps what it fails of for [`last_error`]. A panic is an error too.
pub(crate) fn answer(work: impl FnOnce() -> Result<(), Failure>) -> Status {
    // Whatever a panic leaves half done belongs to `work` alone, but for a session's workspace, whose
    // numbers the next run overwrites.
    let failure = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return Status::Ok,
        Ok(Err(failure)) => failure,
        Err(panic) => {
            Failure::error(format!("a fault in dram, please report it: {}", said(&*panic)))
        }
    };
    // C text ends at its first zero byte.
    let message = CString::new(failure.message.replace('\0', "\\0")).unwrap_or_default();
    // A thread that is ending has nobody left to tell.
    let _ = LAST_ERROR.try_with(|last| last.replace(message));
    failure.status
}

/// The latest failure of this thread; empty where there was none.
pub(crate) fn last_error() -> *const c_char {
    LAST_ERROR.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

impl Failure {
    pub(crate) fn error(message: String) -> Failure {
        Failure { status: Status::Error, message }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let refused = matches!(error, Error::OverBudget(_) | Error::Untrusted { .. });
        let status = if refused { Status::No } else { Status::Error };
        Failure { status, message: error.to_string() }
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&str>().copied();
    literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no words")
}
