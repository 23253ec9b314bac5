//! Texts without labels for the teacher to speak about: training texts with words left out and
//! words exchanged.
//!
//! A student that only hears the teacher on texts which both know by heart learns little about the
//! teacher's doubts. TinyBERT (Jiao et al. 2020, section 4.3) gains most of its accuracy from such
//! texts; where it asks a language model for the words, these are drawn from all training words.

use crate::seed::Random;

/// Chance that a word is left out.
const DROPPED: f64 = 0.1;

/// Chance that a word is exchanged.
const EXCHANGED: f64 = 0.15;

/// `copies` variations of each of `texts`: all first ones, then all second ones. A text whose words
/// would all go stays as it is.
pub(crate) fn vary(texts: &[String], copies: usize, seed: u64) -> Vec<String> {
    let words: Vec<&str> = texts.iter().flat_map(|text| text.split_whitespace()).collect();
    let numbers = 0..copies * texts.len();
    let varied = numbers.map(|number| {
        let mut random = Random::new(seed, "variation", number);
        let text = &texts[number % texts.len()];
        let kept: Vec<&str> =
            text.split_whitespace().filter_map(|word| one(word, &words, &mut random)).collect();
        if kept.is_empty() { text.clone() } else { kept.join(" ") }
    });
    varied.collect()
}

fn one<'a>(word: &'a str, words: &[&'a str], random: &mut Random) -> Option<&'a str> {
    match random.uniform() {
        chance if chance < DROPPED => None,
        chance if chance < DROPPED + EXCHANGED => Some(words[random.below(words.len())]),
        _ => Some(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Vec<String> {
        let text = |number| format!("play song {number} for me in the kitchen");
        (0..500).map(text).chain(["".to_owned(), "x".to_owned()]).collect()
    }

    #[test]
    fn words_are_left_out_and_exchanged_as_often_as_stated() {
        let texts = texts();
        let varied = vary(&texts, 2, 1);
        assert_eq!(varied.len(), 2 * texts.len());
        let words = |texts: &[String]| -> usize {
            texts.iter().map(|text| text.split_whitespace().count()).sum()
        };
        let share = words(&varied) as f64 / (2 * words(&texts)) as f64;
        // 8,000 words: four standard errors of 0.1.
        assert!((share - (1.0 - DROPPED)).abs() < 0.0135, "{share}");
        assert!(varied.iter().any(|text| text.starts_with("kitchen")));
    }

    #[test]
    fn a_text_never_loses_all_its_words() {
        let varied = vary(&["x".to_owned(), "".to_owned()], 50, 1);
        assert!(varied.iter().step_by(2).all(|text| text == "x"));
    }

    #[test]
    fn more_copies_leave_the_first_ones_alone() {
        let texts = texts();
        assert!(vary(&texts, 3, 1).starts_with(&vary(&texts, 1, 1)));
    }
}
