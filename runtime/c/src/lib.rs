//! The C interface of dram: open a bundle within a RAM budget, ask it for texts or tensors, close it.
//!
//! Each function that can fail gives a [`Status`] and leaves a sentence for [`dram_last_error`].
//! Panics end at the border, null pointers and text that is not UTF-8 are errors, and a session may be
//! asked from several threads, which take turns. Built with `panic = "abort"`, as the profile `dist` is, a
//! panic ends the process instead.

// The border itself: what comes in is a raw pointer. `raw` turns it into safe types.
#![allow(unsafe_code)]

mod failure;
mod raw;

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_void};
use std::num::NonZeroUsize;
use std::path::Path;

use dram_runtime::{Budget, DType, TrustPolicy};

pub use failure::Status;
use failure::{Failure, answer};

/// An open model. Any number of threads may use it at once; they take turns.
#[derive(Debug)]
pub struct Session {
    session: dram_runtime::Session,
    /// As C reads them.
    labels: Vec<CString>,
}

const _: () = {
    const fn may_be_shared<T: Send + Sync>() {}
    may_be_shared::<Session>();
};

/// How a model is opened. All zero is the default: no limit, one thread, anybody's bundle.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The most that it may take from memory in bytes, the mapped bundle included; 0 for no limit.
    pub ram_bytes: u64,
    /// Threads that work on one request; 0 for one.
    pub threads: usize,
    /// Longest sequence in tokens, a longer text is cut; 0 for the longest that the bundle was packed for.
    pub sequence: usize,
    /// The key that must have signed the bundle, as 64 hexadecimal digits; NULL for anybody's.
    pub public_key: *const c_char,
}

/// A tensor that goes in. It is read during the call only.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Tensor {
    /// The input it is for; NULL for the input at its place in the list.
    pub name: *const c_char,
    /// Element type: `DRAM_F32` and its like.
    pub dtype: u32,
    /// Number of extents in `shape`.
    pub rank: usize,
    /// Extents, outermost first.
    pub shape: *const usize,
    /// The values, row-major and in the machine's byte order.
    pub data: *const c_void,
    /// Length of `data` in bytes: the product of `shape` times the element's size.
    pub bytes: usize,
}

/// 32-bit floating point.
pub const DRAM_F32: u32 = 0;
/// 64-bit floating point.
pub const DRAM_F64: u32 = 1;
/// 8-bit signed integers.
pub const DRAM_I8: u32 = 2;
/// 8-bit unsigned integers.
pub const DRAM_U8: u32 = 3;
/// 32-bit signed integers.
pub const DRAM_I32: u32 = 4;
/// 64-bit signed integers.
pub const DRAM_I64: u32 = 5;
/// Truth values of one byte, 0 or 1.
pub const DRAM_BOOL: u32 = 6;

/// The library's version, `major.minor.patch`; lives as long as the program.
#[unsafe(no_mangle)]
pub extern "C" fn dram_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// What went wrong in this thread's latest call that failed, in one sentence; empty where none has.
/// Lives until this thread's next call that fails.
#[unsafe(no_mangle)]
pub extern "C" fn dram_last_error() -> *const c_char {
    failure::last_error()
}

/// Opens the bundle at `path` and puts it into `session`, NULL where that fails. `options` may be NULL
/// for the default. `DRAM_STATUS_NO` where it needs more RAM than it may have, before it takes any, or is
/// not signed by the key that is asked for.
///
/// # Safety
/// `path` is NULL or a text that ends in a zero byte; `options` is NULL or points to options whose
/// `public_key` is NULL or such a text; `session` is NULL, which is an error, or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dram_open(
    path: *const c_char,
    options: *const Options,
    session: *mut *mut Session,
) -> Status {
    answer(|| {
        // SAFETY: the caller promises that `session` is null or may be written.
        let opened = unsafe { raw::place(session, "session") }?;
        *opened = std::ptr::null_mut();
        // SAFETY: the caller promises that `path` is null or a zero-terminated text.
        let path = unsafe { raw::text(path, "path") }?;
        // SAFETY: the caller promises that `options` is null or points to options.
        let options = match unsafe { options.as_ref() } {
            // SAFETY: the caller promises that their key is null or a zero-terminated text.
            Some(options) => unsafe { options.read() }?,
            None => dram_runtime::Options::default(),
        };
        *opened = Box::into_raw(Box::new(Session::open(path, &options)?));
        Ok(())
    })
}

