//! Which kind of recipe a file holds.

use std::path::Path;

use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::signals;

/// A recipe, by what its student takes.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// Texts.
    Text(Box<Recipe>),
    /// Windows, sound or images: `[data]` has a `kind`.
    Signals(Box<signals::Recipe>),
}

impl Task {
    /// Reads and checks the recipe at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read, [`Error::Recipe`] with line, field and the allowed
    /// fields where it does not parse, [`Error::RecipeValue`] where a value is out of range.
    pub fn load(path: &Path) -> Result<Task> {
        Task::parse(&std::fs::read_to_string(path).map_err(Error::io("read", path))?, path)
    }

    /// Checks a recipe that was read; `path` is what errors call it, and where its paths begin.
    ///
    /// # Errors
    /// As [`Task::load`], but for those of reading.
    pub fn parse(text: &str, path: &Path) -> Result<Task> {
        let kind = text
            .parse::<toml::Table>()
            .ok()
            .and_then(|recipe| Some(recipe.get("data")?.get("kind")?.as_str()?.to_owned()));
        match kind.as_deref() {
            Some(_) => Ok(Task::Signals(Box::new(signals::Recipe::parse(text, path)?))),
            None => Ok(Task::Text(Box::new(Recipe::parse(text, path)?))),
        }
    }
}

// The file alone: with its crate, what the training stands on would be built with other features.
#[cfg(test)]
#[allow(unreachable_pub)]
#[path = "../../tests/src/hostile/mutations.rs"]
mod mutations;

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of a folder of the repository that end in `ending`, in order.
    fn files(folder: &str, ending: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let entries = std::fs::read_dir(folder).expect("the folder is part of the repository");
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
        paths.retain(|path| path.to_string_lossy().ends_with(ending));
        paths.sort();
        paths.iter().map(|path| std::fs::read(path).expect("readable")).collect()
    }

    /// What `cargo fuzz run recipe` starts from, and what it would try first.
    #[test]
    fn mutated_recipes_are_taken_or_refused() {
        let seeds = [files("recipes", ".toml"), files("../fuzz/seeds/recipe", "")].concat();
        let mutated = mutations::mutations(&seeds, 5000);
        for bytes in seeds.iter().cloned().chain(mutated) {
            let text = String::from_utf8_lossy(&bytes);
            if let Err(error) = Task::parse(&text, Path::new("recipe.toml")) {
                assert!(error.to_string().contains("recipe.toml"), "{error}");
            }
        }
    }
}
