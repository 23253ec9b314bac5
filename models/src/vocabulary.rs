//! A WordPiece tokenizer cut down to the pieces that the student's texts need.
//!
//! Kept, in this order until the vocabulary is full: the special tokens, every single Latin
//! character (so that any Latin word can still be spelled), the pieces of the texts from frequent
//! to rare, then the Latin pieces that the texts lack in the order of their ids, which in BERT's
//! vocabulary is the order of their frequency. WordPiece takes the longest piece that matches, so
//! a text whose pieces are all kept is cut into the same pieces as before.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// A smaller tokenizer and where its pieces come from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Vocabulary {
    /// The `tokenizer.json`.
    pub(crate) json: Vec<u8>,
    /// The former id of each new id, ascending: the rows to keep of the word embeddings.
    pub(crate) kept: Vec<usize>,
}

/// Cuts the tokenizer `json` to `size` pieces for texts that it turns into `rows`; inputs will be
/// cut to `max_tokens`. Fewer pieces are kept where the tokenizer has no more.
///
/// # Errors
/// [`Error::Tokenizer`] where it is no WordPiece tokenizer with a template of special tokens, or
/// `size` does not even hold its characters.
pub(crate) fn prune(
    json: &[u8],
    rows: &[Vec<u32>],
    size: usize,
    max_tokens: usize,
) -> Result<Vocabulary> {
    let mut tokenizer: Value =
        serde_json::from_slice(json).map_err(|error| fault(error.to_string()))?;
    let pieces = pieces(&tokenizer)?;
    let kept = choose(&pieces, &special_ids(&tokenizer), rows, size)?;
    let renumbered = |piece: &str| {
        let former = pieces.iter().position(|known| known == piece)?;
        kept.binary_search(&former).ok()
    };
    let entries = kept.iter().enumerate().map(|(id, &former)| (pieces[former].clone(), json!(id)));
    tokenizer["model"]["vocab"] = Value::Object(entries.collect::<Map<_, _>>());
    renumber(&mut tokenizer, renumbered)?;
    tokenizer["padding"] = Value::Null;
    tokenizer["truncation"] = json!({
        "max_length": max_tokens, "strategy": "LongestFirst", "stride": 0, "direction": "Right",
    });
    let json = serde_json::to_vec(&tokenizer).expect("a JSON value serializes");
    Ok(Vocabulary { json, kept })
}

/// The pieces by id; ids without a piece are empty.
fn pieces(tokenizer: &Value) -> Result<Vec<String>> {
    let model = &tokenizer["model"];
    if model["type"] != "WordPiece" {
        return Err(fault(format!("its model is {}, expected WordPiece", model["type"])));
    }
    let vocabulary = model["vocab"].as_object().ok_or_else(|| fault("it has no vocabulary"))?;
    let mut pieces = vec![String::new(); vocabulary.len()];
    for (piece, id) in vocabulary {
        let id = id.as_u64().and_then(|id| usize::try_from(id).ok());
        let slot = id.and_then(|id| pieces.get_mut(id));
        *slot.ok_or_else(|| fault(format!("`{piece}` has an id outside the vocabulary")))? =
            piece.clone();
    }
    Ok(pieces)
}

fn special_ids(tokenizer: &Value) -> Vec<usize> {
    let tokens = tokenizer["added_tokens"].as_array().into_iter().flatten();
    tokens.filter_map(|token| token["id"].as_u64()).map(|id| id as usize).collect()
}

fn choose(
    pieces: &[String],
    special: &[usize],
    rows: &[Vec<u32>],
    size: usize,
) -> Result<Vec<usize>> {
    let mut counts = vec![0usize; pieces.len()];
    for &id in rows.iter().flatten() {
        let count = counts.get_mut(id as usize);
        *count.ok_or_else(|| fault(format!("id {id} is outside the vocabulary")))? += 1;
    }
    let characters = (0..pieces.len()).filter(|&id| is_latin_character(&pieces[id]));
    let mut kept: BTreeSet<usize> = special.iter().copied().chain(characters).collect();
    kept.retain(|&id| id < pieces.len());
    if kept.len() > size {
        let needed = kept.len();
        return Err(fault(format!("its characters alone need a vocabulary of {needed}")));
    }
    let mut used: Vec<usize> = (0..pieces.len()).filter(|&id| counts[id] > 0).collect();
    used.sort_by_key(|&id| std::cmp::Reverse(counts[id]));
    let others = (0..pieces.len()).filter(|&id| counts[id] == 0 && is_latin(&pieces[id]));
    for id in used.into_iter().chain(others) {
        if kept.len() == size {
            break;
        }
        kept.insert(id);
    }
    Ok(kept.into_iter().collect())
}

