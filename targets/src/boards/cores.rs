//! Processor cores: what one of them can multiply in a cycle, at the very best.

use super::{Figure, derived, estimated, published};
use core::fmt;

/// A kind of processor core. Peaks count multiply-accumulates (MACs: one multiplication and one
/// addition) of one core with every vector unit busy and all operands in registers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Core {
    /// As its designer writes it.
    pub name: &'static str,
    /// Instruction-set extensions that a kernel may choose by, the oldest first.
    pub features: &'static [Feature],
    /// f32 MACs per cycle.
    pub f32_macs_per_cycle: Figure<u32>,
    /// int8 MACs per cycle. Where the core has no dot product this counts the widening multiplies
    /// alone; the pairwise additions that keep 16-bit sums from overflowing come on top.
    pub int8_macs_per_cycle: Figure<u32>,
}

/// An instruction-set extension that matters to a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feature {
    /// AArch64 Advanced SIMD, 128-bit.
    Neon,
    /// Half-precision arithmetic.
    Fp16,
    /// `SDOT` and `UDOT`: four int8 products summed into each 32-bit lane.
    Dotprod,
    /// bfloat16 dot products and matrix multiply.
    Bf16,
    /// `SMMLA` and its like: 2x8 by 8x2 int8 matrix multiply.
    I8mm,
    /// Scalable vectors.
    Sve,
    /// 256-bit integer vectors.
    Avx2,
    /// Fused multiply-add on 256-bit vectors.
    Fma,
    /// `VPDPBUSD` on 256-bit vectors.
    AvxVnni,
    /// 512-bit vectors (the F, BW, DQ, CD and VL subsets).
    Avx512,
    /// `VPDPBUSD` on 512-bit vectors.
    Avx512Vnni,
}

impl Core {
    /// Whether the core is known to have `feature`.
    pub fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }
}

impl Feature {
    /// The name that rustc's `-C target-feature` knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Neon => "neon",
            Self::Fp16 => "fp16",
            Self::Dotprod => "dotprod",
            Self::Bf16 => "bf16",
            Self::I8mm => "i8mm",
            Self::Sve => "sve",
            Self::Avx2 => "avx2",
            Self::Fma => "fma",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512f",
            Self::Avx512Vnni => "avx512vnni",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

pub(super) const CORTEX_A53: Core = Core {
    name: "Cortex-A53",
    features: &[Feature::Neon],
    f32_macs_per_cycle: derived(4, "two 64-bit vector pipes: one 4-lane FMLA a cycle"),
    int8_macs_per_cycle: derived(8, "one 8-lane SMLAL a cycle; SADALP shares the pipes"),
};

pub(super) const CORTEX_A57: Core = Core {
    name: "Cortex-A57",
    features: &[Feature::Neon],
    f32_macs_per_cycle: derived(4, "two 64-bit vector pipes: one 4-lane FMLA a cycle"),
    int8_macs_per_cycle: derived(8, "integer multiplies on one pipe: one 8-lane SMLAL a cycle"),
};

pub(super) const CORTEX_A72: Core = Core {
    name: "Cortex-A72",
    features: &[Feature::Neon],
    // Often written as 8, which counts the multiplication and the addition apart.
    f32_macs_per_cycle: published(4, "vfpbench on a MT8173C: 15.88 GFLOP/s at 2.0 GHz"),
    int8_macs_per_cycle: derived(8, "integer multiplies on one pipe: one 8-lane SMLAL a cycle"),
};

pub(super) const CORTEX_A76: Core = Core {
    name: "Cortex-A76",
    features: &[Feature::Neon, Feature::Fp16, Feature::Dotprod],
    f32_macs_per_cycle: derived(8, "two 128-bit pipes, a 4-lane FMLA on each"),
    int8_macs_per_cycle: derived(32, "two 128-bit pipes, a 16-product SDOT on each"),
};

pub(super) const CORTEX_A78AE: Core = Core {
    name: "Cortex-A78AE",
    features: &[Feature::Neon, Feature::Fp16, Feature::Dotprod],
    f32_macs_per_cycle: derived(8, "two 128-bit pipes, a 4-lane FMLA on each"),
    int8_macs_per_cycle: derived(32, "two 128-bit pipes, a 16-product SDOT on each"),
};

pub(super) const NEOVERSE_V1: Core = Core {
    name: "Neoverse V1",
    features: &[
        Feature::Neon,
        Feature::Fp16,
        Feature::Dotprod,
        Feature::Bf16,
        Feature::I8mm,
        Feature::Sve,
    ],
    f32_macs_per_cycle: derived(16, "four 128-bit pipes, a 4-lane FMLA on each"),
    int8_macs_per_cycle: estimated(128, "four 128-bit pipes, a 32-product SMMLA on each"),
};

pub(super) const GRACEMONT: Core = Core {
    name: "Gracemont",
    features: &[Feature::Avx2, Feature::Fma, Feature::AvxVnni],
    f32_macs_per_cycle: derived(8, "two 128-bit FMA pipes; a 256-bit operation takes both"),
    int8_macs_per_cycle: estimated(32, "16-product VPDPBUSD on two 128-bit pipes, rate unchecked"),
};

pub(super) const SKYLAKE_SP: Core = Core {
    name: "Skylake-SP or Cascade Lake",
    features: &[Feature::Avx2, Feature::Fma, Feature::Avx512],
    f32_macs_per_cycle: derived(32, "two 512-bit FMA pipes, 16 lanes each"),
    int8_macs_per_cycle: derived(
        42,
        "64 products in VPMADDUBSW + VPMADDWD + VPADDD on two pipes; 128 where the host has VNNI",
    ),
};
