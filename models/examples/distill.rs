//! Distils a recipe and prints a line a pass: `distill RECIPE.toml FOLDER [--resume]`.

use std::ops::ControlFlow;
use std::path::Path;

use dram_models::{Error, Options, Progress, Recipe, Resume, distill};

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [recipe, folder, rest @ ..] = &arguments[..] else {
        eprintln!("usage: distill RECIPE.toml FOLDER [--resume]");
        std::process::exit(2);
    };
    let resume = match rest {
        [flag] if flag == "--resume" => Resume::Yes,
        _ => Resume::No,
    };
    let options = Options { resume, ..Options::default() };
    let recipe = Recipe::load(Path::new(recipe))?;
    let report = distill(&recipe, Path::new(folder), options, &mut |progress| {
        print(progress);
        ControlFlow::Continue(())
    })?;
    println!("{}", report.to_markdown());
    Ok(())
}

fn print(progress: Progress) {
    match progress {
        Progress::Step { stage, epoch, epochs, step, steps, loss, seconds_left, .. }
            if step.is_multiple_of(20) =>
        {
            let (stage, minutes) = (stage.name(), seconds_left / 60.0);
            eprintln!(
                "{stage} {epoch}/{epochs}, batch {step}/{steps}: loss {loss:.4}, {minutes:.1} min left"
            );
        }
        Progress::Epoch { stage, epoch, epochs, loss, score, measure, seconds_left } => {
            let (stage, measure, score) = (stage.name(), measure.name(), 100.0 * score);
            println!(
                "{stage} {epoch}/{epochs}: loss {loss:.4}, {measure} {score:.2} %, {seconds_left:.0} s left"
            );
        }
        Progress::Asked { step, steps, seconds_left } if step.is_multiple_of(100) => {
            eprintln!("answers, batch {step}/{steps}: {:.1} min left", seconds_left / 60.0);
        }
        Progress::Reused { stage } => println!("{}: found finished", stage.name()),
        _ => {}
    }
}
