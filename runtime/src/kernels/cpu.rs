//! Which instructions this machine has -> `Cpu`, the proof that lets safe code call compiled-for-it code.
#![allow(unsafe_code)]

use std::fmt;

/// A class of processors that this machine was seen to belong to. Every kernel takes one and gives the
/// same bits for each; only the time differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpu {
    level: Level,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Level {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx2Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "aarch64")]
    NeonDotprod,
    #[cfg(target_arch = "aarch64")]
    NeonI8mm,
}

impl Cpu {
    /// The fastest class that this machine belongs to.
    pub fn detect() -> Cpu {
        Cpu::available().last().unwrap_or(Cpu::scalar())
    }

    /// The class that every machine belongs to: its code defines the result of each kernel.
    pub fn scalar() -> Cpu {
        Cpu { level: Level::Scalar }
    }

    /// Every class that this machine belongs to, slowest first.
    pub fn available() -> impl Iterator<Item = Cpu> {
        LEVELS.iter().copied().filter(|level| level.runs_here()).map(|level| Cpu { level })
    }

    /// A short name without spaces, the same on every machine: `scalar`, `avx2`, `avx2-vnni`, `avx512`,
    /// `avx512-vnni`, `neon`, `neon-dotprod`, `neon-i8mm`.
    pub fn name(self) -> &'static str {
        match self.level {
            Level::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2Vnni => "avx2-vnni",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => "avx512-vnni",
            #[cfg(target_arch = "aarch64")]
            Level::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Level::NeonDotprod => "neon-dotprod",
            #[cfg(target_arch = "aarch64")]
            Level::NeonI8mm => "neon-i8mm",
        }
    }

    pub(super) fn level(self) -> Level {
        self.level
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(target_arch = "x86_64")]
const LEVELS: &[Level] =
    &[Level::Scalar, Level::Avx2, Level::Avx2Vnni, Level::Avx512, Level::Avx512Vnni];
#[cfg(target_arch = "aarch64")]
const LEVELS: &[Level] = &[Level::Scalar, Level::Neon, Level::NeonDotprod, Level::NeonI8mm];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const LEVELS: &[Level] = &[Level::Scalar];

impl Level {
    #[cfg(target_arch = "x86_64")]
    pub(super) fn runs_here(self) -> bool {
        use std::arch::is_x86_feature_detected as has;
        match self {
            Level::Scalar => true,
            Level::Avx2 => has!("avx2") && has!("fma"),
            Level::Avx2Vnni => Level::Avx2.runs_here() && has!("avxvnni"),
            Level::Avx512 => {
                let wide =
                    has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
                Level::Avx2.runs_here() && wide
            }
            Level::Avx512Vnni => Level::Avx512.runs_here() && has!("avx512vnni"),
        }
    }

    #[cfg(target_arch = "aarch64")]
    pub(super) fn runs_here(self) -> bool {
        use std::arch::is_aarch64_feature_detected as has;
        match self {
            // The architecture's base includes NEON with fused multiply-add.
            Level::Scalar | Level::Neon => true,
            Level::NeonDotprod => has!("dotprod"),
            Level::NeonI8mm => Level::NeonDotprod.runs_here() && has!("i8mm"),
        }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub(super) fn runs_here(self) -> bool {
        true
    }
}

/// Lanes of f32 that fill a vector or two where nothing is known of the processor.
#[cfg(target_arch = "aarch64")]
pub(super) const BASE_LANES: usize = 8;
#[cfg(not(target_arch = "aarch64"))]
pub(super) const BASE_LANES: usize = 4;

/// Calls `$body`, an `#[inline(always)]` function of plain Rust, compiled for the class of `$cpu`; as `$body::<LANES>`
/// with the number of f32 that a vector of that class holds.
///
/// Rust neither reassociates floating-point operations nor contracts them, so each compilation gives the
/// same bits and only the width of the vectors differs.
macro_rules! per_cpu {
    ($cpu:expr, $body:ident($($name:ident: $type:ty),* $(,)?)) => {
        $crate::kernels::cpu::per_cpu!($cpu, [$body, $body, $body], ($($name: $type),*))
    };
    ($cpu:expr, $body:ident::<LANES>($($name:ident: $type:ty),* $(,)?)) => {
        $crate::kernels::cpu::per_cpu!(
            $cpu,
            [$body::<{ $crate::kernels::cpu::BASE_LANES }>, $body::<8>, $body::<16>],
            ($($name: $type),*)
        )
    };
    ($cpu:expr, [$base:expr, $eight:expr, $sixteen:expr], ($($name:ident: $type:ty),*)) => {{
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($name: $type),*) {
                $eight($($name),*)
            }
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512($($name: $type),*) {
                $sixteen($($name),*)
            }
            use $crate::kernels::cpu::Level;
            match $cpu.level() {
                Level::Scalar => $base($($name),*),
                // SAFETY: a `Cpu` of these levels exists only where detection found AVX2 and FMA.
                #[allow(unsafe_code)]
                Level::Avx2 | Level::Avx2Vnni => unsafe { avx2($($name),*) },
                // SAFETY: a `Cpu` of these levels exists only where detection found all of the features.
                #[allow(unsafe_code)]
                Level::Avx512 | Level::Avx512Vnni => unsafe { avx512($($name),*) },
            }
        }
        // Elsewhere the base instructions are all there is to compile for; NEON is part of aarch64's.
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = $cpu;
            $base($($name),*)
        }
    }};
}
pub(super) use per_cpu;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detected_class_is_the_last_available_and_scalar_the_first() {
        let all: Vec<Cpu> = Cpu::available().collect();
        assert_eq!(all.first(), Some(&Cpu::scalar()));
        assert_eq!(all.last(), Some(&Cpu::detect()));
    }
}
