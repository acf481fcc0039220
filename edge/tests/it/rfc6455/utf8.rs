//! Section 6: text is UTF-8; a frame that is not ends the connection as soon as it has come.

use super::case::{Case, End, Said, echo, op, pong};
use super::hold;
use test_kit::frames::{CONTINUATION, PING, TEXT, fragmented, part, whole};

const NOT_UTF8: End = End::Closed(1007);
/// "kosme" in Greek, with an accented letter of three bytes.
const KOSME: &str = "κ\u{1f79}σμε";

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn good(id: String, text: &str) -> Case {
    Case::new(id, &[whole(TEXT, &op(text.as_bytes()))], &[echo(text)], End::Open)
}

fn bad(id: String, bytes: &[u8]) -> Case {
    Case::new(id, &[whole(TEXT, &op(bytes))], &[], NOT_UTF8)
}

#[tokio::test]
async fn text_may_be_empty_and_be_split_anywhere() {
    let greeting = "Hello-µ@ßöäüàá-UTF-8!!";
    let message = op(greeting.as_bytes());
    let refused = |id: &str, frames: &[Vec<u8>]| Case::new(id, frames, &[Said::Refusal], End::Closed(4400));
    let two = [part(TEXT, &message[..25]), whole(CONTINUATION, &message[25..])];
    hold(vec![
        refused("6.1.1", &[whole(TEXT, b"")]),
        refused("6.1.2", &[part(TEXT, b""), part(CONTINUATION, b""), whole(CONTINUATION, b"")]),
        Case::new(
            "6.1.3",
            &[part(TEXT, b""), part(CONTINUATION, &message), whole(CONTINUATION, b"")],
            &[echo(greeting)],
            End::Open,
        ),
        good("6.2.1".into(), greeting),
        Case::new("6.2.2", &two, &[echo(greeting)], End::Open),
        Case::new("6.2.3", &[fragmented(TEXT, &message, 1)], &[echo(greeting)], End::Open),
        Case::new("6.2.4", &[fragmented(TEXT, &op(KOSME.as_bytes()), 1)], &[echo(KOSME)], End::Open),
    ])
    .await;
}

#[tokio::test]
async fn the_frame_with_the_wrong_byte_is_the_last() {
    let surrogate = op(&[KOSME.as_bytes(), b"\xed\xa0\x80edited"].concat());
    let beyond = op(&[KOSME.as_bytes(), b"\xf4\x90\x80\x80edited"].concat());
    let wrong = beyond.windows(2).position(|pair| pair == b"\xf4\x90").unwrap();
    // The message is never finished: it is refused for invalid bytes before its end.
    let unfinished = |id: &str, first: usize, second: usize| {
        let frames = [part(TEXT, &beyond[..first]), part(CONTINUATION, &beyond[first..second])];
        Case::new(id, &frames, &[], NOT_UTF8)
    };
    // The second part is sent once the first is surely understood.
    let waits = |id: &str, first: usize, second: usize| {
        let start = [part(TEXT, &beyond[..first]), whole(PING, b"go on")];
        let wrong = [part(CONTINUATION, &beyond[first..second])];
        Case::new(id, &start, &[pong(b"go on")], NOT_UTF8).then(&wrong, &[])
    };
    hold(vec![
        Case::new("6.3.1", &[whole(TEXT, &surrogate)], &[], NOT_UTF8),
        Case::new("6.3.2", &[fragmented(TEXT, &surrogate, 1)], &[], NOT_UTF8),
        unfinished("6.4.1", wrong, wrong + 4),
        unfinished("6.4.2", wrong + 1, wrong + 2),
        waits("6.4.1, with a wait between", wrong, wrong + 4),
        waits("6.4.2, with a wait between", wrong + 1, wrong + 2),
        Case::new("6.4.3", &[whole(TEXT, &beyond)], &[], NOT_UTF8).chopped(wrong),
        Case::new("6.4.4", &[whole(TEXT, &beyond)], &[], NOT_UTF8).chopped(1),
    ])
    .await;
}

/// A control character is valid UTF-8, but valid JSON only if it is escaped.
#[tokio::test]
async fn a_nul_is_text() {
    let refused =
        |id: &str, text: &[u8]| Case::new(id, &[whole(TEXT, text)], &[Said::Refusal], End::Closed(4400));
    hold(vec![
        refused("6.7.1", b"\0"),
        refused("6.7.1, within an op", &op(b"\0")),
        refused("6.7.1, behind an op", &[&op(b"x")[..], b"\0"].concat()),
        Case::new("6.7.1, escaped", &[whole(TEXT, &op(b"\\u0000"))], &[echo("\0")], End::Open),
    ])
    .await;
}

