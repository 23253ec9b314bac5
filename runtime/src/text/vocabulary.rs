//! A sorted table of tokens -> their ids, searched in the bytes of a bundle.
//!
//! ```text
//!  0            "vocab  1"      8 bytes
//!  8            count           u32, at least 1
//! 12            text bytes      u32
//! 16            end of each token in the text, u32 x count
//! 16 + 4 count  id of each token,              u32 x count
//! 16 + 8 count  text: the tokens one after the other, by ascending bytes, none twice, none empty
//! ```

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;

use crate::map::Section;

/// First bytes of every table; a JSON document never begins with them.
pub(super) const MAGIC: [u8; 8] = *b"vocab  1";
const HEADER_BYTES: usize = 16;

/// A checked table.
#[derive(Debug)]
pub(super) struct Vocabulary {
    section: Section,
    count: usize,
    text: Range<usize>,
}

/// The table of `ids`. `None` where there is no token, an empty one, or more text than 4 GiB.
pub(super) fn table(ids: &BTreeMap<String, u32>) -> Option<Vec<u8>> {
    if ids.is_empty() || ids.contains_key("") {
        return None;
    }
    let text: String = ids.keys().map(String::as_str).collect();
    let mut bytes = MAGIC.to_vec();
    let mut number = |value: u32| bytes.extend_from_slice(&value.to_le_bytes());
    number(u32::try_from(ids.len()).ok()?);
    number(u32::try_from(text.len()).ok()?);
    let mut end = 0;
    for token in ids.keys() {
        end += token.len() as u32;
        number(end);
    }
    ids.values().for_each(|&id| number(id));
    bytes.extend_from_slice(text.as_bytes());
    Some(bytes)
}