/// Closes what `dram_open` gave. NULL is nothing to close.
///
/// # Safety
/// `session` is NULL or of `dram_open`; no call with it is under way, and none may follow.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dram_close(session: *mut Session) {
    answer(|| {
        if !session.is_null() {
            // SAFETY: it is of `dram_open`, which made it of a box, and the caller gives it up.
            drop(unsafe { Box::from_raw(session) });
        }
        Ok(())
    });
}

/// The most bytes that the session takes from memory, the mapped bundle included; 0 for NULL.
///
/// # Safety
/// `session` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dram_planned_peak_bytes(session: *const Session) -> u64 {
    // SAFETY: the caller promises that it is null or open.
    unsafe { session.as_ref() }.map_or(0, |session| session.session.plan().peak_bytes())
}

/// Number of labels; 0 where the model gives vectors, and for NULL.
///
/// # Safety
/// `session` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dram_labels(session: *const Session) -> usize {
    // SAFETY: the caller promises that it is null or open.
    unsafe { session.as_ref() }.map_or(0, |session| session.labels.len())
}

/// Label `index`, counted from 0; NULL where there is none. Lives as long as the session.
///
/// # Safety
/// `session` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dram_label(session: *const Session, index: usize) -> *const c_char {
    // SAFETY: the caller promises that it is null or open.
    let label = unsafe { session.as_ref() }.and_then(|session| session.labels.get(index));
    label.map_or(std::ptr::null(), |label| label.as_ptr())
}

/// What the model says of `text`, into `values`: a probability for each label, in their order, or the
/// text as a vector. A text longer than the longest sequence is cut.
///
/// `count` becomes the number of values; it may be NULL. Where `capacity` is less, nothing is written to
/// `values` and the call fails: with a capacity of 0 it tells how much room to make.
///
/// # Safety
/// `session` is NULL, which is an error, or open; `text` is NULL, which is one too, or ends in a zero
/// byte; `capacity` floats may be written to `values`, and `count` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dram_predict_text(
    session: *const Session,
    text: *const c_char,
    values: *mut f32,
    capacity: usize,
    count: *mut usize,
) -> Status {
    answer(|| {
        // SAFETY: the caller promises that it is null or open.
        let session = unsafe { raw::reference(session, "session") }?;
        // SAFETY: the caller promises that it is null or a zero-terminated text.
        let text = unsafe { raw::text(text, "text") }?;
        let found = session.session.scores(text)?;
        // SAFETY: the caller promises room for `capacity` floats, and for `count` or that it is null.
        unsafe { raw::give(&found, values, capacity, count) }
    })
}

/// What the model makes of `inputs`, `input_count` of them, into `values`. Where `output` is NULL this
/// is the model's answer: a probability for each label, row by row of the batch, or the first output.
/// Otherwise it is the output of that name, unchanged, which must hold 32-bit floats.
///
/// `capacity` and `count` are as for `dram_predict_text`.
///
/// # Safety
/// `session` is NULL, which is an error, or open; `inputs` holds `input_count` tensors, whose `shape` and
/// `data` are as long as they say; `output` is NULL or ends in a zero byte; `capacity` floats may be
/// written to `values`, and `count` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dram_predict(
    session: *const Session,
    inputs: *const Tensor,
    input_count: usize,
    output: *const c_char,
    values: *mut f32,
    capacity: usize,
    count: *mut usize,
) -> Status {
    answer(|| {
        // SAFETY: the caller promises that it is null or open.
        let session = unsafe { raw::reference(session, "session") }?;
        // SAFETY: the caller promises that there are so many tensors.
        let tensors = unsafe { raw::slice(inputs, input_count, "inputs") }?;
        let mut inputs = BTreeMap::new();
        for (place, tensor) in tensors.iter().enumerate() {
            // SAFETY: the caller promises that each is as long as it says.
            let (name, tensor) = unsafe { tensor.read(place, session) }?;
            if inputs.insert(name.clone(), tensor).is_some() {
                return Err(Failure::error(format!("two tensors for the input `{name}`")));
            }
        }
        let found = match output.is_null() {
            true => session.session.scores_of(&inputs)?,
            // SAFETY: the caller promises that it is a zero-terminated text.
            false => session.output(unsafe { raw::text(output, "output") }?, &inputs)?,
        };
        // SAFETY: the caller promises room for `capacity` floats, and for `count` or that it is null.
        unsafe { raw::give(&found, values, capacity, count) }
    })
}

