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
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let kind = text
            .parse::<toml::Table>()
            .ok()
            .and_then(|recipe| Some(recipe.get("data")?.get("kind")?.as_str()?.to_owned()));
        match kind.as_deref() {
            Some(_) => Ok(Task::Signals(Box::new(signals::Recipe::parse(&text, path)?))),
            None => Ok(Task::Text(Box::new(Recipe::parse(&text, path)?))),
        }
    }
}
