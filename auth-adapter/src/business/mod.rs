//! One call of the business system: the request, its bounds, and its failures.
//!
//! Nothing here tries again: [`Failure`] tells whether a retry is safe, and `caller` decides.

mod answer;
pub(crate) mod tls;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use shared::trace::{self, TraceContext};
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument as _, Span, info_span};

use crate::config::{BodyFormat, Config};
pub(crate) use answer::Answer;

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 10;
/// The user agent, for the business system's log.
pub(crate) const USER_AGENT: &str = concat!("message-center/", env!("CARGO_PKG_VERSION"));

/// Why a call gives no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("it did not answer within {0:?}")]
    Slow(Duration),
    /// No connection came about: the business system surely saw nothing of the request.
    #[error("it can't be reached: {0}")]
    NotReached(#[source] Cause),
    /// The connection broke after the request was sent, at least in part. The request may have been
    /// processed.
    #[error("it can't be reached: the connection broke: {0}")]
    Broken(#[source] Cause),
    #[error("it answered with HTTP status {status}")]
    Status {
        status: u16,
        /// How long the business system wants to be left alone.
        retry_after: Option<Duration>,
    },
    #[error("its answer is not JSON")]
    NotJson,
    #[error("its answer has more than {MAX_ANSWER} bytes")]
    TooLarge,
    #[error("its expires_in is not a number of seconds")]
    BadExpiry,
    #[error("its answer names two users or two expiries")]
    Ambiguous,
    #[error("no call of it could begin within {0:?}, so many are under way")]
    Busy(Duration),
    #[error("it fails too often and is not asked for another {0:?}")]
    Open(Duration),
    #[error("nothing from this device's address was answered, and no more is asked for another {0:?}")]
    AddressStopped(Duration),
    #[error("it wants not to be asked about this token for another {0:?}")]
    Postponed(Duration),
    #[error("the edge had given up before it could be asked")]
    Stale,
}

/// The error of the HTTP client behind a failed call. Its text is the innermost cause, which says what an
/// operator needs ("Connection refused").
#[derive(Debug, Clone)]
pub(crate) struct Cause(Arc<reqwest::Error>);

impl Cause {
    /// Takes the error without the URL, which may hold a secret.
    pub(crate) fn new(error: reqwest::Error) -> Self {
        Self(Arc::new(error.without_url()))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cause: &dyn Error = &*self.0;
        while let Some(source) = cause.source() {
            cause = source;
        }
        fmt::Display::fmt(cause, f)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// A cause equals only itself: errors of the client can't be compared.
impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Cause {}

impl Failure {
    /// Returns the label for the counter.
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::Slow(_) => "slow",
            Self::NotReached(_) => "unreachable",
            Self::Broken(_) => "broken",
            Self::Status { .. } => "status",
            Self::NotJson => "not_json",
            Self::TooLarge => "too_large",
            Self::BadExpiry => "bad_expiry",
            Self::Ambiguous => "ambiguous",
            Self::Busy(_) => "busy",
            Self::Open(_) => "breaker_open",
            Self::AddressStopped(_) => "address_stopped",
            Self::Postponed(_) => "postponed",
            Self::Stale => "stale",
        }
    }
}

/// The business system. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Business {
    client: reqwest::Client,
    url: reqwest::Url,
    body: BodyFormat,
    refusals: Vec<u16>,
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
            .tls_backend_preconfigured(tls::client(&config.tls, url.scheme() == "https")?)
            .user_agent(USER_AGENT)
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(config.connect_deadline)
            .pool_max_idle_per_host(config.max_in_flight)
            .pool_idle_timeout(config.keep_idle)
            .build()
            .context("the HTTP client")?;
        Ok(Self { client, url, body: config.body, refusals: config.refusals.clone() })
    }

    /// Asks about a token, once. The answer is bounded in bytes, but not in time.
    pub(crate) async fn ask(&self, token: &str) -> Result<Answer, Failure> {
        self.exchange(token).instrument(self.span()).await
    }

    /// Makes the span of the call, in the trace of the login, if the trace is sampled. It has no URL, which
    /// may hold a secret.
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
        let mut response = self.send(token).await.map_err(failure)?;
        let status = response.status().as_u16();
        Span::current().record("http.response.status_code", status);
        if status != 200 {
            let wait = response.headers().get(RETRY_AFTER).filter(|_| matches!(status, 429 | 503));
            let retry_after = wait.and_then(|wait| answer::retry_after(wait.as_bytes(), SystemTime::now()));
            return if self.refusals.contains(&status) {
                Ok(Answer::No)
            } else {
                Err(Failure::Status { status, retry_after })
            };
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failure)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(Failure::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        answer::interpret(&body, Instant::now())
    }

    /// Sends a request, with the headers that differ between requests, such as those of the trace. The client
    /// itself replaces an idle connection that turns out to be closed before any of the request was written.
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

/// Tells a request that surely did not begin from one that may have been processed.
fn failure(error: reqwest::Error) -> Failure {
    if error.is_connect() {
        Failure::NotReached(Cause::new(error))
    } else {
        Failure::Broken(Cause::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds the manual's table to what the code does.
    #[test]
    fn answers_mean_what_the_manual_says() {
        let manual = include_str!("../../../deploy/docs/login.md");
        let refusals = Config::default().refusals;
        let mut rows = 0;
        for line in manual.lines() {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let [_, status, body, means, device, _] = cells[..] else { continue };
            let Ok(status) = status.parse::<u16>() else { continue };
            let answer = match status {
                200 => answer::interpret(body.trim_matches('`').as_bytes(), Instant::now()).ok(),
                other => refusals.contains(&other).then_some(Answer::No),
            };
            let (meaning, to_device) = match answer {
                Some(Answer::Yes { expires: None, .. }) => ("yes", "`{\"result\":true}`"),
                Some(Answer::Yes { expires: Some(_), .. }) => ("yes, for an hour", "`{\"result\":true}`"),
                Some(Answer::No) => ("no", "error 2, close 4401"),
                None => ("no answer", "error 3, close 1013"),
            };
            assert_eq!((means, device), (meaning, to_device), "{line}");
            rows += 1;
        }
        assert!(rows >= 20, "the manual's table has only {rows} rows");
    }
}
