#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

//! Boards, sensors and windows.
pub mod boards;
pub mod sensor;

#[cfg(test)]
extern crate std;
