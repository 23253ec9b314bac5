//! Turns a teacher, labelled texts and a recipe into a compact student as an ONNX file.
//!
//! ```text
//! recipe.toml ─▶ fine-tune the teacher ─▶ keep its answers ─▶ train the student ─▶ student.onnx
//!                 train, teacher           answers             train, student        export
//! ```
//!
//! The student starts as a part of the teacher: some of its layers, the strongest neurons of their
//! feed-forward blocks, the word pieces that the texts need. It then learns the labels, the
//! teacher's softened distributions over them (Hinton, Vinyals and Dean 2015) and the teacher's
//! sentence embeddings. The teacher's answers are collected once and kept, since they do not change
//! (offline distillation).
//!
//! [`distill()`] is the way in. Everything random comes from the recipe's seed; an interrupted run
//! continues bit for bit; nothing is printed.

mod answers;
mod artefacts;
mod batches;
mod checkpoint;
mod clip;
mod data;
mod distill;
mod encoder;
mod error;
mod export;
mod files;
mod golden;
mod inputs;
mod losses;
mod progress;
mod recipe;
mod report;
mod schedule;
mod seed;
pub mod signals;
mod student;
mod task;
mod teacher;
mod tokens;
mod train;
mod variations;
mod vocabulary;
mod weights;

#[cfg(test)]
mod tiny;

pub use answers::Accuracy;
pub use distill::distill;
pub use error::{Error, Result};
pub use progress::{Progress, Stage};
pub use recipe::{Data, Losses, Recipe, Student, Teacher, Training};
pub use report::{Data as ReportData, Model, Report, Seconds};
pub use task::Task;
pub use train::Resume;
pub use weights::Architecture;
