//! What `dram serve` speaks: one JSON object a line, a request there and a reply back.
//!
//! ```text
//! {"id": 7, "text": "wake me at six"}
//! {"id":7,"labels":[{"label":"alarm","probability":0.98}]}
//! ```
//! A request has an `id` (a number or a string of up to 128 bytes, echoed as it came; may be left out)
//! and either a `text` or `inputs`, tensors by name: `{"x": {"shape": [1, 2], "values": [0.5, 2]}}`. A
//! reply has the id, and `labels`, `embedding`, `outputs` or `error`. Every line gets exactly one reply,
//! whatever its bytes, but blank ones, which get none.
//!
//! [`Lines`] cuts the bytes of a connection into lines within a bound, [`answer`] turns a line into its
//! reply. What a line costs is bounded by its length and the model.

mod lines;
mod reply;
mod request;

use std::time::Duration;

use crate::decode::Prediction;
use crate::error::Result;
use crate::session::Session;
use reply::{Answer, reply};
use request::{Asked, Request};

pub use lines::{Line, Lines};

/// A line to send back, its line feed included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The line.
    pub line: Vec<u8>,
    /// Whether the model answered; otherwise the line says what was wrong.
    pub answered: bool,
}

/// The reply to a whole request line. Of labels it gives the `top` likeliest.
pub fn answer(session: &Session, line: &[u8], top: usize) -> Reply {
    match Request::parse(line) {
        Ok(request) => {
            let answered = ask(session, &request, top);
            reply(request.id.as_ref(), &answered.unwrap_or_else(|error| Answer::error(&error)))
        }
        Err(reason) => reply(request::id_of(line).as_ref(), &Answer::Error(reason)),
    }
}

/// The reply to a request line that has no answer when the `deadline` after its arrival is over.
pub fn expired(line: &[u8], deadline: Duration) -> Reply {
    let reason = format!(
        "no answer within its deadline of {} ms; ask less often, or allow more with `--deadline`",
        deadline.as_millis()
    );
    reply(request::id_of(line).as_ref(), &Answer::Error(reason))
}

/// The reply to a line of more than `longest` bytes, which nobody kept.
pub fn too_long(longest: usize) -> Reply {
    let reason = format!(
        "the request is longer than {longest} bytes; shorten it, or allow more with `--max-request`"
    );
    reply(None, &Answer::Error(reason))
}

fn ask(session: &Session, request: &Request, top: usize) -> Result<Answer> {
    Ok(match &request.asked {
        Asked::Text(text) => match session.predict(text)? {
            Prediction::Labels(mut labels) => {
                labels.truncate(top);
                Answer::Labels(labels)
            }
            Prediction::Embedding(vector) => Answer::Embedding(vector),
        },
        Asked::Inputs(inputs) => {
            let tensors = request::tensors(session.inputs(), inputs)?;
            reply::outputs(&session.run(&tensors)?)?
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::bundle::Bundle;
    use crate::bundle::tests::small;
    use crate::session::Options;

    fn replied(line: &str) -> (Value, bool) {
        // y = x W + b for x `[1, 4]`, y `[1, 3]`.
        let bundle = Bundle::from_image(&small(1, &[])).unwrap();
        let session = Session::from_bundle(bundle, &Options::default()).unwrap();
        let Reply { line, answered } = answer(&session, line.as_bytes(), 3);
        assert_eq!(line.last(), Some(&b'\n'));
        let document: Value = serde_json::from_slice(&line).unwrap();
        (document, answered)
    }

    #[test]
    fn tensors_go_in_and_come_out() {
        let request =
            r#"{"id": "a", "inputs": {"x": {"shape": [1, 4], "values": [1, 0, 2.0, 0]}}}"#;
        let outputs =
            json!([{ "name": "y", "dtype": "f32", "shape": [1, 3], "values": [5.0, 4.375, 5.5] }]);
        assert_eq!(replied(request), (json!({ "id": "a", "outputs": outputs }), true));
    }

    #[test]
    fn what_is_wrong_is_told_under_the_id_that_it_came_with() {
        let long = format!(r#"{{"id": "{}", "text": "a"}}"#, "i".repeat(129));
        for (line, id, says) in [
            ("", json!(null), "EOF"),
            ("hello", json!(null), "expected"),
            ("[1]", json!(null), "expected"),
            (r#"{"text": "a"}"#, json!(null), "tokenizer"),
            (r#"{"id": 1}"#, json!(1), "`text` or `inputs`"),
            (r#"{"id": -1.5, "text": "a", "inputs": {}}"#, json!(-1.5), "`text` or `inputs`"),
            (r#"{"id": 1, "text": 5}"#, json!(1), "string"),
            (r#"{"id": "b", "txt": "a"}"#, json!("b"), "txt"),
            (r#"{"id": [1], "text": "a"}"#, json!(null), "id"),
            (&long, json!(null), "128"),
            (r#"{"id": 1, "inputs": {"z": {"shape": [1], "values": [0]}}}"#, json!(1), "`z`"),
            (r#"{"id": 1, "inputs": {"x": {"shape": [2, 4], "values": [0]}}}"#, json!(1), "`x`"),
            (r#"{"id": 1, "inputs": {"x": {"shape": [1, 4], "values": [0]}}}"#, json!(1), "`x`"),
            (
                r#"{"id": 1, "inputs": {"x": {"shape": [1, 4], "values": [0, 1, 2, 1e300]}}}"#,
                json!(1),
                "`x`",
            ),
        ] {
            let (document, answered) = replied(line);
            assert_eq!(document["id"], id, "{line}: {document}");
            assert!(
                !answered && document["error"].as_str().unwrap().contains(says),
                "{line}: {document}"
            );
        }
    }

    #[test]
    fn a_late_or_overlong_request_is_answered_too() {
        let late = expired(br#"{"id": 3, "text": "a"}"#, Duration::from_millis(250));
        let document: Value = serde_json::from_slice(&late.line).unwrap();
        assert_eq!(document["id"], 3);
        assert!(document["error"].as_str().unwrap().contains("250 ms"), "{document}");
        let document: Value = serde_json::from_slice(&too_long(1024).line).unwrap();
        assert!(document["error"].as_str().unwrap().contains("1024"), "{document}");
    }
}
