//! `tokenizer.json` -> a form that opens at once: a table of its vocabulary, then the rest of it.
//!
//! Only WordPiece is compiled, whose vocabulary is most of its file. Everything but that table is the
//! crate's own: normalization, splitting, added and special tokens. So both forms give the same ids.

use std::collections::BTreeMap;

use serde_json::Value;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    TokenizerBuilder, TokenizerImpl,
};

use super::vocabulary::{self, Vocabulary};
use super::wordpiece::{Rules, WordPiece};
use crate::map::Section;

/// A tokenizer over a mapped vocabulary.
pub(super) type Compiled = TokenizerImpl<
    WordPiece,
    NormalizerWrapper,
    PreTokenizerWrapper,
    PostProcessorWrapper,
    DecoderWrapper,
>;

/// Upper bound of what a compiled tokenizer takes from the heap.
pub(super) const MEMORY_BYTES: u64 = 64 * 1024;

/// Longest rest of a `tokenizer.json`, without its vocabulary, that is compiled; what is longer holds
/// more than special tokens, and [`MEMORY_BYTES`] would not bound it.
const LONGEST_REST: usize = 8 * 1024;

/// What is left of `tokenizer.json`, as far as it matters to ids.
#[derive(serde::Deserialize)]
struct Rest {
    added_tokens: Vec<AddedToken>,
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    post_processor: Option<PostProcessorWrapper>,
    model: Rules,
}

/// The compiled form of the text of a `tokenizer.json`; `None` of one that is stored as it is.
pub(crate) fn compile(json: &[u8]) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(json).ok()?;
    let model = document["model"].as_object_mut()?;
    if model.get("type")? != "WordPiece" {
        return None;
    }
    let ids: BTreeMap<String, u32> = serde_json::from_value(model.remove("vocab")?).ok()?;
    let mut bytes = vocabulary::table(&ids)?;
    let rest = serde_json::to_vec(&document).ok()?;
    bytes.extend_from_slice(&rest);
    let opens = || read(Section::of(bytes.clone())).is_ok();
    (document["version"] == "1.0" && rest.len() <= LONGEST_REST && opens()).then_some(bytes)
}

/// Whether a bundle's section holds the compiled form.
pub(super) fn is_compiled(section: &[u8]) -> bool {
    section.starts_with(&vocabulary::MAGIC)
}

/// The tokenizer that [`compile`] wrote into `section`, without truncation and padding.
pub(super) fn read(section: Section) -> tokenizers::Result<Compiled> {
    let vocabulary =
        Vocabulary::new(section.clone()).map_err(|rule| format!("vocabulary: {rule}"))?;
    let rest = &section[vocabulary.bytes()..];
    if rest.len() > LONGEST_REST {
        return Err(format!(
            "{} bytes follow its vocabulary, at most {LONGEST_REST} may",
            rest.len()
        )
        .into());
    }
    let rest: Rest = serde_json::from_slice(rest)?;
    let model =
        WordPiece::new(vocabulary, rest.model).ok_or("its vocabulary has no unknown token")?;
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(model)
        .with_normalizer(rest.normalizer)
        .with_pre_tokenizer(rest.pre_tokenizer)
        .with_post_processor(rest.post_processor)
        .with_decoder(None)
        .build()?;
    tokenizer.add_tokens(rest.added_tokens)?;
    Ok(tokenizer)
}
