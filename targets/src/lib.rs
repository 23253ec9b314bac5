#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

//! Boards, sensors and windows.
pub mod boards;
pub mod decision;
pub mod features;
pub mod pipeline;
pub mod sensor;
pub mod window;

#[cfg(test)]
extern crate std;
