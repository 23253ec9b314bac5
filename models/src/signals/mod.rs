//! Students beyond text: windows of sensors, sound, images.
//!
//! ```text
//! recipe.toml ─▶ train the teacher ─▶ keep its answers ─▶ train the student ─▶ student.onnx
//!   sources       examples              network             examples            export
//! ```
//!
//! The teacher is trained here, on the labels: a large network of convolutions. The student, a small
//! one, learns the labels and the teacher's softened distributions, also about mixtures of two examples,
//! which nobody has labelled (Hinton, Vinyals and Dean 2015; Beyer et al. 2022). Raw numbers go in: what
//! turns them into maps is part of both networks.

mod distill;
mod examples;
mod export;
mod first;
mod front;
mod golden;
mod network;
mod recipe;
mod report;
mod sizes;
mod sources;
mod vary;

#[cfg(test)]
mod tiny;

pub use distill::distill;
pub use front::Front;
pub use recipe::{Copies, Data, Images, Learner, Recipe, Sound, Targets, Windows};
pub use report::{Data as ReportData, Model, Report, Seconds};
pub use sizes::{Block, Convolutional, Kind};
pub use vary::{Motion, Picture, Speech};
