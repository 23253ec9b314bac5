//! What the tests here and the fuzz targets in `fuzz/` share.

pub mod hostile;
