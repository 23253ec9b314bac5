//! WordPiece over a sorted vocabulary that stays where it is mapped: nothing of it is parsed or copied.
//!
//! The model of the crate `tokenizers` builds two hash tables of strings when it is read, which is most
//! of a cold start; what surrounds the model (normalization, splitting, added tokens) stays the crate's.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tokenizers::models::wordpiece::WordPieceTrainer;
use tokenizers::{Model, Token};

use super::vocabulary::Vocabulary;

/// What a `tokenizer.json` says of its WordPiece model besides the vocabulary.
#[derive(Clone, Debug, serde::Deserialize)]
pub(super) struct Rules {
    unk_token: String,
    continuing_subword_prefix: String,
    max_input_chars_per_word: usize,
}

/// Words to the ids of the longest pieces that they begin with, one after the other.
#[derive(Debug)]
pub(super) struct WordPiece {
    vocabulary: Vocabulary,
    rules: Rules,
    unknown: u32,
}

impl WordPiece {
    /// `None` where the vocabulary does not hold the token for unknown words.
    pub(super) fn new(vocabulary: Vocabulary, rules: Rules) -> Option<WordPiece> {
        let unknown = vocabulary.id(&rules.unk_token)?;
        Some(WordPiece { vocabulary, rules, unknown })
    }

    /// The pieces of `word`; `None` where they do not cover it.
    fn pieces(&self, word: &str) -> Option<Vec<Token>> {
        let prefix = self.rules.continuing_subword_prefix.as_str();
        let mut tokens = Vec::new();
        let mut start = 0;
        // What is still to be covered; after the first piece with the prefix before it.
        let mut rest = word.to_owned();
        let mut before = 0;
        while start < word.len() {
            let (id, bytes) = self.vocabulary.longest_prefix(&rest)?;
            let end = start + bytes.checked_sub(before).filter(|&covered| covered > 0)?;
            // Nothing here reads the text of a token, and a string for each would be an allocation.
            tokens.push(Token::new(id, String::new(), (start, end)));
            before = prefix.len();
            rest.replace_range(.., prefix);
            rest.push_str(&word[end..]);
            start = end;
        }
        Some(tokens)
    }
}

impl Model for WordPiece {
    type Trainer = WordPieceTrainer;

    fn tokenize(&self, word: &str) -> tokenizers::Result<Vec<Token>> {
        let short = word.chars().nth(self.rules.max_input_chars_per_word).is_none();
        let pieces = if short { self.pieces(word) } else { None };
        let unknown = || vec![Token::new(self.unknown, String::new(), (0, word.len()))];
        Ok(pieces.unwrap_or_else(unknown))
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.vocabulary.id(token)
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        self.vocabulary.iter().find(|&(_, known)| known == id).map(|(token, _)| token.to_owned())
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        self.vocabulary.iter().map(|(token, id)| (token.to_owned(), id)).collect()
    }

    fn get_vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    fn save(&self, _folder: &Path, _prefix: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        Err("a mapped vocabulary is part of its bundle and is not saved apart from it".into())
    }

    fn get_trainer(&self) -> WordPieceTrainer {
        WordPieceTrainer::default()
    }
}
