//! Asks the business system, and says what its answers mean.
//!
//! A "yes" is only what is surely one. What is neither yes nor no is "unavailable", never a yes and never a
//! no: a device must not be logged out because a URL is wrong or a database is away.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use shared::ids::Uid;
use shared::trace::{self, TraceContext};
use tokio::time::{Instant, timeout};
use tracing::field::Empty;
use tracing::{Instrument as _, Span, info_span};

use crate::config::{BodyFormat, Config};

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 10;
/// The longest life of a login that makes a difference: a hundred years, in seconds.
const FOREVER: f64 = 3_153_600_000.0;

/// What the business system said about a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It belongs to this user.
    Yes {
        uid: Uid,
        /// When the login expires. `None`: it does not.
        expires: Option<Instant>,
    },
    /// It is no good.
    No,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("it did not answer within {0:?}")]
    Slow(Duration),
    #[error("it can't be reached: {0}")]
    Unreachable(String),
    #[error("it answered with HTTP status {0}")]
    Status(u16),
    #[error("its answer is not JSON")]
    NotJson,
    #[error("its answer has more than {MAX_ANSWER} bytes")]
    TooLarge,
    #[error("its expires_in is not a number of seconds")]
    BadExpiry,
    #[error("no call of it could begin within {0:?}, so many are under way")]
    Busy(Duration),
}

impl Failure {
    /// For the counter.
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::Slow(_) => "slow",
            Self::Unreachable(_) => "unreachable",
            Self::Status(_) => "status",
            Self::NotJson => "not_json",
            Self::TooLarge => "too_large",
            Self::BadExpiry => "bad_expiry",
            Self::Busy(_) => "busy",
        }
    }
}

/// The business system. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Business {
    client: reqwest::Client,
    url: reqwest::Url,
    body: BodyFormat,
    deadline: Duration,
}

impl Business {
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let name = HeaderName::try_from(name.as_str()).with_context(|| format!("header {name:?}"))?;
            let mut value =
                HeaderValue::from_str(value.expose()).with_context(|| format!("value of {name}"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let url: reqwest::Url = config.url.parse().with_context(|| format!("url {:?}", config.url))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(url.scheme() == "https")?)
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(config.max_in_flight)
            .build()
            .context("the HTTP client")?;
        Ok(Self { client, url, body: config.body, deadline: config.deadline })
    }

    /// Asks. Bounded by the deadline.
    pub(crate) async fn ask(&self, token: &str) -> Result<Answer, Failure> {
        let exchange = self.exchange(token).instrument(self.span());
        timeout(self.deadline, exchange).await.unwrap_or(Err(Failure::Slow(self.deadline)))
    }

    /// The call, in the trace of the login that it is for, if that is kept. The URL may hold a secret.
    fn span(&self) -> Span {
        if !trace::is_sampled() {
            return Span::none();
        }
        info_span!(
            target: trace::TARGET,
            "business call",
            otel.kind = "client",
            http.request.method = "POST",
            server.address = self.url.host_str(),
            http.response.status_code = Empty,
        )
    }

