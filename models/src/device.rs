//! Where a training computes: the processor, or an NVIDIA GPU in a build that has the feature `cuda`.
//!
//! Only what is trained, and what it is asked while it is, goes there. A student's golden answers, and what the
//! report says of it, come from the processor always.

use std::fmt;
use std::str::FromStr;

use burn::tensor;
use serde::{Serialize, Serializer};

use crate::error::{Error, Result};

/// Where a training computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The processor, on all of its cores.
    #[default]
    Cpu,
    /// The NVIDIA GPU of this number, from 0.
    Cuda(usize),
}

impl Device {
    /// The device itself, which has computed once.
    ///
    /// # Errors
    /// [`Error::Device`] where this build has no such device, or this machine.
    pub(crate) fn open(self) -> Result<tensor::Device> {
        match self {
            Device::Cpu => Ok(tensor::Device::flex()),
            Device::Cuda(number) => {
                cuda(number).map_err(|reason| Error::Device { device: self, reason })
            }
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda(_number: usize) -> Result<tensor::Device, String> {
    Err("it was left out of this build; the feature `cuda` puts it in".to_owned())
}

/// Every kernel is compiled on this machine, so it takes the driver, NVRTC and CUDA's headers.
#[cfg(feature = "cuda")]
fn cuda(number: usize) -> Result<tensor::Device, String> {
    // Opening a GPU that is not there, or compiling without headers, would end in a panic.
    let found = tensor::Device::enumerate(tensor::DeviceType::Cuda).into_vec();
    let count = found.len();
    let device = found.into_iter().nth(number);
    let device = device.ok_or_else(|| match count {
        0 => "the driver (`libcuda.so.1`) is missing here, or finds no GPU".to_owned(),
        1 => "this machine has one GPU, `cuda:0`".to_owned(),
        _ => format!("this machine has the GPUs `cuda:0` to `cuda:{}`", count - 1),
    })?;
    let headers = cubecl_cuda::install::cuda_path().map(|path| path.join("include"));
    if !headers.is_some_and(|path| path.join("cuda_fp16.h").exists()) {
        return Err(
            "its kernels are compiled with CUDA's headers, and there are none; install those of \
                    CUDA 12 or 13, and set `CUDA_PATH` to the folder above `include/cuda_fp16.h`"
                .to_owned(),
        );
    }
    first_kernel(&device).map(|()| device)
}

/// Compiles and runs one kernel, so that what is missing is said before the training begins.
#[cfg(feature = "cuda")]
fn first_kernel(device: &tensor::Device) -> Result<(), String> {
    let doubled = || {
        let one = tensor::Tensor::<1>::from_data([1.0_f32, 2.0], device);
        let doubled = one.mul_scalar(2.0).try_into_data().map_err(|error| error.to_string())?;
        doubled.try_to_vec::<f32>().map_err(|error| error.to_string())
    };
    // Where a library cannot be loaded, a thread of the framework panics, and what was asked for stays undone.
    let reason = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(doubled)) {
        Ok(Ok(values)) if values == [2.0, 4.0] => return Ok(()),
        Ok(Ok(values)) => format!("it gave {values:?}, expected [2.0, 4.0]"),
        Ok(Err(reason)) => reason,
        Err(_) => "it was not compiled".to_owned(),
    };
    Err(format!(
        "its first kernel did not run: {reason}; `libnvrtc.so` of CUDA 12 or 13 must be where the loader finds it \
         (`LD_LIBRARY_PATH`)"
    ))
}

impl Serialize for Device {
    /// As it is printed.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => write!(f, "cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    /// `cpu`, `cuda` for the first GPU, or `cuda:N`.
    fn from_str(text: &str) -> Result<Device, String> {
        let number = match text {
            "cpu" => return Ok(Device::Cpu),
            "cuda" => "0",
            _ => text.strip_prefix("cuda:").unwrap_or_default(),
        };
        let number = number.parse().map_err(|_| "expected `cpu`, `cuda` or `cuda:N`".to_owned())?;
        Ok(Device::Cuda(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_they_are_printed() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(3)] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        for wrong in ["", "gpu", "cuda:", "cuda:x", "0"] {
            assert!(wrong.parse::<Device>().is_err(), "{wrong}");
        }
    }
}
