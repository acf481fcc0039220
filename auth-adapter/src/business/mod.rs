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
use shared::clock;
use shared::trace::{self, TraceContext};
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument as _, Span, info_span};

use crate::config::Config;
use crate::mapping::config::Method;
use crate::mapping::{Decision, Mapping, Moment, Reply, TokenPlace, decide};
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
    /// The expiry of this name is no number.
    #[error("its {0} is not a number of seconds")]
    BadExpiry(&'static str),
    #[error("its expires_at is more than 100 years away: are these milliseconds? It must be in seconds")]
    FarExpiry,
    #[error("a key of its answer that matters stands there twice")]
    Ambiguous,
    /// The condition of `unavailable` at this place holds.
    #[error("its answer says at {0} that it can't answer (auth_adapter.answer.unavailable)")]
    Declared(String),
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
            Self::BadExpiry(_) | Self::FarExpiry => "bad_expiry",
            Self::Declared(_) => "unavailable",
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
    mapping: Arc<Mapping>,
}

/// The status and the body of an answer.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) status: u16,
    retry_after: Option<Duration>,
    pub(crate) body: Vec<u8>,
    asked_at_ms: u64,
}

impl Business {
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        let mapping = Arc::new(Mapping::of(config)?);
        let url: reqwest::Url = config.url.parse().with_context(|| format!("url {:?}", config.url))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::client(&config.tls, url.scheme() == "https")?)
            .user_agent(USER_AGENT)
            .default_headers(headers(config)?)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(config.connect_deadline)
            .pool_max_idle_per_host(config.max_in_flight)
            .pool_idle_timeout(config.keep_idle)
            .build()
            .context("the HTTP client")?;
        Ok(Self { client, url, mapping })
    }

    /// Returns how the business system is asked, and what its answers mean.
    pub(crate) fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// Asks about a token, once. The answer is bounded in bytes, but not in time.
    pub(crate) async fn ask(&self, token: &str) -> Decision {
        match self.fetch(token).await {
            Ok(received) => self.decide(token, &received),
            Err(failure) => Decision::failed(failure),
        }
    }

    /// Decides what an answer about this token means, as of now.
    pub(crate) fn decide(&self, token: &str, received: &Received) -> Decision {
        let Received { status, retry_after, body, asked_at_ms } = received;
        let reply = Reply { status: *status, retry_after: *retry_after, body, token };
        let unix = Duration::from_millis(clock::unix_ms());
        decide(&self.mapping, reply, Moment { instant: Instant::now(), unix, asked_at_ms: *asked_at_ms })
    }

    /// Sends the request and reads the answer; the body only if the status is 200.
    pub(crate) async fn fetch(&self, token: &str) -> Result<Received, Failure> {
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
            http.request.method = self.mapping.method().as_str(),
            server.address = self.url.host_str(),
            http.response.status_code = Empty,
        )
    }

    async fn exchange(&self, token: &str) -> Result<Received, Failure> {
        let asked_at_ms = clock::unix_ms();
        let mut response = self.request(token).send().await.map_err(failure)?;
        let status = response.status().as_u16();
        Span::current().record("http.response.status_code", status);
        let mut received = Received { status, retry_after: None, body: Vec::new(), asked_at_ms };
        if status != 200 {
            let wait = response.headers().get(RETRY_AFTER).filter(|_| matches!(status, 429 | 503));
            received.retry_after =
                wait.and_then(|wait| answer::retry_after(wait.as_bytes(), SystemTime::now()));
            return Ok(received);
        }
        while let Some(chunk) = response.chunk().await.map_err(failure)? {
            if received.body.len() + chunk.len() > MAX_ANSWER {
                return Err(Failure::TooLarge);
            }
            received.body.extend_from_slice(&chunk);
        }
        Ok(received)
    }

    /// Makes a request, with the headers that differ between requests, such as those of the trace. The client
    /// itself replaces an idle connection that turns out to be closed before any of the request was written.
    fn request(&self, token: &str) -> reqwest::RequestBuilder {
        let mut url = self.url.clone();
        if let TokenPlace::Query(name) = self.mapping.token() {
            url.query_pairs_mut().append_pair(name, token);
        }
        let request = match self.mapping.method() {
            Method::Get => self.client.get(url),
            Method::Post => self.client.post(url),
        };
        let request = match self.mapping.token() {
            TokenPlace::Json(name) => request.json(&serde_json::json!({ name: token })),
            TokenPlace::Form(name) => request.form(&[(name, token)]),
            place @ TokenPlace::Header { name, .. } => match place.header_value(token) {
                Some(value) => request.header(name, value),
                None => request,
            },
            TokenPlace::Query(_) => request,
        };
        let Some(trace) = TraceContext::current() else { return request };
        let request = request.header(trace::TRACEPARENT, trace.traceparent());
        trace.tracestate().into_iter().fold(request, |r, state| r.header(trace::TRACESTATE, state))
    }
}

fn headers(config: &Config) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &config.headers {
        let name = HeaderName::try_from(name.as_str()).with_context(|| format!("header {name:?}"))?;
        let mut value = HeaderValue::from_str(value.expose()).with_context(|| format!("value of {name}"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// Tells a request that surely did not begin from one that may have been processed.
fn failure(error: reqwest::Error) -> Failure {
    if error.is_connect() {
        Failure::NotReached(Cause::new(error))
    } else {
        Failure::Broken(Cause::new(error))
    }
}
