//! Peak memory of a session, known from the bundle's manifest alone, before anything is loaded.

/// Bytes that a session needs at its peak, by part.
///
/// Each part is an upper bound; their sum bounds what the process takes from its heap plus what
/// it maps from the bundle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The mapped bundle: weights in the form in which they are used, and everything beside them.
    pub weights_bytes: u64,
    /// Live activations at the widest moment, for the longest sequence.
    pub activations_bytes: u64,
    /// Working space of single operators (quantized rows, attention scores), and of the parts
    /// that tract runs.
    pub scratch_bytes: u64,
    /// Vocabulary and tables of the tokenizer.
    pub tokenizer_bytes: u64,
    /// Longest sequence that was planned for, in tokens; `None` where the shapes are fixed.
    pub sequence: Option<usize>,
}

impl Plan {
    /// The sum of all parts.
    pub fn peak_bytes(&self) -> u64 {
        self.weights_bytes + self.activations_bytes + self.scratch_bytes + self.tokenizer_bytes
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} (weights {}, activations {}, scratch {}, tokenizer {})",
            Size(self.peak_bytes()),
            Size(self.weights_bytes),
            Size(self.activations_bytes),
            Size(self.scratch_bytes),
            Size(self.tokenizer_bytes)
        )
    }
}

/// A number of bytes that prints in the unit a person would choose: `214.0 MiB`, `12.4 KiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const KIB: f64 = 1024.0;
        let bytes = self.0 as f64;
        match self.0 {
            0..1024 => write!(f, "{} B", self.0),
            1024..1_048_576 => write!(f, "{:.1} KiB", bytes / KIB),
            1_048_576..1_073_741_824 => write!(f, "{:.1} MiB", bytes / KIB / KIB),
            _ => write!(f, "{:.2} GiB", bytes / KIB / KIB / KIB),
        }
    }
}
