//! Texts to rows of token ids.

use tokenizers::{Tokenizer, TruncationParams};

use crate::error::{Error, Result};

/// The ids of each text under the tokenizer `json`, `[CLS]` and `[SEP]` included, cut to
/// `max_tokens`.
///
/// # Errors
/// [`Error::Tokenizer`] where `json` is no tokenizer or cannot encode a text.
pub(crate) fn rows(json: &[u8], texts: &[String], max_tokens: usize) -> Result<Vec<Vec<u32>>> {
    let tokenizer = load(json, max_tokens)?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let encodings = tokenizer.encode_batch(texts, true).map_err(fault)?;
    Ok(encodings.iter().map(|encoding| encoding.get_ids().to_vec()).collect())
}

/// The id of the piece `name` under the tokenizer `json`; `None` where it has no such piece.
///
/// # Errors
/// [`Error::Tokenizer`] where `json` is no tokenizer.
pub(crate) fn id(json: &[u8], name: &str) -> Result<Option<u32>> {
    Ok(Tokenizer::from_bytes(json).map_err(fault)?.token_to_id(name))
}

fn load(json: &[u8], max_tokens: usize) -> Result<Tokenizer> {
    let mut tokenizer = Tokenizer::from_bytes(json).map_err(fault)?;
    let truncation = TruncationParams { max_length: max_tokens, ..TruncationParams::default() };
    tokenizer.with_truncation(Some(truncation)).map_err(fault)?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

fn fault(error: tokenizers::Error) -> Error {
    Error::Tokenizer { reason: error.to_string() }
}