/// Byte sequences by section: in hexadecimal, and whether they are UTF-8.
const SEQUENCES: &[(&str, bool, &[&str])] = &[
    (
        "6.5 valid",
        true,
        &[
            "68656c6c6f24776f726c64",
            "68656c6c6fc2a2776f726c64",
            "68656c6c6fe282ac776f726c64",
            "68656c6c6ff0a4ada2776f726c64",
            "cebae1bdb9cf83cebcceb5",
        ],
    ),
    ("6.7 first of a length", true, &["20", "c280", "e0a080", "f0908080"]),
    ("6.8 first of a length that there is not", false, &["f888808080", "fc8480808080"]),
    ("6.9 last of a length", true, &["7f", "dfbf", "efbfbf", "f48fbfbf"]),
    ("6.10 last of a length that there is not", false, &["f7bfbfbf", "fbbfbfbfbf", "fdbfbfbfbfbf"]),
    ("6.11 other boundaries", true, &["ed9fbf", "ee8080", "efbfbd", "f48fbfbf"]),
    ("6.11.5 beyond the last", false, &["f4908080"]),
    (
        "6.12 continuation without a start",
        false,
        &["80", "bf", "80bf", "80bf80", "80bf80bf", "80bf80bf80", "80bf80bf80bf"],
    ),
    (
        "6.14 last byte missing",
        false,
        &["c0", "e080", "f08080", "f8808080", "fc80808080", "df", "efbf", "f7bfbf", "fbbfbfbf", "fdbfbfbfbf"],
    ),
    ("6.15 many that lack one", false, &["c0e080f08080f8808080fc80808080dfefbff7bfbffbbfbfbffdbfbfbfbf"]),
    ("6.16 impossible bytes", false, &["fe", "ff", "fefeffff"]),
    ("6.17 overlong slash", false, &["c0af", "e080af", "f08080af", "f8808080af", "fc80808080af"]),
    ("6.18 longest overlong", false, &["c1bf", "e09fbf", "f08fbfbf", "f887bfbfbf", "fc83bfbfbfbf"]),
    ("6.19 overlong null", false, &["c080", "e08080", "f0808080", "f880808080", "fc8080808080"]),
    ("6.20 one surrogate", false, &["eda080", "edadbf", "edae80", "edafbf", "edb080", "edbe80", "edbfbf"]),
    (
        "6.21 two surrogates",
        false,
        &[
            "eda080edb080",
            "eda080edbfbf",
            "edadbfedb080",
            "edadbfedbfbf",
            "edae80edb080",
            "edae80edbfbf",
            "edafbfedb080",
            "edafbfedbfbf",
        ],
    ),
    ("6.23 specials", true, &["efbfb9", "efbfba", "efbfbb", "efbfbc", "efbfbd", "efbfbe", "efbfbf"]),
];

#[tokio::test]
async fn the_sequences_that_decoders_get_wrong_are_told_apart() {
    let mut cases = Vec::new();
    for (about, valid, sequences) in SEQUENCES {
        for (number, sequence) in (1..).zip(*sequences) {
            let (id, bytes) = (format!("{about}, number {number}"), hex(sequence));
            cases.push(match (valid, String::from_utf8(bytes.clone())) {
                (true, Ok(text)) => good(id, &text),
                (true, Err(error)) => panic!("{id} is listed as valid: {error}"),
                (false, _) => bad(id, &bytes),
            });
        }
    }
    let kosme = KOSME.as_bytes();
    for length in 1..=kosme.len() {
        let id = format!("6.6.{length}");
        cases.push(match length {
            2 | 5 | 7 | 9 | 11 => good(id, &KOSME[..length]),
            _ => bad(id, &kosme[..length]),
        });
    }
    let every: Vec<u8> = (0x80..=0xbf).collect();
    cases.push(bad("6.12.8".into(), &every));
    for (number, starts) in (1..).zip([0xc0..=0xdf, 0xe0..=0xef, 0xf0..=0xf7, 0xf8..=0xfb, 0xfc..=0xfd_u8]) {
        let lonely: Vec<u8> = starts.flat_map(|start| [start, b' ']).collect();
        cases.push(bad(format!("6.13.{number}"), &lonely));
    }
    // The last two code points of each plane are no characters, but valid all the same.
    for number in 1..=34_u32 {
        let point = (number - 1) / 2 * 0x1_0000 + 0xfffe + (number - 1) % 2;
        cases.push(good(format!("6.22.{number}"), &char::from_u32(point).unwrap().to_string()));
    }
    hold(cases).await;
}