    async fn exchange(&self, token: &str) -> Result<Answer, Failure> {
        let mut response = match self.send(token).await {
            // The other side may close a kept connection in the moment in which it is used again.
            Err(error) if error.is_request() && !error.is_connect() => self.send(token).await,
            sent => sent,
        }
        .map_err(|error| failure(&error))?;
        let status = response.status().as_u16();
        Span::current().record("http.response.status_code", status);
        let mut body = Vec::new();
        // Only a yes has a body that matters.
        while status == 200
            && let Some(chunk) = response.chunk().await.map_err(|error| failure(&error))?
        {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(Failure::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        interpret(status, &body, Instant::now())
    }

    async fn send(&self, token: &str) -> reqwest::Result<reqwest::Response> {
        let request = self.client.post(self.url.clone());
        let request = match self.body {
            BodyFormat::Json => request.json(&serde_json::json!({ "token": token })),
            BodyFormat::Form => request.form(&[("token", token)]),
        };
        let request = match TraceContext::current() {
            Some(trace) => {
                let request = request.header(trace::TRACEPARENT, trace.traceparent());
                trace.tracestate().into_iter().fold(request, |r, state| r.header(trace::TRACESTATE, state))
            }
            None => request,
        };
        request.send().await
    }
}

/// The innermost cause says what an operator needs ("Connection refused"); the URL, which the outer ones name,
/// may hold a secret.
fn failure(error: &reqwest::Error) -> Failure {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Failure::Unreachable(cause.to_string())
}

/// rustls with ring and the system's certificates, for this client alone: nothing is installed globally.
/// They are read only where they will be needed.
fn tls(needed: bool) -> anyhow::Result<rustls::ClientConfig> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    if needed {
        // A certificate that can't be read is no reason to be without the others.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        anyhow::ensure!(
            !roots.is_empty(),
            "no certificate authorities were found to check an https url against; install the system's \
             certificates (package ca-certificates) or name a file in SSL_CERT_FILE"
        );
    }
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// What an answer means. Pure.
pub(crate) fn interpret(status: u16, body: &[u8], now: Instant) -> Result<Answer, Failure> {
    match status {
        200 => {}
        // The business system spoke about the token. A 404 rather speaks about our URL.
        400 | 401 | 403 | 422 => return Ok(Answer::No),
        other => return Err(Failure::Status(other)),
    }
    let body: Value = serde_json::from_slice(body).map_err(|_| Failure::NotJson)?;
    let Some(Ok(uid)) = body.get("uid").map(Uid::from_json) else { return Ok(Answer::No) };
    let expires = match body.get("expires_in") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let seconds = value.as_f64().ok_or(Failure::BadExpiry)?;
            if seconds <= 0.0 {
                return Ok(Answer::No);
            }
            now.checked_add(Duration::from_secs_f64(seconds.min(FOREVER)))
        }
    };
    Ok(Answer::Yes { uid, expires })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn yes(uid: &str, expires: Option<Instant>) -> Result<Answer, Failure> {
        Ok(Answer::Yes { uid: Uid::parse(uid).unwrap(), expires })
    }

    #[test]
    fn only_status_200_with_a_uid_is_a_yes() {
        let now = Instant::now();
        let of = |body: &str| interpret(200, body.as_bytes(), now);
        assert_eq!(of(r#"{"uid":1001}"#), yes("1001", None));
        assert_eq!(of(r#"{"uid":"1001","name":"x"}"#), yes("1001", None));
        assert_eq!(of(r#"{"uid":18446744073709551615}"#), yes("18446744073709551615", None));
        let later = now + Duration::from_millis(1_500);
        assert_eq!(of(r#"{"uid":1,"expires_in":1.5}"#), yes("1", Some(later)));
        assert_eq!(of(r#"{"uid":1,"expires_in":null}"#), yes("1", None));
        assert!(matches!(of(r#"{"uid":1,"expires_in":1e300}"#), Ok(Answer::Yes { expires: Some(_), .. })));
        for no in [
            "{}",
            "null",
            "[]",
            "1",
            r#""x""#,
            r#"{"uid":null}"#,
            r#"{"uid":0}"#,
            r#"{"uid":"0"}"#,
            r#"{"uid":""}"#,
            r#"{"uid":-1}"#,
            r#"{"uid":1.5}"#,
            r#"{"uid":18446744073709551616}"#,
            r#"{"uid":true}"#,
            r#"{"uid":[1]}"#,
            r#"{"uid":1,"expires_in":0}"#,
            r#"{"uid":1,"expires_in":-5}"#,
        ] {
            assert_eq!(of(no), Ok(Answer::No), "{no}");
        }
        assert_eq!(of(r#"{"uid":1,"expires_in":"soon"}"#), Err(Failure::BadExpiry));
        for rubbish in ["", "<html>", "{\"uid\":1", "\u{0}"] {
            assert_eq!(of(rubbish), Err(Failure::NotJson), "{rubbish}");
        }
    }

    #[test]
    fn other_statuses_are_a_no_or_no_answer() {
        let body = br#"{"uid":1001}"#;
        for status in 100..=599 {
            let expected = match status {
                200 => yes("1001", None),
                400 | 401 | 403 | 422 => Ok(Answer::No),
                other => Err(Failure::Status(other)),
            };
            assert_eq!(interpret(status, body, Instant::now()), expected, "{status}");
        }
    }

    /// Holds the manual's table to what the code does.
    #[test]
    fn answers_mean_what_the_manual_says() {
        let manual = include_str!("../../deploy/docs/login.md");
        let mut rows = 0;
        for line in manual.lines() {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let [_, status, body, means, device, _] = cells[..] else { continue };
            let Ok(status) = status.parse() else { continue };
            let (meaning, to_device) =
                match interpret(status, body.trim_matches('`').as_bytes(), Instant::now()) {
                    Ok(Answer::Yes { expires: None, .. }) => ("yes", "`{\"result\":true}`"),
                    Ok(Answer::Yes { expires: Some(_), .. }) => ("yes, for an hour", "`{\"result\":true}`"),
                    Ok(Answer::No) => ("no", "error 2, close 4401"),
                    Err(_) => ("no answer", "error 3, close 1013"),
                };
            assert_eq!((means, device), (meaning, to_device), "{line}");
            rows += 1;
        }
        assert!(rows >= 20, "the manual's table has only {rows} rows");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,40}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| prop::collection::vec(inner, 0..4).prop_map(Value::from))
    }

    proptest! {
        #[test]
        fn only_an_integer_or_a_string_is_a_user(uid in any_json(), expires in any_json()) {
            let now = Instant::now();
            let body = serde_json::json!({ "uid": uid, "expires_in": expires });
            match interpret(200, body.to_string().as_bytes(), now) {
                Ok(Answer::Yes { uid: user, expires: at }) => {
                    let text = uid.as_str().map(str::to_owned).or_else(|| uid.as_u64().map(|uid| uid.to_string()));
                    prop_assert_eq!(Some(user.as_str()), text.as_deref());
                    prop_assert!(expires.is_null() || expires.as_f64().is_some_and(|seconds| seconds > 0.0));
                    prop_assert!(at.is_none_or(|at| at >= now) && at.is_none() == expires.is_null());
                }
                Ok(Answer::No) => prop_assert!(
                    Uid::from_json(&uid).is_err() || expires.as_f64().is_some_and(|seconds| seconds <= 0.0)
                ),
                Err(failure) => {
                    prop_assert_eq!(failure, Failure::BadExpiry);
                    prop_assert!(!expires.is_null() && !expires.is_number());
                }
            }
        }

        #[test]
        fn no_body_makes_a_panic_and_only_a_uid_makes_a_yes(status in 100_u16..600, body: Vec<u8>) {
            let answer = interpret(status, &body, Instant::now());
            if let Ok(Answer::Yes { .. }) = answer {
                let value: Value = serde_json::from_slice(&body).unwrap();
                prop_assert!(status == 200 && Uid::from_json(&value["uid"]).is_ok());
            }
        }
    }
}