impl Vocabulary {
    /// The table at the start of `section`, after every rule of its form has been checked.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub(super) fn new(section: Section) -> Result<Vocabulary, &'static str> {
        let number = |at: usize| -> Option<usize> {
            let bytes = section.get(at..at + 4)?.try_into().ok()?;
            usize::try_from(u32::from_le_bytes(bytes)).ok()
        };
        let header = section.starts_with(&MAGIC).then(|| number(8).zip(number(12))).flatten();
        let (count, text_bytes) = header.ok_or("it has no header")?;
        let start = count.checked_mul(8).and_then(|bytes| bytes.checked_add(HEADER_BYTES));
        let text = start.and_then(|start| Some(start..start.checked_add(text_bytes)?));
        let text =
            text.filter(|text| text.end <= section.len()).ok_or("it reaches past its end")?;
        let vocabulary = Vocabulary { count, text, section };
        vocabulary.check()?;
        Ok(vocabulary)
    }

    fn check(&self) -> Result<(), &'static str> {
        let text = std::str::from_utf8(&self.section[self.text.clone()]);
        let text = text.map_err(|_| "its text is not UTF-8")?;
        let mut begin = 0;
        let mut before = "";
        for rank in 0..self.count {
            let end = self.end(rank);
            let token = text.get(begin..end).ok_or("a token is no part of its text")?;
            if token <= before {
                return Err("its tokens do not ascend");
            }
            (begin, before) = (end, token);
        }
        if self.count == 0 || begin != text.len() {
            return Err("its tokens are not all of its text");
        }
        Ok(())
    }

    /// Bytes of the whole table; what follows in its section is not part of it.
    pub(super) fn bytes(&self) -> usize {
        self.text.end
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Tokens by ascending bytes, and their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        let text = |rank| std::str::from_utf8(self.token(rank)).expect("checked when opened");
        (0..self.count).map(move |rank| (text(rank), self.id_of(rank)))
    }

    /// The id of `token`.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        let rank = self.last_not_above(token.as_bytes())?;
        (self.token(rank) == token.as_bytes()).then(|| self.id_of(rank))
    }

    /// The longest token that `text` begins with: its id and its length in bytes.
    pub(super) fn longest_prefix(&self, text: &str) -> Option<(u32, usize)> {
        let mut text = text.as_bytes();
        // A token that is a prefix of the text stands at or before the last one that is not above the
        // text, and everything between the two begins with it. So it is no longer than what that last
        // one has in common with the text.
        loop {
            let rank = self.last_not_above(text)?;
            let token = self.token(rank);
            let common = token.iter().zip(text).take_while(|(a, b)| a == b).count();
            if common == token.len() {
                return Some((self.id_of(rank), common));
            }
            text = &text[..common];
        }
    }

    /// Rank of the last token that is not above `key`.
    fn last_not_above(&self, key: &[u8]) -> Option<usize> {
        let mut ranks = 0..self.count;
        while !ranks.is_empty() {
            let middle = ranks.start + ranks.len() / 2;
            match self.token(middle).cmp(key) {
                Ordering::Greater => ranks.end = middle,
                Ordering::Equal => return Some(middle),
                Ordering::Less => ranks.start = middle + 1,
            }
        }
        ranks.start.checked_sub(1)
    }

    fn token(&self, rank: usize) -> &[u8] {
        let begin = rank.checked_sub(1).map_or(0, |before| self.end(before));
        &self.section[self.text.clone()][begin..self.end(rank)]
    }

    fn end(&self, rank: usize) -> usize {
        self.number(rank) as usize
    }

    fn id_of(&self, rank: usize) -> u32 {
        self.number(self.count + rank)
    }

    fn number(&self, index: usize) -> u32 {
        let bytes = &self.section[HEADER_BYTES + 4 * index..][..4];
        u32::from_le_bytes(bytes.try_into().expect("four bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(bytes: &[u8]) -> Result<Vocabulary, &'static str> {
        Vocabulary::new(Section::of(bytes.to_vec()))
    }

    fn ids(tokens: &[&str]) -> BTreeMap<String, u32> {
        tokens.iter().map(|token| token.to_string()).zip(7..).collect()
    }

    #[test]
    fn the_longest_prefix_is_found_past_tokens_that_only_share_its_beginning() {
        let tokens = ["a", "ab", "aba", "abba", "z", "é", "éa"];
        let vocabulary = opened(&table(&ids(&tokens)).expect("a table")).expect("sound");
        for (text, expected) in [
            ("abz", Some("ab")),
            ("abbz", Some("ab")),
            ("abbaz", Some("abba")),
            ("ac", Some("a")),
            ("éab", Some("éa")),
            ("è", None),
            ("A", None),
            ("", None),
            ("zz", Some("z")),
        ] {
            let found = vocabulary.longest_prefix(text);
            let expected =
                expected.map(|token| (vocabulary.id(token).expect("known"), token.len()));
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!(vocabulary.id("abb"), None);
        assert_eq!(vocabulary.iter().map(|(token, _)| token).collect::<Vec<_>>(), tokens);
    }

    #[test]
    fn a_table_that_breaks_a_rule_is_refused() {
        let sound = table(&ids(&["a", "bb", "é"])).expect("a table");
        assert!(opened(&sound).is_ok());
        assert_eq!(table(&ids(&[])), None);
        assert_eq!(table(&ids(&["", "a"])), None);
        let altered = |at: usize, value: u8| {
            let mut bytes = sound.clone();
            bytes[at] = value;
            opened(&bytes).map(|_| ()).unwrap_err()
        };
        let text = sound.len() - 5;
        for (at, value, rule) in [
            (0, b'{', "no header"),
            (8, 0, "not all of its text"),
            (11, 255, "past its end"),
            (12, 255, "past its end"),
            (12, 4, "not UTF-8"),
            (16, 0, "do not ascend"),
            (16, 9, "no part of its text"),
            (24, 4, "no part of its text"),
            (text, b'c', "do not ascend"),
            (text + 4, b'a', "not UTF-8"),
        ] {
            assert!(altered(at, value).contains(rule), "{at}: {}", altered(at, value));
        }
        for length in 0..sound.len() {
            assert!(opened(&sound[..length]).is_err(), "{length} bytes");
        }
    }
}
