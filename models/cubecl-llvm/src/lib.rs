//! In place of the crate of this name, which links an LLVM that its build script downloads.
//!
//! `cubecl-cuda`, through which burn reaches an NVIDIA GPU, names two code generators: one that writes CUDA C++ for
//! NVRTC, and one that goes through LLVM. Its feature `cpp` chooses the first for all kernels, but both are linked.
//! With this crate in `[patch.crates-io]` the second is never more than these names, and a build for the GPU takes
//! neither LLVM nor a CUDA toolkit nor the network. `cubecl-cuda` says what is here and how it is spelled: where its
//! version changes, the compiler tells what this file lacks.

use cubecl_core::ir::nvidia::SmArch;
use cubecl_core::prelude::KernelDefinition;
use cubecl_server::compiler::{CompilationError, Compiler};
use cubecl_server::kernel::BufferIOAttr;

/// What can only be reached without the feature `cpp`.
const LEFT_OUT: &str = "LLVM was left out: `cubecl-cuda` is built with its feature `cpp`";

/// Versions of PTX.
pub mod nvptx {
    /// Versions of PTX.
    pub mod ptx_version {
        /// The version that a driver takes: here the driver's own, which goes into the key of a compiled kernel.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct PtxVersion(u32);

        impl PtxVersion {
            /// That of `driver`, as `cuDriverGetVersion` gives it; none before CUDA 10.
            pub fn for_driver(driver: i32) -> Option<PtxVersion> {
                (driver >= 10_000).then_some(PtxVersion(driver as u32))
            }
        }

        impl core::fmt::Display for PtxVersion {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "driver{}", self.0)
            }
        }
    }
}

/// What all LLVM targets share.
pub mod shared {
    /// What a target cannot do.
    pub mod lowered_features {
        /// A kind of GPU.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum GpuTarget {
            /// NVIDIA's.
            Nvptx,
        }

        /// Takes from `properties` what LLVM does not lower for `target`; `cpp` never calls it.
        pub fn restrict_features(
            _properties: &mut cubecl_core::ir::DeviceProperties,
            _target: GpuTarget,
        ) {
            unreachable!("{}", crate::LEFT_OUT)
        }
    }
}

/// What LLVM would compile for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LlvmTarget {
    /// The processor.
    #[default]
    Cpu,
    /// NVIDIA's GPUs.
    Nvptx,
}

/// How LLVM would compile.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// For a GPU of another maker.
    pub arch: Option<()>,
    /// For a GPU of NVIDIA's.
    pub sm_arch: Option<SmArch>,
    /// In which version of PTX.
    pub ptx_version: Option<nvptx::ptx_version::PtxVersion>,
    /// Whether a kernel's arguments are constants of its grid.
    pub grid_constants: bool,
}

/// A kernel that LLVM would have compiled to PTX.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// Its code.
    pub ptx: Vec<core::ffi::c_char>,
    /// Where it begins.
    pub entrypoint: String,
    /// What it was compiled from.
    pub ir: String,
    /// Shared memory that it takes, in bytes.
    pub shared_memory_size: usize,
    /// Which of its buffers it reads and writes.
    pub io: Vec<BufferIOAttr>,
}

/// What LLVM would have made.
#[derive(Clone)]
pub enum PlironArtifact {
    /// For the processor.
    Jit,
    /// For a GPU of NVIDIA's.
    NvptxCode(NvptxModule),
}

impl core::fmt::Display for PlironArtifact {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(LEFT_OUT)
    }
}

/// The compiler that is not here.
#[derive(Clone, Debug, Default)]
pub struct PlironCompiler {
    /// What it would compile for.
    pub target: LlvmTarget,
}

impl Compiler for PlironCompiler {
    type Representation = PlironArtifact;
    type CompilationOptions = PlironOptions;

    fn buffer_io(_: &PlironArtifact) -> Option<Vec<BufferIOAttr>> {
        None
    }

    fn compile(
        &mut self,
        _: KernelDefinition,
        _: &PlironOptions,
    ) -> Result<PlironArtifact, CompilationError> {
        unreachable!("{LEFT_OUT}")
    }

    fn extension(&self) -> &'static str {
        "ll"
    }

    fn lang_tag(&self) -> &'static str {
        "llvm"
    }
}