/// Gives the special tokens their new ids, wherever the file repeats them.
fn renumber(tokenizer: &mut Value, new_id: impl Fn(&str) -> Option<usize>) -> Result<()> {
    let renumbered = |name: &str| new_id(name).ok_or_else(|| fault(format!("no piece `{name}`")));
    for token in tokenizer["added_tokens"].as_array_mut().into_iter().flatten() {
        let name = token["content"].as_str().unwrap_or_default().to_owned();
        token["id"] = json!(renumbered(&name)?);
    }
    let post = &mut tokenizer["post_processor"];
    if post["type"] != "TemplateProcessing" {
        return Err(fault(format!("its post-processor is {}, expected a template", post["type"])));
    }
    for (name, token) in post["special_tokens"].as_object_mut().into_iter().flatten() {
        token["ids"] = json!([renumbered(name)?]);
    }
    Ok(())
}

fn is_latin_character(piece: &str) -> bool {
    let piece = piece.strip_prefix("##").unwrap_or(piece);
    piece.chars().count() == 1 && is_latin(piece)
}

/// Basic Latin, Latin-1 and the Latin Extended blocks, and none of BERT's `[unused7]`.
fn is_latin(piece: &str) -> bool {
    !piece.starts_with("[unused") && piece.chars().all(|c| ('!'..='\u{24f}').contains(&c))
}

fn fault(reason: impl Into<String>) -> Error {
    Error::Tokenizer { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiny::tokenizer;
    use crate::tokens;

    fn pieces_of(json: &[u8], text: &str) -> Vec<String> {
        let tokenizer = tokenizers::Tokenizer::from_bytes(json).expect("a tokenizer");
        tokenizer.encode(text, true).expect("encodable").get_tokens().to_vec()
    }

    #[test]
    fn text_with_kept_pieces_is_cut_as_before() {
        let json = tokenizer();
        let texts = ["playing the song".to_owned()];
        let rows = tokens::rows(&json, &texts, 16).expect("encodable");
        let pruned = prune(&json, &rows, 62, 16).expect("prunable");
        assert_eq!(pruned.kept.len(), 62);
        assert_eq!(pieces_of(&pruned.json, &texts[0]), pieces_of(&json, &texts[0]));
        let ids = tokens::rows(&pruned.json, &texts, 16).expect("encodable");
        let former = |id: &u32| pruned.kept[*id as usize] as u32;
        assert_eq!(ids[0].iter().map(former).collect::<Vec<_>>(), rows[0]);
    }

    #[test]
    fn a_dropped_piece_is_spelled_out() {
        let json = tokenizer();
        let pruned = prune(&json, &[], 57, 16).expect("prunable");
        let spelled = ["[CLS]", "s", "##o", "##n", "##g", "[SEP]"];
        assert_eq!(pieces_of(&pruned.json, "song"), spelled);
    }

    #[test]
    fn other_scripts_and_unused_slots_go_first() {
        let json = tokenizer();
        let pruned = prune(&json, &[], 1000, 16).expect("prunable");
        assert!(!pruned.kept.contains(&1), "[unused0] was kept");
        assert!(!pruned.kept.contains(&6), "a Cyrillic letter was kept");
    }

    #[test]
    fn a_vocabulary_too_small_to_spell_is_refused_with_the_size_it_needs() {
        let error = prune(&tokenizer(), &[], 10, 16).expect_err("too small");
        assert!(error.to_string().contains("vocabulary of 57"), "{error}");
    }

    #[test]
    fn a_real_tokenizer_cuts_kept_texts_as_before() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let tokenizer = folder.join("teachers/all-MiniLM-L6-v2/tokenizer.json");
        let data = folder.join("../../shared/data/clinc150");
        let (Ok(json), Ok(train), Ok(validation)) = (
            std::fs::read(&tokenizer),
            crate::data::read(&data.join("train.tsv")),
            crate::data::read(&data.join("val.tsv")),
        ) else {
            eprintln!("skipped a_real_tokenizer_cuts_kept_texts_as_before: no teacher or no data");
            return;
        };
        let rows = |json: &[u8], texts: &[String]| tokens::rows(json, texts, 64).expect("texts");
        let pruned = prune(&json, &rows(&json, &train.texts), 6000, 128).expect("prunable");
        assert_eq!(pruned.kept.len(), 6000);
        let mut compared = 0;
        let pairs = rows(&json, &validation.texts).into_iter();
        for (former, row) in pairs.zip(rows(&pruned.json, &validation.texts)) {
            if former.iter().all(|&id| pruned.kept.binary_search(&(id as usize)).is_ok()) {
                let row: Vec<u32> = row.iter().map(|&id| pruned.kept[id as usize] as u32).collect();
                assert_eq!(row, former);
                compared += 1;
            }
        }
        // Most pieces of 3,000 unseen texts are among the kept ones.
        assert!(compared > 2_500, "only {compared} texts have all their pieces");
    }
}
