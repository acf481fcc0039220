//! Conditions of `ok` and `unavailable`: a place, and the values at which the condition holds.

use serde_json::Value;

use super::config::Accepted;
use super::place_in_answer;
use crate::pointer::Pointer;

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    place: Pointer,
    values: Vec<Wanted>,
}

/// A value, or a range of values, that fulfils a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Bool(bool),
    Number(i64),
    Range(u64, u64),
    Text(String),
}

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// The place is no pointer, there is no value, or a range is empty.
    pub(super) fn parse(place: &str, values: &[Accepted]) -> Result<Self, String> {
        let place = place_in_answer(place)?;
        if values.is_empty() {
            return Err(format!("{:?} has no values: name at least one", place.as_str()));
        }
        let values = values.iter().map(Wanted::parse).collect::<Result<_, _>>()?;
        Ok(Self { place, values })
    }

    /// Returns whether the answer fulfils the condition.
    pub(super) fn holds(&self, answer: &Value) -> bool {
        self.place.of(answer).is_some_and(|value| self.values.iter().any(|wanted| wanted.fits(value)))
    }

    /// Returns the place.
    pub(super) fn place(&self) -> &Pointer {
        &self.place
    }

    /// Returns the accepted values in words.
    pub(super) fn wanted(&self) -> String {
        let values: Vec<_> = self.values.iter().map(Wanted::words).collect();
        values.join(" or ")
    }
}

impl Wanted {
    fn parse(value: &Accepted) -> Result<Self, String> {
        match value {
            Accepted::Bool(value) => Ok(Self::Bool(*value)),
            Accepted::Number(value) => Ok(Self::Number(*value)),
            Accepted::Text(text) => range(text).unwrap_or_else(|| Ok(Self::Text(text.clone()))),
        }
    }

    fn fits(&self, value: &Value) -> bool {
        match self {
            Self::Bool(wanted) => value.as_bool() == Some(*wanted),
            Self::Number(wanted) => {
                value.as_i64() == Some(*wanted) || value.as_str() == Some(wanted.to_string().as_str())
            }
            Self::Range(first, last) => whole(value).is_some_and(|number| (*first..=*last).contains(&number)),
            Self::Text(wanted) => value.as_str() == Some(wanted),
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::Range(first, last) => format!("{first} to {last}"),
            Self::Text(text) => format!("{text:?}"),
        }
    }
}

/// Reads a range such as `500-599`. `None`: the text is no range.
fn range(text: &str) -> Option<Result<Wanted, String>> {
    let (first, last) = text.split_once('-').filter(|(first, last)| is_digits(first) && is_digits(last))?;
    let numbers = first.parse().ok().zip(last.parse().ok());
    Some(match numbers {
        Some((first, last)) if first <= last => Ok(Wanted::Range(first, last)),
        Some(_) => Err(format!("the range {text:?} is empty: write the smaller number first")),
        None => Err(format!("the range {text:?} is too large: numbers end at 2^64-1")),
    })
}

/// Returns the whole number that a JSON integer, or a JSON string of digits, means.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str().filter(|text| is_digits(text))?.parse().ok())
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(values: &[Accepted]) -> Condition {
        Condition::parse("/code", values).unwrap()
    }

    #[test]
    fn values_hold_as_the_manual_says() {
        let text = |text: &str| Accepted::Text(text.into());
        let cases = [
            (
                vec![Accepted::Number(0)],
                vec![json!(0), json!("0")],
                vec![json!(1), json!("00"), json!(0.5), json!(false), json!(null), json!(""), json!([0])],
            ),
            (vec![Accepted::Number(-1)], vec![json!(-1), json!("-1")], vec![json!(1)]),
            (
                vec![text("500-599")],
                vec![json!(500), json!(599), json!("550")],
                vec![json!(499), json!(600), json!("500-599"), json!(550.5), json!(-550), json!("")],
            ),
            (vec![text("OK")], vec![json!("OK")], vec![json!("ok"), json!("OK "), json!(true)]),
            (vec![text("1")], vec![json!("1")], vec![json!(1)]),
            (vec![Accepted::Bool(true)], vec![json!(true)], vec![json!(false), json!("true"), json!(1)]),
            (vec![Accepted::Number(0), text("ok")], vec![json!(0), json!("ok")], vec![json!(200)]),
        ];
        for (values, good, bad) in cases {
            let condition = of(&values);
            for value in good {
                assert!(condition.holds(&json!({ "code": value })), "{values:?} {value}");
            }
            for value in bad {
                assert!(!condition.holds(&json!({ "code": value })), "{values:?} {value}");
            }
            assert!(!condition.holds(&json!({})) && !condition.holds(&json!([])));
        }
    }

    #[test]
    fn faults_say_what_to_write() {
        let fault = |place: &str, values: &[Accepted]| Condition::parse(place, values).unwrap_err();
        assert!(fault("code", &[Accepted::Number(0)]).contains("no JSON pointer"));
        assert!(fault("/code", &[]).contains("name at least one"));
        assert!(fault("/code", &[Accepted::Text("599-500".into())]).contains("smaller number first"));
        assert!(fault("/code", &[Accepted::Text("1-99999999999999999999".into())]).contains("too large"));
        for text in ["500-", "-5", "a-b", "1-2-3"] {
            assert!(of(&[Accepted::Text(text.into())]).holds(&json!({ "code": text })), "{text} is a text");
        }
    }
}
