//! Recipes and data of every kind, of a size that trains in a second, for tests.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::{Compression, Crc, write::GzEncoder};

use crate::seed::Random;

/// Examples that are learned from and measured on; a label each in turn.
pub(crate) const EXAMPLES: usize = 60;
/// Of these, the last ones are measured on.
const MEASURED: usize = 12;
const LABELS: usize = 3;

/// The kinds of data.
pub(crate) const KINDS: [&str; 3] = ["windows", "sound", "images"];

/// Writes data and a recipe of this `kind` into `folder`; returns the recipe's path.
pub(crate) fn workplace(folder: &Path, kind: &str) -> PathBuf {
    let (data, kernel) = match kind {
        "windows" => (windows(folder), [1, 3]),
        "sound" => (sound(folder), [1, 3]),
        "images" => (images(folder), [3, 3]),
        _ => panic!("no data of kind {kind}"),
    };
    let recipe = RECIPE.replace("{DATA}", &data).replace("{KERNEL}", &format!("{kernel:?}"));
    let path = folder.join("recipe.toml");
    std::fs::write(&path, recipe).expect("a writable folder");
    path
}

/// Sines, faster for each label, in three channels of 32 samples.
fn windows(folder: &Path) -> String {
    let mut random = Random::new(1, "tiny", 0);
    let window = |example: usize| {
        let (turns, phase) = ((1 + 3 * (example % LABELS)) as f32, random.signed());
        let sample =
            move |n: usize| (turns * n as f32 / 32.0 * std::f32::consts::TAU + phase).sin();
        (0..32).flat_map(move |n| [0.1, 1.0, -1.0].map(|gain| gain * sample(n)))
    };
    let windows: Vec<f32> = (0..EXAMPLES).flat_map(window).collect();
    let labels: Vec<u8> = (0..EXAMPLES).map(|example| (example % LABELS) as u8).collect();
    let subjects: Vec<u8> = (0..EXAMPLES).map(|it| u8::from(it >= EXAMPLES - MEASURED)).collect();
    let bytes: Vec<u8> = windows.iter().flat_map(|value| value.to_le_bytes()).collect();
    let archive = zip(&[
        ("windows.npy", npy("<f4", &format!("({EXAMPLES}, 32, 3)"), &bytes)),
        ("labels.npy", npy("|u1", &format!("({EXAMPLES},)"), &labels)),
        ("subjects.npy", npy("|u1", &format!("({EXAMPLES},)"), &subjects)),
    ]);
    std::fs::write(folder.join("data.npz"), archive).expect("a writable folder");
    r#"kind = "windows"
file = "data.npz"
samples = 32
channels = 3
validation_subjects = [1]
vary = { rotate_degrees = 5.0, scale = 0.1, warp = 0.05, noise = 0.02 }"#
        .to_owned()
}

/// Tones, higher for each label, at 1000 Hz.
fn sound(folder: &Path) -> String {
    let mut random = Random::new(2, "tiny", 0);
    for example in 0..EXAMPLES {
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: 1000,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let path = folder.join(format!("{}_me_{example}.wav", label(example)));
        let mut file = hound::WavWriter::create(path, spec).expect("a writable folder");
        let hertz = (60 + 120 * (example % LABELS)) as f32;
        for n in 0..240 + example {
            let wave = (n as f32 * hertz / 1000.0 * std::f32::consts::TAU).sin();
            let sample = 8000.0 * (wave + 0.05 * random.normal());
            file.write_sample(sample as i16).expect("a writable file");
        }
        file.finalize().expect("a writable file");
    }
    format!(
        r#"kind = "sound"
folder = "."
rate_hz = 1000
samples = 256
frame = 64
hop = 32
bands = 8
validation_indices = [{}, {EXAMPLES}]
vary = {{ shift = 8, scale = 0.1, warp = 0.02, noise = 0.001 }}"#,
        EXAMPLES - MEASURED
    )
}