impl Session {
    fn open(path: &str, options: &dram_runtime::Options) -> Result<Session, Failure> {
        let session = dram_runtime::Session::open(Path::new(path), options)?;
        let label = |label: &String| {
            CString::new(label.as_str()).map_err(|_| {
                Failure::error(format!("the label {label:?} holds a zero byte, as no C text can"))
            })
        };
        let labels = session.manifest().labels.iter().map(label).collect::<Result<_, _>>()?;
        Ok(Session { session, labels })
    }

    /// The values of the output `name`.
    fn output(
        &self,
        name: &str,
        inputs: &BTreeMap<String, dram_runtime::Tensor>,
    ) -> Result<Vec<f32>, Failure> {
        let outputs = self.session.run(inputs)?;
        let found = outputs.iter().find(|(output, _)| output == name);
        let (_, tensor) = found.ok_or_else(|| {
            let names: Vec<&str> = outputs.iter().map(|(name, _)| name.as_str()).collect();
            Failure::error(format!("no output `{name}`; there are: `{}`", names.join("`, `")))
        })?;
        tensor.to_f32().ok_or_else(|| {
            Failure::error(format!("output `{name}`: expected f32, got {}", tensor.dtype()))
        })
    }
}

impl Options {
    /// # Safety
    /// `public_key` is null or a zero-terminated text.
    unsafe fn read(&self) -> Result<dram_runtime::Options, Failure> {
        let trust = match self.public_key.is_null() {
            true => TrustPolicy::AnyBundle,
            false => {
                // SAFETY: the caller promises that it is a zero-terminated text.
                let key = unsafe { raw::text(self.public_key, "public_key") }?;
                TrustPolicy::SignedBy(vec![key.parse().map_err(Failure::error)?])
            }
        };
        Ok(dram_runtime::Options {
            budget: match self.ram_bytes {
                0 => Budget::UNLIMITED,
                bytes => Budget::bytes(bytes),
            },
            threads: NonZeroUsize::new(self.threads).unwrap_or(NonZeroUsize::MIN),
            sequence: (self.sequence > 0).then_some(self.sequence),
            shapes: Vec::new(),
            trust,
            heap: None,
        })
    }
}

impl Tensor {
    /// The input's name, and a copy of the values.
    ///
    /// # Safety
    /// `name` is null or a zero-terminated text, `shape` has `rank` extents and `data` so many `bytes`.
    unsafe fn read(
        &self,
        place: usize,
        session: &Session,
    ) -> Result<(String, dram_runtime::Tensor), Failure> {
        let name = match self.name.is_null() {
            false => {
                // SAFETY: the caller promises that it is a zero-terminated text.
                unsafe { raw::text(self.name, "name") }?.to_owned()
            }
            true => {
                let inputs = session.session.inputs();
                let input = inputs.get(place).ok_or_else(|| {
                    Failure::error(format!(
                        "tensor {place} of a model with {} inputs",
                        inputs.len()
                    ))
                })?;
                input.name.clone()
            }
        };
        // SAFETY: the caller promises that there are so many.
        let shape = unsafe { raw::slice(self.shape, self.rank, "shape") }?;
        // SAFETY: as above.
        let data = unsafe { raw::slice(self.data.cast::<u8>(), self.bytes, "data") }?;
        let tensor = dram_runtime::Tensor::from_bytes(dtype(self.dtype)?, shape, data.to_vec());
        Ok((name, tensor?))
    }
}

fn dtype(number: u32) -> Result<DType, Failure> {
    Ok(match number {
        DRAM_F32 => DType::F32,
        DRAM_F64 => DType::F64,
        DRAM_I8 => DType::I8,
        DRAM_U8 => DType::U8,
        DRAM_I32 => DType::I32,
        DRAM_I64 => DType::I64,
        DRAM_BOOL => DType::Bool,
        _ => return Err(Failure::error(format!("no element type {number}; write `DRAM_F32`"))),
    })
}

#[cfg(test)]
mod tests;
