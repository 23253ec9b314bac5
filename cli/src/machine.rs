//! What this machine is, as far as it says so itself.

use std::fs::read_to_string;

use dram_runtime::Budget;
use dram_targets::boards::{Board, boards};

use crate::process::kibibytes;

/// Instruction-set extensions that a kernel may choose by, and whether this machine has them, by the
/// names of rustc's `-C target-feature`.
pub(crate) fn features() -> Vec<(&'static str, bool)> {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    macro_rules! detect {
        ($has:ident: $($name:tt)*) => { vec![$(($name, std::arch::$has!($name))),*] };
    }
    #[cfg(target_arch = "x86_64")]
    let features = detect!(is_x86_feature_detected:
        "avx2" "fma" "avxvnni" "avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512vnni");
    #[cfg(target_arch = "aarch64")]
    let features =
        detect!(is_aarch64_feature_detected: "neon" "fp16" "dotprod" "bf16" "i8mm" "sve");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let features = Vec::new();
    features
}

/// As its maker wrote it into the device tree or the firmware; `None` where neither is there.
pub(crate) fn model() -> Option<String> {
    ["/proc/device-tree/model", "/sys/class/dmi/id/product_name"]
        .iter()
        .filter_map(|path| read_to_string(path).ok())
        // The device tree ends its strings with a zero byte.
        .map(|text| text.trim_end_matches(['\0', '\n']).trim().to_owned())
        .find(|text| !text.is_empty())
}

/// The row of the board table whose name `model` begins with; where memory comes in several sizes
/// the row stands for one of them.
pub(crate) fn guess_board(model: &str) -> Option<&'static Board> {
    // Device trees spell out what the maker's documents abbreviate.
    let model = model.replace(" Plus", "+");
    boards()
        .iter()
        .filter(|board| model.starts_with(bare_name(board)))
        .max_by_key(|board| bare_name(board).len())
}

/// The board's name without the variant in brackets.
fn bare_name(board: &Board) -> &'static str {
    board.name.split(" (").next().unwrap_or(board.name)
}

/// The processor as the kernel names it; `None` on most ARM boards.
pub(crate) fn processor() -> Option<String> {
    let table = read_to_string("/proc/cpuinfo").ok()?;
    let line = table.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// All RAM that the kernel manages, in bytes.
pub(crate) fn ram_bytes() -> Option<u64> {
    kibibytes(&read_to_string("/proc/meminfo").ok()?, "MemTotal:")
}

/// RAM that a new program can take before the system swaps or reaches the limit of its control
/// group, in bytes.
pub(crate) fn ram_available_bytes() -> Option<u64> {
    let available = kibibytes(&read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    let number = |path: &str| read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = || {
        let limit = number("/sys/fs/cgroup/memory.max")?;
        Some(limit.saturating_sub(number("/sys/fs/cgroup/memory.current")?))
    };
    Some(group().map_or(available, |left| left.min(available)))
}

/// Size of the largest cache of the first core.
pub(crate) fn cache_bytes() -> Option<u64> {
    let caches = std::fs::read_dir("/sys/devices/system/cpu/cpu0/cache").ok()?;
    let sizes = caches.filter_map(|cache| {
        let size = read_to_string(cache.ok()?.path().join("size")).ok()?;
        size.trim().parse().ok().map(Budget::ram_bytes)
    });
    sizes.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_board_is_known_by_its_device_tree() {
        for (model, id) in [
            ("Raspberry Pi Zero 2 W Rev 1.0", Some("rpi-zero-2w")),
            ("Raspberry Pi 3 Model B Plus Rev 1.3", Some("rpi-3b-plus")),
            ("Raspberry Pi 3 Model B Rev 1.2", None),
            ("Raspberry Pi 4 Model B Rev 1.5", Some("rpi-4")),
            ("Raspberry Pi 5 Model B Rev 1.0", Some("rpi-5")),
            ("NVIDIA Jetson Nano Developer Kit", Some("jetson-nano")),
            ("Some other computer", None),
        ] {
            assert_eq!(guess_board(model).map(|board| board.id), id, "{model}");
        }
    }
}
