//! Students beyond text: windows of sensors, sound, images.
//!
//! ```text
//! recipe.toml ─▶ train the teacher ─▶ keep its answers ─▶ train the student ─▶ student.onnx
//!   sources       examples, train       answers             examples, train     export
//! ```
//!
//! The teacher is trained here, on the labels: a large network of convolutions. The student, a small
//! one, learns the labels and the teacher's softened distributions, also about mixtures of two examples,
//! which nobody has labelled (Hinton, Vinyals and Dean 2015; Beyer et al. 2022). Raw numbers go in: what
//! turns them into maps is part of both networks.

mod answers;
mod distill;
mod examples;
mod export;
mod front;
mod golden;
mod memory;
mod network;
mod recipe;
mod report;
mod sources;
mod train;
mod vary;
mod weights;

#[cfg(test)]
mod tiny;

pub use distill::distill;
pub use front::Front;
pub use network::{Block, Convolutional, Kind};
pub use recipe::{Copies, Data, Images, Learner, Recipe, Sound, Targets, Training, Windows};
pub use report::{Data as ReportData, Model, Report, Seconds};
pub use vary::{Motion, Picture, Speech};
