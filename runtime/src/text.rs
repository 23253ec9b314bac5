//! Text to token ids, by the `tokenizer.json` that the model was trained with.

use tokenizers::{Tokenizer, TruncationParams};

use crate::error::{Error, Result};

/// Bytes of text that are looked at for each token that the model may take. Words of natural
/// languages are far shorter; what lies behind would have been cut off as too many tokens.
const BYTES_PER_TOKEN: usize = 64;

/// A tokenizer that gives at most so many tokens, and whose work is bounded for texts of any length.
#[derive(Debug)]
pub struct Text {
    tokenizer: Tokenizer,
    longest: usize,
}

impl Text {
    /// A tokenizer from the text of a `tokenizer.json`, cut to `longest` tokens, those that it adds
    /// itself (`[CLS]`, `[SEP]`) included.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the file does not read, or `longest` leaves no room for a word.
    pub fn new(json: &[u8], longest: usize) -> Result<Text> {
        let wrong = |error: tokenizers::Error| Error::Tokenizer {
            reason: error.to_string(),
            next: "give the `tokenizer.json` that the model was trained with",
        };
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(wrong)?;
        let added = tokenizer
            .get_post_processor()
            .map_or(0, |post| tokenizers::PostProcessor::added_tokens(post, false));
        if longest <= added {
            return Err(Error::Tokenizer {
                reason: format!("it adds {added} tokens to each text, and {longest} are allowed"),
                next: "allow longer sequences with `--seq`",
            });
        }
        let truncation = TruncationParams { max_length: longest, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(wrong)?;
        tokenizer.with_padding(None);
        Ok(Text { tokenizer, longest })
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
            self.tokenizer.encode_fast(&text[..bound], true).map_err(|error| Error::Tokenizer {
                reason: error.to_string(),
                next: "check that the text is plain UTF-8",
            })?;
        Ok(encoding.get_ids().iter().map(|&id| i64::from(id)).collect())
    }

    /// Number of different ids.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }
}

/// Upper bound of the memory that a tokenizer takes while it is read and afterwards, from the length
/// of its file.
///
/// A WordPiece entry is about 12 bytes of JSON, which becomes two hash table entries with a string
/// each, and passes through a parsed copy on the way; a test measures the bound.
pub(crate) fn memory_bytes(json_bytes: usize) -> u64 {
    const PER_JSON_BYTE: u64 = 26;
    const FIXED: u64 = 512 * 1024;
    FIXED + json_bytes as u64 * PER_JSON_BYTE
}
