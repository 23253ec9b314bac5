//! Text to token ids, by the `tokenizer.json` that the model was trained with.

mod compiled;
#[cfg(test)]
mod tests;
mod vocabulary;
mod wordpiece;

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::{Encoding, PostProcessorWrapper, Tokenizer, TruncationParams};

use crate::error::{Error, Result};
use crate::map::Section;

use compiled::Compiled;
pub(crate) use compiled::compile;

/// Bytes of text that are looked at for each token that the model may take. Words of natural
/// languages are far shorter; what lies behind would have been cut off as too many tokens.
const BYTES_PER_TOKEN: usize = 64;

/// A tokenizer that gives at most so many tokens, and whose work is bounded for texts of any length.
#[derive(Debug)]
pub struct Text {
    tokenizer: Form,
    longest: usize,
}

/// How the tokenizer is stored: as its authors wrote it, or over a vocabulary that stays mapped.
#[derive(Debug)]
enum Form {
    Original(Box<Tokenizer>),
    Compiled(Box<Compiled>),
}

impl Text {
    /// A tokenizer from the text of a `tokenizer.json`, cut to `longest` tokens, those that it adds
    /// itself (`[CLS]`, `[SEP]`) included.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the file does not read, or `longest` leaves no room for a word.
    pub fn new(json: &[u8], longest: usize) -> Result<Text> {
        let mut tokenizer = guarded(|| Tokenizer::from_bytes(json)).map_err(unreadable)?;
        let truncation = truncation(tokenizer.get_post_processor(), longest)?;
        tokenizer.with_truncation(Some(truncation)).map_err(unreadable)?;
        tokenizer.with_padding(None);
        Ok(Text { tokenizer: Form::Original(Box::new(tokenizer)), longest })
    }

    /// A tokenizer from a bundle's section: compiled, or the text of a `tokenizer.json`.
    ///
    /// # Errors
    /// As [`Text::new`].
    pub(crate) fn from_section(section: Section, longest: usize) -> Result<Text> {
        if !compiled::is_compiled(&section) {
            return Text::new(&section, longest);
        }
        let mut tokenizer = guarded(|| compiled::read(section)).map_err(unreadable)?;
        let truncation = truncation(tokenizer.get_post_processor(), longest)?;
        tokenizer.with_truncation(Some(truncation)).map_err(unreadable)?;
        Ok(Text { tokenizer: Form::Compiled(Box::new(tokenizer)), longest })
    }

    /// Ids of `text`, the tokenizer's own special tokens included; never more than the longest
    /// sequence. What a text has beyond that is cut off. Of a text longer than 64 bytes for each
    /// token allowed, only so many bytes are looked at.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the tokenizer cannot encode it.
    pub fn ids(&self, text: &str) -> Result<Vec<i64>> {
        let bound = text.floor_char_boundary(self.longest.saturating_mul(BYTES_PER_TOKEN));
        let encoding =
            guarded(|| self.encoding(&text[..bound])).map_err(|error| Error::Tokenizer {
                reason: error.to_string(),
                next: "check that the text is plain UTF-8",
            })?;
        Ok(encoding.get_ids().iter().map(|&id| i64::from(id)).collect())
    }

    fn encoding(&self, text: &str) -> tokenizers::Result<Encoding> {
        match &self.tokenizer {
            Form::Original(tokenizer) => tokenizer.encode_fast(text, true),
            Form::Compiled(tokenizer) => tokenizer.encode_fast(text, true),
        }
    }

    /// Number of different ids.
    pub fn vocabulary(&self) -> usize {
        match &self.tokenizer {
            Form::Original(tokenizer) => tokenizer.get_vocab_size(true),
            Form::Compiled(tokenizer) => tokenizer.get_vocab_size(true),
        }
    }
}

/// What `work` gives, or its panic as an error: the tokenizers' own parser asserts what a file from outside need
/// not keep. Nothing that it may have left half-done is used again.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("it contradicts itself".into()))
}

fn unreadable(error: tokenizers::Error) -> Error {
    Error::Tokenizer {
        reason: error.to_string(),
        next: "give the `tokenizer.json` that the model was trained with",
    }
}

fn truncation(post: Option<&PostProcessorWrapper>, longest: usize) -> Result<TruncationParams> {
    let added = post.map_or(0, |post| tokenizers::PostProcessor::added_tokens(post, false));
    if longest <= added {
        return Err(Error::Tokenizer {
            reason: format!("it adds {added} tokens to each text, and {longest} are allowed"),
            next: "allow longer sequences with `--seq`",
        });
    }
    Ok(TruncationParams { max_length: longest, ..TruncationParams::default() })
}

/// Upper bound of the memory that a tokenizer takes while it is read and afterwards, from its section of
/// a bundle.
///
/// A compiled one keeps its vocabulary in the map and takes what it says of itself besides. Of any other,
/// an entry is about 12 bytes of JSON, which becomes two hash table entries with a string each, and passes
/// through a parsed copy on the way. Tests measure both bounds.
pub(crate) fn memory_bytes(section: &[u8]) -> u64 {
    const PER_JSON_BYTE: u64 = 26;
    const FIXED: u64 = 64 * 1024;
    match compiled::is_compiled(section) {
        true => compiled::MEMORY_BYTES,
        false => FIXED + section.len() as u64 * PER_JSON_BYTE,
    }
}
