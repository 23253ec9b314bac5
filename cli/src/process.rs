//! What the running process has used so far.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Processor time of all threads of this process, since it began.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The most physical memory that this process has held (`VmHWM`): heap, stack, the touched pages of
/// the program and of mapped files. `None` where the system has no `/proc`.
pub(crate) fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    kibibytes(&status, "VmHWM:")
}

/// The value of the line `key  1234 kB`, in bytes.
pub(crate) fn kibibytes(table: &str, key: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.strip_prefix(key))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(number * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_writes_kib_and_calls_them_kb() {
        let table = "VmPeak:\t   10 kB\nVmHWM:\t   12 kB\n";
        assert_eq!(kibibytes(table, "VmHWM:"), Some(12 << 10));
        assert_eq!(kibibytes(table, "VmRSS:"), None);
    }
}
