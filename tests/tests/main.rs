//! What crosses a crate: the command as a user calls it, files as a device receives them, and
//! numbers that another program computed.

mod bundle;
mod c_interface;
mod command_line;
mod conformance;
mod dependencies;
mod dram;
mod errors;
mod fit;
mod golden;
mod hostile;
mod memory;
mod operators;
mod quantization;
mod serve;
mod text;
mod trust;
mod windows;
