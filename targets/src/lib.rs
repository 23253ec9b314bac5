#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

//! Boards, sensors and windows.
pub mod boards;

#[cfg(test)]
extern crate std;