/// A bright bar: upright, lying, or aslant.
fn images(folder: &Path) -> String {
    let mut random = Random::new(3, "tiny", 0);
    let image = |example: usize| {
        let place = 3 + random.below(6);
        (0..144).map(move |pixel| {
            let (row, column) = (pixel / 12, pixel % 12);
            let bright = match example % LABELS {
                0 => column == place,
                1 => row == place,
                _ => row == column,
            };
            if bright { 200 } else { 20 }
        })
    };
    let images: Vec<u8> = (0..EXAMPLES).flat_map(image).collect();
    let labels: Vec<u8> = (0..EXAMPLES).map(|example| (example % LABELS) as u8).collect();
    for (name, extents, elements) in [
        ("train-images-idx3-ubyte.gz", &[EXAMPLES as u32, 12, 12][..], images),
        ("train-labels-idx1-ubyte.gz", &[EXAMPLES as u32], labels),
    ] {
        let file = std::fs::File::create(folder.join(name)).expect("a writable folder");
        let mut file = GzEncoder::new(file, Compression::fast());
        let extents_bytes = extents.iter().flat_map(|extent| extent.to_be_bytes());
        let header = [0, 0, 8, extents.len() as u8].into_iter().chain(extents_bytes);
        file.write_all(&header.chain(elements).collect::<Vec<_>>()).expect("a writable file");
        file.finish().expect("a writable file");
    }
    format!(
        r#"kind = "images"
folder = "."
height = 12
width = 12
validation_images = {MEASURED}
vary = {{ shift = 1, scale = 0.1, mirror = false }}"#
    )
}

fn label(example: usize) -> &'static str {
    ["low", "middle", "high"][example % LABELS]
}

/// An `.npy` file of version 1.
fn npy(descr: &str, shape: &str, elements: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), elements].concat()
}

/// A zip archive of stored entries.
pub(crate) fn zip(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for (name, contents) in entries {
        let mut crc = Crc::new();
        crc.update(contents);
        let size = (contents.len() as u32).to_le_bytes();
        let name_len = (name.len() as u16).to_le_bytes();
        let place = (archive.len() as u32).to_le_bytes();
        // Version, flags, method, time and date; then CRC, both sizes, the lengths of name and extra.
        let common =
            [&[20, 0][..], &[0; 8], &crc.sum().to_le_bytes(), &size, &size, &name_len].concat();
        archive.extend([b"PK\x03\x04", &common[..], &[0; 2], name.as_bytes(), contents].concat());
        let entry = [b"PK\x01\x02", &[20, 0][..], &common, &[0; 12], &place, name.as_bytes()];
        directory.extend(entry.concat());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let size = (directory.len() as u32).to_le_bytes();
    let place = (archive.len() as u32).to_le_bytes();
    let end = [b"PK\x05\x06", &[0; 4][..], &count, &count, &size, &place, &[0; 2]].concat();
    [archive, directory, end].concat()
}

const RECIPE: &str = r#"
name = "tiny"
seed = 3

[data]
licence = "none"
labels = ["low", "middle", "high"]
{DATA}

[copies]
labelled = 1
mixed = 1

[teacher]
blocks = [
    { kind = "plain", channels = 8, kernel = {KERNEL}, stride = [1, 1] },
    { kind = "residual", channels = 12, kernel = {KERNEL}, stride = [1, 2] },
]
training = { epochs = 6, batch = 16, learning_rate = 2e-2, warmup = 0.1, weight_decay = 0.01, clip_norm = 1.0 }

[student]
blocks = [
    { kind = "plain", channels = 6, kernel = {KERNEL}, stride = [1, 2] },
    { kind = "residual", channels = 6, kernel = {KERNEL}, stride = [1, 1] },
]
training = { epochs = 6, batch = 16, learning_rate = 2e-2, warmup = 0.1, weight_decay = 0.01, clip_norm = 1.0 }

[losses]
temperature = 2.0
soft = 1.0
hard = 0.5
"#;
