//! One setting of the system's allocator, for what takes and frees the same large blocks over and over.
#![allow(unsafe_code)]

/// Keeps freed memory in the process instead of handing it back to the kernel: handing large blocks back and
/// clearing them anew costs a step of training, or a run of operators of tract's, 1.1 to 1.6 times the time. Does
/// nothing where the C library is not glibc.
pub(crate) fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for parameter in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // Some versions take no threshold above 32 MiB.
        for bytes in [1 << 30, 32 << 20] {
            // SAFETY: `mallopt` takes two integers by value and only stores the second, under the allocator's own
            // lock.
            if unsafe { libc::mallopt(parameter, bytes) } == 1 {
                break;
            }
        }
    }
}
