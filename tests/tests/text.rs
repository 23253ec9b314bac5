//! Any text gives a sound answer, and the ids that the original tokenizer gives.

use dram_runtime::text::Text;
use serde_json::Value;

use crate::dram::{dram, dram_reading, golden, intents, root, skip};

#[test]
fn token_ids_are_those_of_the_original() {
    let tokenizer = std::fs::read(golden("tokenizer.json")).expect("golden/tokenizer.json");
    let text = Text::new(&tokenizer, 512).expect("a tokenizer");
    let file = std::fs::read_to_string(golden("tokens.json")).expect("golden/tokens.json");
    let document: Value = serde_json::from_str(&file).expect("JSON");
    let mut wrong = Vec::new();
    for row in document["rows"].as_array().expect("rows") {
        let ids = text.ids(row["text"].as_str().expect("a text")).expect("ids");
        if serde_json::json!(ids) != row["ids"] {
            wrong.push(format!("{row}: got {ids:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Asserts that the answer is three labels with probabilities, the likeliest first.
#[track_caller]
fn assert_sound(answer: &Value) {
    let probabilities: Vec<f64> = answer
        .as_array()
        .expect("a list of labels")
        .iter()
        .map(|it| it["probability"].as_f64().expect("a number"))
        .collect();
    assert_eq!(probabilities.len(), 3, "{answer}");
    assert!(probabilities.is_sorted_by(|a, b| a >= b), "{answer}");
    assert!(probabilities.iter().all(|p| (0.0..=1.0).contains(p)), "{answer}");
    assert!(answer[0]["label"].is_string(), "{answer}");
}

#[test]
fn every_text_has_an_answer() {
    let texts = [
        "",
        " ",
        "wake me at six",
        "Wie wird das Wetter morgen in Zürich?",
        "明日の朝六時に起こして",
        "разбуди меня в шесть",
        "😀😀😀",
        "\u{0}\u{1}\u{fffd}",
        "-- --help \\ \" '",
    ];
    let lines = texts.map(|text| format!("{text}\n")).concat();
    let answers = dram_reading(&lines, &["run", &intents(), "--json"]).expect(0).json();
    assert_eq!(answers.as_array().map(Vec::len), Some(texts.len()));
    answers.as_array().into_iter().flatten().for_each(|answer| assert_sound(answer));
    assert_eq!(answers[2][0]["label"], "alarm");
}

#[test]
fn a_hundred_thousand_words_are_cut_to_what_fits() {
    for text in ["wake me at six ".repeat(25_000), "x".repeat(600_000)] {
        let answers = dram_reading(&text, &["run", &intents(), "--json", "--ram", "32MiB"]);
        assert_sound(&answers.expect(0).json()[0]);
    }
}

#[test]
fn the_zoo_reaches_its_accuracy_on_the_validation_data() {
    let data = root().join("../shared/data/clinc150/val.tsv");
    if !data.exists() {
        return skip("the_zoo_reaches_its_accuracy_on_the_validation_data", "no ../shared/data");
    }
    let data = crate::dram::text(&data);
    let evaluation = dram(&["eval", &intents(), &data, "--json"]).expect(0).json();
    assert_eq!(evaluation["examples"], 3000);
    let metrics = dram(&["inspect", &intents(), "--json"]).expect(0).json();
    let promised = metrics["manifest"]["metrics"]["int8_score"].as_f64();
    // The bundle was measured when it was packed; int8 results are the same bits on every machine,
    // the f32 parts around them are not: three texts of 3,000 may fall the other way.
    let accuracy = evaluation["accuracy"].as_f64().expect("an accuracy");
    assert!((accuracy - promised.expect("a score")).abs() <= 0.001, "{evaluation} {promised:?}");
    assert!(evaluation["macro_f1"].as_f64().is_some_and(|f1| f1 > 0.9), "{evaluation}");
    assert!(evaluation["examples_per_second"].as_f64().is_some_and(|rate| rate > 1.0));
}
