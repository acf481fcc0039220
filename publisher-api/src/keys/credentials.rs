//! The header `Authorization` of a request, read without trusting it.
//!
//! Pure. A header that can't be read is a refusal, never taken for a missing header. Nothing read here is
//! ever printed.

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use shared::config::Secret;

use super::secret;
use crate::error::Refusal;

/// The longest header, in bytes: a name and a secret in base64, with room.
const MAX_HEADER_BYTES: usize = 2_048;

/// Clients differ in whether they pad.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The sender's claim of who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// The name, where one was given (Basic).
    pub(crate) name: Option<String>,
    /// The proof.
    pub(crate) secret: Secret,
}

impl Credentials {
    /// Reads `Authorization`. `None`: there is no such header.
    ///
    /// # Errors
    /// [`Refusal::BadCredentials`] names the fault.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Option<Self>, Refusal> {
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = given.next() else { return Ok(None) };
        if given.next().is_some() {
            return Err(Refusal::BadCredentials("is there more than once; send it once"));
        }
        if value.len() > MAX_HEADER_BYTES {
            return Err(Refusal::BadCredentials("is too long to hold a key"));
        }
        let text = value.to_str().map_err(|_| Refusal::BadCredentials("is not plain ASCII"))?;
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let rest = rest.trim();
        let read = if scheme.eq_ignore_ascii_case("bearer") {
            bearer(rest)
        } else if scheme.eq_ignore_ascii_case("basic") {
            basic(rest)
        } else {
            Err("has a scheme that is not offered; send \"Bearer <key>\", or \"Basic\" with name and key")
        };
        read.map(Some).map_err(Refusal::BadCredentials)
    }
}

fn bearer(token: &str) -> Result<Credentials, &'static str> {
    if token.is_empty() {
        return Err("is empty after \"Bearer\"; the key goes there");
    }
    if token.len() > secret::MAX_BYTES || token.contains(char::is_whitespace) {
        return Err("holds no key after \"Bearer\"; send the key alone");
    }
    Ok(Credentials { name: None, secret: Secret::new(token) })
}

fn basic(encoded: &str) -> Result<Credentials, &'static str> {
    let bytes = BASE64.decode(encoded).map_err(|_| "has no base64 after \"Basic\"")?;
    let text = String::from_utf8(bytes).map_err(|_| "holds no UTF-8 in its base64")?;
    let (name, secret) = text.split_once(':').ok_or("holds no name:key in its base64")?;
    if secret.is_empty() {
        return Err("holds no key; write name:key");
    }
    Ok(Credentials { name: Some(name.to_owned()), secret: Secret::new(secret) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        values.iter().map(|value| (header::AUTHORIZATION, HeaderValue::from_bytes(value).unwrap())).collect()
    }

    fn read(value: &str) -> Result<(Option<String>, String), String> {
        match Credentials::read(&headers(&[value.as_bytes()])) {
            Ok(credentials) => {
                let credentials = credentials.expect("there was a header");
                Ok((credentials.name, credentials.secret.expose().to_owned()))
            }
            Err(refusal) => Err(refusal.to_string()),
        }
    }

    #[test]
    fn no_header_is_nobody() {
        assert!(Credentials::read(&HeaderMap::new()).unwrap().is_none());
    }

    #[test]
    fn a_bearer_is_a_secret_and_basic_a_name_with_it() {
        assert_eq!(read("Bearer mck_x"), Ok((None, "mck_x".into())));
        assert_eq!(read("bearer  mck_x "), Ok((None, "mck_x".into())));
        for basic in ["Basic c2hvcDptY2tfeA==", "BASIC c2hvcDptY2tfeA"] {
            assert_eq!(read(basic), Ok((Some("shop".into()), "mck_x".into())), "{basic}");
        }
        let colons = format!("Basic {}", STANDARD.encode("shop:a:b:"));
        assert_eq!(read(&colons), Ok((Some("shop".into()), "a:b:".into())));
        let nameless = format!("Basic {}", STANDARD.encode(":a"));
        assert_eq!(read(&nameless), Ok((Some(String::new()), "a".into())));
    }

    #[test]
    fn hostile_headers_are_refused_with_what_to_do_and_never_repeated() {
        for bad in [
            "",
            " ",
            "mck_hidden",
            "Bearer",
            "Bearer ",
            "Bearer mck_hidden mck_hidden",
            "Basic",
            "Basic mck_hidden!",
            "Basic aGlkZGVu",
            "Basic c2hvcDo=",
            "Basic //79",
            "Digest username=\"hidden\"",
            "Bearer,Basic c2hvcDptY2tfeA==",
            &format!("Bearer {}", "hidden".repeat(100)),
            &format!("Basic {}", "hidden".repeat(1_000)),
        ] {
            let fault = read(bad).unwrap_err();
            assert!(
                fault.starts_with("the header Authorization ") && !fault.contains("hidden"),
                "{bad}: {fault}"
            );
        }
        let twice = headers(&[b"Bearer a", b"Bearer b"]);
        assert!(Credentials::read(&twice).unwrap_err().to_string().contains("more than once"));
        assert!(Credentials::read(&headers(&[b"Bearer \xff"])).is_err());
    }

    #[test]
    fn a_secret_is_not_printed() {
        let read = Credentials::read(&headers(&[b"Basic c2hvcDptY2tfeA=="])).unwrap();
        assert!(!format!("{read:?}").contains("mck_x"), "{read:?}");
    }

    proptest! {
        #[test]
        fn no_header_breaks_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for prefix in ["", "Bearer ", "Basic "] {
                let value = [prefix.as_bytes(), &bytes].concat();
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    let _ = Credentials::read(&HeaderMap::from_iter([(header::AUTHORIZATION, value)]));
                }
            }
        }

        #[test]
        fn what_a_client_sends_as_basic_arrives(name in "[^:\u{0}]{0,20}", secret in ".{1,80}") {
            let value = format!("Basic {}", STANDARD.encode(format!("{name}:{secret}")));
            prop_assert_eq!(read(&value), Ok((Some(name), secret)));
        }
    }
}
