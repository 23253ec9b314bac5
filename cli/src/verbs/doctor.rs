//! `dram doctor`: what this machine is, and what the program can do on it.

use std::fmt::Write;
use std::thread::available_parallelism;

use anyhow::Result;
use clap::Args;
use dram_runtime::kernels::Cpu;
use dram_runtime::plan::Size;
use serde_json::json;

use crate::calibration::Calibration;
use crate::output::{Output, table};
use crate::{Answer, machine};

/// Say what this machine is: processor features, cores, RAM, board
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Measure instead how near our kernels come to its peaks: what `dram fit --calibration` takes
    #[arg(long)]
    calibrate: bool,
}

impl Doctor {
    pub(crate) fn call(&self, output: &Output) -> Result<Answer> {
        if self.calibrate {
            let calibration = Calibration::measure();
            output.result(&calibrated(&calibration), &calibration)?;
            return Ok(Answer::Yes);
        }
        let model = machine::model();
        let board = model.as_deref().and_then(machine::guess_board);
        let processor = machine::processor();
        let cores = available_parallelism().ok().map(|cores| cores.get());
        let (ram, available) = (machine::ram_bytes(), machine::ram_available_bytes());
        let (present, missing): (Vec<_>, Vec<_>) =
            machine::features().into_iter().partition(|(_, has)| *has);
        let [present, missing] = [present, missing]
            .map(|features| features.into_iter().map(|(name, _)| name).collect::<Vec<_>>());

        let or_unknown = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
        let size = |bytes: Option<u64>| or_unknown(bytes.map(|bytes| Size(bytes).to_string()));
        let kernels = Cpu::detect().name();
        let version = env!("CARGO_PKG_VERSION");
        let [os, arch] = [std::env::consts::OS, std::env::consts::ARCH];
        let distill = cfg!(feature = "distill");
        let mut text = String::new();
        writeln!(text, "dram       {version}, {arch} {os}, distill {}", built(distill))?;
        writeln!(text, "machine    {}", or_unknown(model.clone()))?;
        writeln!(text, "board      {}", board.map_or("none of `dram boards`", |board| board.id))?;
        writeln!(text, "processor  {}", or_unknown(processor.clone()))?;
        writeln!(text, "kernels    {}", kernels)?;
        writeln!(text, "has        {}", present.join(" "))?;
        writeln!(text, "lacks      {}", missing.join(" "))?;
        writeln!(text, "cores      {}", or_unknown(cores.map(|cores| cores.to_string())))?;
        writeln!(text, "RAM        {}, {} available now", size(ram), size(available))?;
        output.result(
            &text,
            &json!({
                "version": version,
                "arch": arch,
                "os": os,
                "distill": distill,
                "machine": model,
                "board": board.map(|board| board.id),
                "processor": processor,
                "kernels": kernels,
                "features": present,
                "missing_features": missing,
                "cores": cores,
                "ram_bytes": ram,
                "ram_available_bytes": available,
            }),
        )?;
        Ok(Answer::Yes)
    }
}

fn calibrated(calibration: &Calibration) -> String {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let rate = |value: f64, unit: &str| format!("{:.1} {unit}", value / 1e9);
    let share = |value: f64| format!("{:.1} % of peak", 100.0 * value);
    let nanoseconds = |value: f64| format!("{value:.3} ns");
    let network = &calibration.network_nanoseconds;
    let rows = [
        row("f32 peak", rate(calibration.f32_macs_per_second, "GMAC/s")),
        row("int8 peak", rate(calibration.int8_macs_per_second, "GMAC/s")),
        row("memory", rate(calibration.memory_bytes_per_second, "GB/s")),
        row("f32 layers", share(calibration.f32_efficiency)),
        row("int8 layers", share(calibration.int8_efficiency)),
        row("f32 attention", share(calibration.attention_efficiency)),
        row("int8 attention", share(calibration.attention_int8_efficiency)),
        row("call", nanoseconds(calibration.call_nanoseconds)),
        row("networks", String::new()),
        row("  f32 MAC", nanoseconds(network.f32_mac)),
        row("  int8 MAC", nanoseconds(network.int8_mac)),
        row("  f32 depthwise MAC", nanoseconds(network.f32_depthwise_mac)),
        row("  int8 depthwise MAC", nanoseconds(network.int8_depthwise_mac)),
        row("  number gathered", nanoseconds(network.gathered)),
        row("  piece gathered", nanoseconds(network.gathered_piece)),
        row("  f32 number written", nanoseconds(network.f32_value)),
        row("  int8 number written", nanoseconds(network.int8_value)),
        row("  number pooled", nanoseconds(network.pooled)),
        row("  number of ONNX operators", nanoseconds(network.array_value)),
        row("  byte of linear weights", nanoseconds(network.weight_byte)),
        row("  layer", nanoseconds(network.layer)),
        row("  step", nanoseconds(network.step)),
        row("  answer", nanoseconds(network.answer)),
    ];
    let Calibration { machine, kernels, .. } = calibration;
    format!("{machine}, {kernels} kernels, one thread\n{}", table(&rows))
}

fn built(with: bool) -> &'static str {
    if with { "built in" } else { "not built in (`--features distill`)" }
}
