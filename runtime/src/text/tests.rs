//! The compiled form against the original: the crate's own model.

use std::path::Path;

use super::*;

const LONGEST: usize = 128;

fn both(json: &[u8]) -> [Text; 2] {
    let section = Section::of(compile(json).expect("WordPiece is compiled"));
    let compiled = Text::from_section(section, LONGEST).expect("the compiled form");
    assert!(matches!(compiled.tokenizer, Form::Compiled(_)));
    [Text::new(json, LONGEST).expect("the original"), compiled]
}

fn golden_json() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tokenizer.json");
    std::fs::read(path).expect("golden/tokenizer.json")
}

#[track_caller]
fn assert_same([original, compiled]: &[Text; 2], text: &str) {
    assert_eq!(compiled.ids(text).unwrap(), original.ids(text).unwrap(), "{text:?}");
}

/// `xorshift64`, Marsaglia 2003.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn both_forms_give_the_same_ids_for_texts_made_of_everything() {
    let texts = both(&golden_json());
    let tokens: Vec<String> = {
        let document: serde_json::Value = serde_json::from_slice(&golden_json()).unwrap();
        document["model"]["vocab"].as_object().unwrap().keys().cloned().collect()
    };
    let ranges: [(u32, u32); 8] = [
        (0, 0x7f),
        (0x20, 0x7e),
        (0xa0, 0x250),
        (0x300, 0x600),
        (0x900, 0x980),
        (0x2000, 0x2100),
        (0x3000, 0x9fff),
        (0x1_0000, 0x1_ffff),
    ];
    let mut state = 1;
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..1 + next(&mut state) % 12 {
            match next(&mut state) % 4 {
                0 => text.push(' '),
                1 => {
                    let (low, high) = ranges[next(&mut state) as usize % ranges.len()];
                    let code = low + next(&mut state) as u32 % (high - low);
                    text.extend(char::from_u32(code));
                }
                _ => {
                    let token = &tokens[next(&mut state) as usize % tokens.len()];
                    text.push_str(token.strip_prefix("##").unwrap_or(token));
                }
            }
        }
        assert_same(&texts, &text);
    }
}

#[test]
fn words_of_the_greatest_length_are_looked_up_and_longer_ones_unknown() {
    let texts = both(&golden_json());
    for length in [99, 100, 101] {
        assert_same(&texts, &"a".repeat(length));
        assert_same(&texts, &"é".repeat(length));
    }
}

#[test]
#[ignore = "reads the corpus that DRAM_CORPUS names, with the tokenizer that DRAM_TOKENIZER names; a minute"]
fn both_forms_give_the_same_ids_for_a_corpus() {
    let read = |name: &str| std::fs::read(std::env::var(name).expect(name)).expect(name);
    let texts = both(&read("DRAM_TOKENIZER"));
    let corpus = String::from_utf8(read("DRAM_CORPUS")).expect("UTF-8");
    corpus.lines().take(100_000).for_each(|line| assert_same(&texts, line));
}

#[test]
fn what_is_not_wordpiece_is_stored_as_it_is() {
    let with = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut document: serde_json::Value = serde_json::from_slice(&golden_json()).unwrap();
        edit(&mut document);
        compile(&serde_json::to_vec(&document).unwrap())
    };
    assert!(with(&|_| ()).is_some());
    type Edit<'a> = &'a dyn Fn(&mut serde_json::Value);
    let changes: [(&str, Edit); 5] = [
        ("type", &|it| it["model"]["type"] = "BPE".into()),
        ("version", &|it| it["version"] = "2.0".into()),
        ("unknown token", &|it| it["model"]["unk_token"] = "[NONE]".into()),
        ("a rest that is long", &|it| it["comment"] = "x".repeat(9000).into()),
        ("an empty token", &|it| it["model"]["vocab"][""] = 6000.into()),
    ];
    for (change, edit) in changes {
        assert!(with(edit).is_none(), "{change}");
    }
    assert!(compile(b"{}").is_none());
    assert!(compile(b"\xff").is_none());
}

#[test]
fn a_compiled_form_that_is_damaged_is_refused_and_never_panics() {
    let sound = compile(&golden_json()).expect("compiled");
    for at in (0..sound.len()).step_by(997) {
        for value in [0, b'}', 0xff] {
            let mut bytes = sound.clone();
            bytes[at] = value;
            let section = Section::of(bytes.clone());
            if let Ok(text) = Text::from_section(section, LONGEST) {
                text.ids("wake me at six tomorrow").expect("ids");
            }
        }
        let section = Section::of(sound[..at].to_vec());
        assert!(Text::from_section(section, LONGEST).is_err(), "{at} bytes");
    }
}

/// Found by fuzzing: the decoder is read twice, and the second time is expected to work.
#[test]
fn a_file_that_makes_the_parser_panic_is_refused() {
    let mut json = golden_json();
    let decoder = json.windows(9).position(|it| it == br#""decoder""#).expect("a decoder");
    let prefix = json[decoder..].windows(8).position(|it| it == br#""prefix""#).expect("a prefix");
    // A byte that no UTF-8 has.
    json[decoder + prefix + 6] = 0xf8;
    assert!(matches!(Text::new(&json, LONGEST), Err(Error::Tokenizer { .. })));
}
