//! The board table itself.

use super::cores::{
    CORTEX_A53, CORTEX_A57, CORTEX_A72, CORTEX_A76, CORTEX_A78AE, GRACEMONT, NEOVERSE_V1,
    SKYLAKE_SP,
};
use super::{Board, datasheet, derived, estimated, published};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const ARM_LINUX: &str = "aarch64-unknown-linux-gnu";
const X86_LINUX: &str = "x86_64-unknown-linux-gnu";

const PI_BRIEF: &str = "Raspberry Pi product brief";
const PI_CLOCKS: &str = "Raspberry Pi documentation, config.txt, default overclocking options";

pub(super) static BOARDS: [Board; 10] = [
    Board {
        id: "rpi-zero-2w",
        name: "Raspberry Pi Zero 2 W",
        target_triple: ARM_LINUX,
        core: &CORTEX_A53,
        cores: datasheet(4, PI_BRIEF),
        clock_mhz: datasheet(1_000, PI_CLOCKS),
        ram_bytes: datasheet(512 * MIB, PI_BRIEF),
        ram_usable_bytes: estimated(
            360 * MIB,
            "MemTotal of about 416 MiB (64 MiB for graphics) less 56 MiB for a resting Lite system",
        ),
        memory_bytes_per_second: derived(3_600_000_000, "LPDDR2 at 450 MHz, 32 bits wide"),
    },
    Board {
        id: "rpi-3b-plus",
        name: "Raspberry Pi 3 Model B+",
        target_triple: ARM_LINUX,
        core: &CORTEX_A53,
        cores: datasheet(4, PI_BRIEF),
        clock_mhz: datasheet(1_400, PI_CLOCKS),
        ram_bytes: datasheet(GIB, PI_BRIEF),
        ram_usable_bytes: estimated(
            800 * MIB,
            "MemTotal of about 908 MiB (76 MiB for graphics) less 100 MiB for a resting system",
        ),
        memory_bytes_per_second: derived(4_000_000_000, "LPDDR2 at 500 MHz, 32 bits wide"),
    },
    Board {
        id: "beagleplay",
        name: "BeaglePlay (TI AM6254)",
        target_triple: ARM_LINUX,
        core: &CORTEX_A53,
        cores: datasheet(4, "TI AM625 datasheet: AM6254"),
        clock_mhz: datasheet(1_400, "TI AM625 datasheet"),
        ram_bytes: datasheet(2 * GIB, "BeaglePlay documentation: 2 GB DDR4"),
        ram_usable_bytes: estimated(
            1_600 * MIB,
            "2 GiB less firmware carve-outs, contiguous memory and a resting Debian",
        ),
        memory_bytes_per_second: derived(3_200_000_000, "DDR4-1600, 16 bits wide"),
    },
    Board {
        id: "rpi-4",
        name: "Raspberry Pi 4 Model B (4 GB)",
        target_triple: ARM_LINUX,
        core: &CORTEX_A72,
        cores: datasheet(4, PI_BRIEF),
        clock_mhz: datasheet(1_500, "Raspberry Pi product brief; 1,800 from revision 1.4 on"),
        ram_bytes: datasheet(4 * GIB, PI_BRIEF),
        ram_usable_bytes: estimated(
            3_600 * MIB,
            "MemTotal of about 3,794 MiB less 190 MiB for a resting system",
        ),
        memory_bytes_per_second: derived(12_800_000_000, "LPDDR4-3200, 32 bits wide"),
    },
    Board {
        id: "rpi-5",
        name: "Raspberry Pi 5 (4 GB)",
        target_triple: ARM_LINUX,
        core: &CORTEX_A76,
        cores: datasheet(4, PI_BRIEF),
        clock_mhz: datasheet(2_400, PI_BRIEF),
        ram_bytes: datasheet(4 * GIB, PI_BRIEF),
        ram_usable_bytes: estimated(
            3_700 * MIB,
            "4,096 MiB less the 143 that an 8 GB board was seen to reserve and 250 for the system",
        ),
        memory_bytes_per_second: derived(17_068_000_000, "LPDDR4X-4267, 32 bits wide"),
    },
    Board {
        id: "jetson-nano",
        name: "NVIDIA Jetson Nano (4 GB)",
        target_triple: ARM_LINUX,
        core: &CORTEX_A57,
        cores: datasheet(4, "NVIDIA Jetson Nano datasheet"),
        clock_mhz: datasheet(1_430, "NVIDIA Jetson Nano datasheet"),
        ram_bytes: datasheet(4 * GIB, "NVIDIA Jetson Nano datasheet"),
        ram_usable_bytes: estimated(
            3_300 * MIB,
            "MemTotal of about 3,956 MiB less 650 MiB for Linux for Tegra without a desktop",
        ),
        memory_bytes_per_second: datasheet(25_600_000_000, "NVIDIA Jetson Nano datasheet"),
    },
    Board {
        id: "jetson-orin-nano",
        name: "NVIDIA Jetson Orin Nano (8 GB)",
        target_triple: ARM_LINUX,
        core: &CORTEX_A78AE,
        cores: datasheet(6, "NVIDIA Jetson Orin Nano datasheet"),
        clock_mhz: datasheet(1_500, "NVIDIA Jetson Orin Nano datasheet; 1,700 in the Super mode"),
        ram_bytes: datasheet(8 * GIB, "NVIDIA Jetson Orin Nano datasheet"),
        ram_usable_bytes: estimated(
            6_700 * MIB,
            "MemTotal of about 7,600 MiB less 900 MiB for Linux for Tegra without a desktop",
        ),
        memory_bytes_per_second: datasheet(
            68_000_000_000,
            "NVIDIA Jetson Orin Nano datasheet; 102 GB/s in the Super mode",
        ),
    },
    Board {
        id: "intel-n100",
        name: "Intel N100 mini PC (8 GB)",
        target_triple: X86_LINUX,
        core: &GRACEMONT,
        cores: datasheet(4, "Intel ARK: Processor N100"),
        clock_mhz: published(3_387, "sbc-bench on a Radxa X4, all cores, cooled; 3,400 nominal"),
        ram_bytes: estimated(8 * GIB, "a common fitting; boards are sold with 4 to 16 GiB"),
        ram_usable_bytes: estimated(
            7_400 * MIB,
            "MemTotal of 7,717 MiB (sbc-bench on a Radxa X4) less 317 MiB for a resting system",
        ),
        memory_bytes_per_second: derived(38_400_000_000, "DDR5-4800, one channel of 64 bits"),
    },
    Board {
        id: "aws-c7g-xlarge",
        name: "AWS c7g.xlarge (Graviton3, 4 cores)",
        target_triple: ARM_LINUX,
        core: &NEOVERSE_V1,
        cores: datasheet(4, "AWS instance types: 4 vCPU, each a core"),
        clock_mhz: published(2_600, "WikiChip: AWS Graviton3"),
        ram_bytes: datasheet(8 * GIB, "AWS instance types"),
        ram_usable_bytes: estimated(7_400 * MIB, "MemTotal of about 7,700 MiB less a small system"),
        memory_bytes_per_second: estimated(
            19_200_000_000,
            "4 cores' share of 64 in 307.2 GB/s (8 channels DDR5-4800); more while others idle",
        ),
    },
    Board {
        id: "aws-c5-9xlarge",
        name: "AWS c5.9xlarge (Xeon, 18 cores)",
        target_triple: X86_LINUX,
        core: &SKYLAKE_SP,
        cores: derived(18, "AWS instance types: 36 vCPU, two to a core"),
        clock_mhz: estimated(3_400, "AWS: sustained all-core turbo up to 3.4 GHz; less in AVX-512"),
        ram_bytes: datasheet(72 * GIB, "AWS instance types"),
        ram_usable_bytes: estimated(69 * GIB, "72 GiB less hypervisor tables and a small system"),
        memory_bytes_per_second: estimated(
            96_000_000_000,
            "three quarters of a socket's 128 GB/s (6 channels DDR4-2666)",
        ),
    },
];
