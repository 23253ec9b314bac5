//! What a text means: `cargo run --release --example predict -- models/zoo/intents.dram "wake me at six"`

use dram_runtime::{Budget, Options, Prediction, Session};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [_, bundle, text] = &std::env::args().collect::<Vec<_>>()[..] else {
        return Err("usage: predict BUNDLE TEXT".into());
    };
    let options = Options { budget: Budget::bytes(64 << 20), ..Options::default() };
    let session = Session::open(bundle.as_ref(), &options)?;
    match session.predict(text)? {
        Prediction::Labels(labels) => println!("{} {:.3}", labels[0].label, labels[0].probability),
        Prediction::Embedding(vector) => println!("{vector:?}"),
    }
    Ok(())
}
