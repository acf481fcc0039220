//! Answers of connmix, over HTTP and WebSocket. Pure: no sockets here.

use serde::Serialize;
use serde_json::value::RawValue;
use shared::wire::Counts;

use crate::error::Refusal;
use crate::receipts::Receipt;

/// An answer, in the order of keys that publishers know. Over HTTP there is no `i`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer<'a> {
    Counted {
        #[serde(rename = "E")]
        error: (),
        r: Counted,
        #[serde(skip_serializing_if = "Option::is_none")]
        i: Option<&'a RawValue>,
    },
    Refused {
        #[serde(rename = "E")]
        error: ErrorBody,
        #[serde(skip_serializing_if = "Option::is_none")]
        i: Option<&'a RawValue>,
    },
}

#[derive(Debug, Serialize)]
struct Counted {
    #[serde(flatten)]
    counts: Counts,
    /// Present only where no header can say so, and only when it is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<bool>,
}

#[derive(Debug, Serialize)]
struct ErrorBody {
    c: u16,
    m: String,
}

/// Returns the body of an HTTP answer.
pub(crate) fn http_answer(outcome: &Result<Receipt, Refusal>) -> String {
    match outcome {
        Ok(receipt) => counted(receipt.counts, None, None),
        Err(refusal) => refused(refusal, None),
    }
}

/// Returns the text of a WebSocket answer.
pub(crate) fn ws_answer(outcome: &Result<Receipt, Refusal>, echo: Option<&RawValue>) -> String {
    match outcome {
        Ok(receipt) => counted(receipt.counts, (!receipt.complete).then_some(false), echo),
        Err(refusal) => refused(refusal, echo),
    }
}

fn counted(counts: Counts, complete: Option<bool>, i: Option<&RawValue>) -> String {
    text(&Answer::Counted { error: (), r: Counted { counts, complete }, i })
}

fn refused(refusal: &Refusal, i: Option<&RawValue>) -> String {
    let error = ErrorBody { c: refusal.code().row().number, m: refusal.to_string() };
    text(&Answer::Refused { error, i })
}

fn text(answer: &Answer<'_>) -> String {
    serde_json::to_string(answer).expect("an answer has only string keys")
}
