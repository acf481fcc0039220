//! One fetch of the key set: the request, its bounds, and its failures.

use anyhow::Context as _;
use reqwest::header::ACCEPT;
use tokio::time::error::Elapsed;

use super::set::{self, MAX_BYTES, SetFault};
use crate::business::{Cause, USER_AGENT, tls};
use crate::jwt::config::JwtConfig;
use crate::jwt::keys::NamedKey;

/// Why a fetch brought no key set.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchFault {
    #[error("there was no answer in time (auth_adapter.jwt.jwks_deadline)")]
    Slow(#[from] Elapsed),
    #[error("the address can't be reached: {0}")]
    Unreachable(#[source] Cause),
    #[error("the answer has HTTP status {0}; redirects are not followed")]
    Status(u16),
    #[error("the answer has more than {MAX_BYTES} bytes")]
    TooLarge,
    #[error(transparent)]
    Set(#[from] SetFault),
}

impl FetchFault {
    /// Returns the label for the counter.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Slow(_) => "slow",
            Self::Unreachable(_) => "unreachable",
            Self::Status(_) => "status",
            Self::TooLarge => "too_large",
            Self::Set(SetFault::NotASet) => "not_a_set",
            Self::Set(SetFault::TooManyKeys) => "too_many_keys",
            Self::Set(SetFault::NoKey) => "no_key",
        }
    }
}

/// The client of one JWKS.
#[derive(Debug)]
pub(super) struct Fetcher {
    client: reqwest::Client,
    url: reqwest::Url,
    deadline: std::time::Duration,
}

impl Fetcher {
    pub(super) fn new(config: &JwtConfig) -> anyhow::Result<Self> {
        let url: reqwest::Url = config.jwks_url.parse().context("auth_adapter.jwt.jwks_url")?;
        let https = url.scheme() == "https";
        let tls = tls::anonymous("auth_adapter.jwt.jwks_ca", &config.jwks_ca, https)?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(USER_AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(config.jwks_deadline)
            // One request in minutes: an idle connection would be closed by then.
            .pool_max_idle_per_host(0)
            .build()
            .context("the HTTP client")?;
        Ok(Self { client, url, deadline: config.jwks_deadline })
    }

    /// Fetches the key set once.
    pub(super) async fn fetch(&self) -> Result<Vec<NamedKey>, FetchFault> {
        let body = tokio::time::timeout(self.deadline, self.body()).await??;
        Ok(set::parse(&body)?)
    }

    async fn body(&self) -> Result<Vec<u8>, FetchFault> {
        let unreachable = |error| FetchFault::Unreachable(Cause::new(error));
        let request = self.client.get(self.url.clone()).header(ACCEPT, "application/json");
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(FetchFault::Status(status));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(FetchFault::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}
