//! Raw pointers to safe types, where they can be; errors by the parameter's name where they cannot.

use std::ffi::{CStr, c_char};

use crate::failure::Failure;

/// The text at `pointer`.
///
/// # Safety
/// `pointer` is null or begins a text that ends in a zero byte, and nobody changes it meanwhile.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a str, Failure> {
    if pointer.is_null() {
        return Err(null(name));
    }
    // SAFETY: it is not null, so the caller promises a zero-terminated text.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|error| {
        Failure::error(format!("`{name}` is not UTF-8 from byte {} on", error.valid_up_to()))
    })
}

/// What `pointer` points to.
///
/// # Safety
/// `pointer` is null or points to a `T` that nobody changes meanwhile.
pub(crate) unsafe fn reference<'a, T>(pointer: *const T, name: &str) -> Result<&'a T, Failure> {
    // SAFETY: the caller's promise is that of `as_ref`.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(name))
}

/// A place to write to.
///
/// # Safety
/// `pointer` is null or points to a `T` that nobody else uses meanwhile.
pub(crate) unsafe fn place<'a, T>(pointer: *mut T, name: &str) -> Result<&'a mut T, Failure> {
    // SAFETY: the caller's promise is that of `as_mut`.
    unsafe { pointer.as_mut() }.ok_or_else(|| null(name))
}

/// `length` values from `pointer` on, which may be null where there are none.
///
/// # Safety
/// `pointer` is null or begins so many values that nobody changes meanwhile.
pub(crate) unsafe fn slice<'a, T>(
    pointer: *const T,
    length: usize,
    name: &str,
) -> Result<&'a [T], Failure> {
    if length == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(null(name));
    }
    if !pointer.is_aligned() || length > isize::MAX as usize / size_of::<T>() {
        return Err(Failure::error(format!("`{name}` is no array of {length} values")));
    }
    // SAFETY: not null, aligned, of a length that memory can have; the caller promises the values.
    Ok(unsafe { std::slice::from_raw_parts(pointer, length) })
}

/// Copies `found` to `values`, which has room for `capacity`, and its length to `count`.
///
/// # Safety
/// `capacity` values may be written to `values`; `count` is null or may be written.
pub(crate) unsafe fn give(
    found: &[f32],
    values: *mut f32,
    capacity: usize,
    count: *mut usize,
) -> Result<(), Failure> {
    // SAFETY: the caller promises that it is null or may be written.
    if let Some(count) = unsafe { count.as_mut() } {
        *count = found.len();
    }
    if found.len() > capacity {
        let length = found.len();
        return Err(Failure::error(format!("{length} values, `values` has room for {capacity}")));
    }
    if values.is_null() || !values.is_aligned() {
        return Err(null("values"));
    }
    // SAFETY: aligned and not null, with room for `capacity`, which is enough; `found` is our own.
    unsafe { values.copy_from_nonoverlapping(found.as_ptr(), found.len()) };
    Ok(())
}

fn null(name: &str) -> Failure {
    Failure::error(format!("`{name}` is NULL; give one"))
}
