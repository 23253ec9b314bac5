//! The numbers that a model is stored and computed in, by the names of flags and manifests.

/// In what numbers a model's weights are stored and its linear layers computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32-bit floating point throughout.
    F32,
    /// 8-bit weights per output channel, activations rounded row by row at run time.
    Int8,
    /// 8-bit weights per output channel, activations rounded in one calibrated range a tensor.
    Int8Static,
    /// 4-bit weights in groups of 32 inputs, stored in half the bytes of int8 and computed as it is.
    Int4,
    /// The same in groups of 16 inputs.
    #[serde(rename = "int4-16")]
    Int4By16,
    /// The same in groups of 8 inputs.
    #[serde(rename = "int4-8")]
    Int4By8,
    /// 16-bit floating-point weights, stored in half the bytes of f32 and computed as it is.
    F16,
}

impl Precision {
    /// Every one.
    pub const ALL: [Precision; 7] = [
        Precision::F32,
        Precision::Int8,
        Precision::Int8Static,
        Precision::Int4,
        Precision::Int4By16,
        Precision::Int4By8,
        Precision::F16,
    ];

    /// The name that flags and manifests use.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Int8 => "int8",
            Precision::Int8Static => "int8-static",
            Precision::Int4 => "int4",
            Precision::Int4By16 => "int4-16",
            Precision::Int4By8 => "int4-8",
            Precision::F16 => "f16",
        }
    }

    /// Whether it multiplies floats.
    pub(crate) fn is_float(self) -> bool {
        matches!(self, Precision::F32 | Precision::F16)
    }

    /// Inputs that share a step of four bits; `None` where steps have more.
    pub(crate) fn group(self) -> Option<usize> {
        match self {
            Precision::Int4 => Some(32),
            Precision::Int4By16 => Some(16),
            Precision::Int4By8 => Some(8),
            _ => None,
        }
    }

    /// The next one with less rounding, which a node is put back to where this one costs too much.
    pub(crate) fn finer(self) -> Option<Precision> {
        match self {
            Precision::F32 => None,
            Precision::Int8 | Precision::F16 => Some(Precision::F32),
            // A range for each row in place of one for all.
            Precision::Int8Static => Some(Precision::Int8),
            // Smaller groups, then 255 steps for each output in place of 15 for each group.
            Precision::Int4 => Some(Precision::Int4By16),
            Precision::Int4By16 => Some(Precision::Int4By8),
            Precision::Int4By8 => Some(Precision::Int8),
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Precision, String> {
        let found = Precision::ALL.into_iter().find(|precision| precision.name() == text);
        let names = Precision::ALL.map(Precision::name).join("`, `");
        found.ok_or_else(|| format!("`{text}` is no precision; choose one of `{names}`"))
    }
}
