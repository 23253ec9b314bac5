//! Turns a teacher, labelled texts and a recipe into a compact student as an ONNX file.
//!
//! ```text
//! recipe.toml ─▶ fine-tune the teacher ─▶ keep its answers ─▶ train the student ─▶ student.onnx
//!                 train, teacher           answers             train, student        export
//! ```
//!
//! The student starts as a part of the teacher: some of its layers and heads, the strongest neurons of
//! their feed-forward blocks, the word pieces that the texts need. It then learns what the recipe's losses
//! say, from whom the recipe's scheme says: a teacher that was finished before and whose answers are kept
//! (offline), one that learns in the same steps, other students, other processes, or itself. Labelled texts
//! make a classifier, sentences an encoder.
//!
//! Students of [`signals`] go the same way: whoever learns is a `Student` (`interface`), and trained, kept on
//! disk and resumed alike.
//!
//! [`distill()`] is the way in. Everything random comes from the recipe's seed; an interrupted run
//! continues bit for bit; nothing is printed.

mod alarms;
mod answers;
mod artefacts;
mod batches;
mod checkpoint;
mod clip;
mod curves;
mod data;
mod device;
mod distill;
mod encoder;
mod error;
mod exam;
mod export;
mod features;
mod files;
mod golden;
mod inputs;
mod interface;
mod interview;
mod losses;
mod progress;
pub mod recipe;
mod report;
mod rounding;
mod schedule;
mod seed;
pub mod signals;
mod stages;
mod student;
mod task;
mod teacher;
mod tokens;
mod train;
mod trial;
mod variations;
mod vocabulary;
mod weights;

#[cfg(test)]
mod tiny;

pub use answers::Accuracy;
pub use device::Device;
pub use distill::{Baseline, Options, distill};
pub use error::{Error, Result};
pub use exam::Measure;
pub use progress::{Progress, Stage};
pub use recipe::Recipe;
pub use report::{Data as ReportData, Model, Report, Seconds, Validation};
pub use task::Task;
pub use train::Resume;
pub use trial::Tried;
pub use weights::Architecture;
