//! One engine, one ONNX model, one set of inputs -> the first answer, then how long each further one takes.
//!
//! `peer rten|tract MODEL THREADS SECONDS SAVE NAME=i64|f32:1x128:FILE...`: inputs are raw little-endian values;
//! the first output goes to SAVE the same way. Prints `first` once the first answer is there, and in the end
//! one JSON line as `run.py` reads it. No seconds, no further answers.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

fn main() -> Result<()> {
    let start = Instant::now();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [engine, model, threads, seconds, save, inputs @ ..] = &arguments[..] else {
        bail!("peer rten|tract MODEL THREADS SECONDS SAVE NAME=TYPE:SHAPE:FILE...");
    };
    let (threads, seconds) = (threads.parse()?, Duration::from_secs_f64(seconds.parse()?));
    let inputs = inputs.iter().map(|input| Input::read(input)).collect::<Result<Vec<_>>>()?;
    let infer = match engine.as_str() {
        "rten" => rten(Path::new(model), threads, inputs)?,
        "tract" => tract(Path::new(model), threads, inputs)?,
        other => bail!("`{other}` is neither `rten` nor `tract`"),
    };
    let answer = infer()?;
    let first_ms = milliseconds(start.elapsed());
    println!("first");
    std::io::stdout().flush()?;
    let bytes: Vec<u8> = answer.iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(save, bytes)?;
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    let begin = Instant::now();
    while begin.elapsed() < seconds {
        let (one, used) = (Instant::now(), cpu_time());
        infer()?;
        wall.push(milliseconds(one.elapsed()));
        cpu.push(milliseconds(cpu_time() - used));
    }
    let measured = json!({
        "first_ms": first_ms,
        "median_ms": median(wall),
        "cpu_ms": median(cpu),
        "peak_rss_bytes": peak_rss_bytes(),
    });
    println!("{measured}");
    Ok(())
}

struct Input {
    name: String,
    shape: Vec<usize>,
    values: Values,
}

enum Values {
    I64(Vec<i64>),
    F32(Vec<f32>),
}

impl Input {
    fn read(text: &str) -> Result<Input> {
        let parts = text.split_once('=').and_then(|(name, rest)| {
            let (dtype, rest) = rest.split_once(':')?;
            let (shape, file) = rest.split_once(':')?;
            Some((name, dtype, shape, file))
        });
        let (name, dtype, shape, file) = parts.context("write NAME=TYPE:SHAPE:FILE")?;
        let bytes = std::fs::read(file).with_context(|| file.to_owned())?;
        let values = match dtype {
            "i64" => {
                let (words, _) = bytes.as_chunks();
                Values::I64(words.iter().map(|&word| i64::from_le_bytes(word)).collect())
            }
            "f32" => {
                let (words, _) = bytes.as_chunks();
                Values::F32(words.iter().map(|&word| f32::from_le_bytes(word)).collect())
            }
            other => bail!("`{other}` is neither i64 nor f32"),
        };
        let shape = shape.split('x').map(str::parse).collect::<std::result::Result<_, _>>()?;
        Ok(Input { name: name.to_owned(), shape, values })
    }
}

type Infer = Box<dyn Fn() -> Result<Vec<f32>>>;

/// With its weights packed beforehand, which it leaves to the caller: slower to start, faster to answer.
fn rten(model: &Path, threads: usize, inputs: Vec<Input>) -> Result<Infer> {
    use rten::{ModelOptions, RunOptions, ThreadPool, Value, ValueOrView};
    use rten_tensor::prelude::*;

    let model = ModelOptions::with_all_ops().prepack_weights(true).load_file(model)?;
    let pool = Arc::new(ThreadPool::with_num_threads(threads));
    let output = *model.output_ids().first().context("the model has no output")?;
    let values = inputs
        .into_iter()
        .map(|Input { name, shape, values }| {
            let value = match values {
                // It has no i64; its users narrow ids themselves.
                Values::I64(values) => {
                    let values: Vec<i32> = values.into_iter().map(|value| value as i32).collect();
                    Value::from(rten_tensor::Tensor::from_data(&shape[..], values))
                }
                Values::F32(values) => {
                    Value::from(rten_tensor::Tensor::from_data(&shape[..], values))
                }
            };
            Ok((model.node_id(&name)?, value))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Box::new(move || {
        let given = values.iter().map(|(id, value)| (*id, ValueOrView::from(value))).collect();
        let options = RunOptions::default().with_thread_pool(Some(pool.clone()));
        let [result] = model.run_n(given, [output], Some(options))?;
        let result: rten_tensor::Tensor<f32> = result.try_into()?;
        Ok(result.to_vec())
    }))
}

/// As published, without its optional threads.
fn tract(model: &Path, threads: usize, inputs: Vec<Input>) -> Result<Infer> {
    use tract_onnx::prelude::*;

    if threads != 1 {
        bail!("tract runs on one thread unless it is built with `multithread-mm`");
    }
    // The symbols that exporters write down clash with concrete shapes.
    let onnx = tract_onnx::onnx().with_ignore_output_shapes(true).with_ignore_value_info(true);
    let mut graph = onnx.model_for_path(model)?;
    let mut given = tvec!();
    for outlet in graph.input_outlets()?.to_vec() {
        let name = &graph.node(outlet.node).name;
        let Input { shape, values, .. } = inputs
            .iter()
            .find(|input| input.name == *name)
            .with_context(|| format!("no value for `{name}`"))?;
        let value = match values {
            Values::I64(values) => Tensor::from_shape(shape, values)?,
            Values::F32(values) => Tensor::from_shape(shape, values)?,
        };
        let index = given.len();
        graph.set_input_fact(index, InferenceFact::dt_shape(value.datum_type(), value.shape()))?;
        given.push(value.into_tvalue());
    }
    let plan = graph.into_optimized()?.into_runnable()?;
    Ok(Box::new(move || {
        let outputs = plan.run(given.clone())?;
        Ok(outputs[0].to_plain_array_view::<f32>()?.iter().copied().collect())
    }))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Processor time of this process, all threads together.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// `VmHWM`, where the system tells it.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}
