//! The demo business system: the token `user-<uid>` logs in as the user `<uid>`.
//!
//! The demo answers over HTTP like a real business system, so that a login takes the real path.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use axum::Json;
use axum::http::StatusCode;
use axum::routing::post;
use publisher_api::keys::{KeyConfig, NewKey, Scope};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::drain::Drain;
use shared::ids::Uid;
use tokio::net::TcpListener;

use crate::Settings;

/// Where the demo answers token checks.
pub(crate) const PATH: &str = "/websocket_auth";

/// The demo business system, running.
#[derive(Debug, Clone, Copy)]
pub struct Demo {
    /// The address at which the demo answers.
    pub address: SocketAddr,
    /// The configured address; `address` is another one if this was taken.
    pub wanted: SocketAddr,
}

#[derive(Debug, Deserialize)]
struct Question {
    token: String,
}

/// Returns the login to use: the configured one, or the login of a demo business system, which this starts.
pub(crate) async fn provide(
    settings: &Settings,
    drain: &Drain,
) -> anyhow::Result<(Option<Demo>, auth_adapter::Config)> {
    let login = settings.auth_adapter.clone();
    if !settings.is_demo() {
        return Ok((None, login));
    }
    let demo = start(settings.demo.listen, drain).await?;
    let url = settings.demo.url(demo.address);
    // The demo reads and answers as connmix's business systems do, whatever is configured for another.
    let auth_adapter::Config { preset, request, answer, .. } = auth_adapter::Config::default();
    Ok((Some(demo), auth_adapter::Config { url, preset, request, answer, ..login }))
}

/// Makes the publishing key of an exposed demo without configured keys. The key is good until this process
/// ends.
pub(crate) fn key(settings: &Settings) -> anyhow::Result<Option<Arc<NewKey>>> {
    if !settings.needs_demo_key() {
        return Ok(None);
    }
    let (name, hash) = ("demo".to_owned(), String::new());
    let (scopes, channels) = (vec![Scope::Admin], vec!["*".to_owned()]);
    let key = NewKey::make(KeyConfig { name, hash, scopes, channels, rate: None, burst: None });
    Ok(Some(Arc::new(key.map_err(|problems| anyhow::anyhow!("the key of the demo: {problems}"))?)))
}

/// Returns the configuration of publisher-api with this key added.
pub(crate) fn admit(key: Option<&NewKey>, mut config: publisher_api::Config) -> publisher_api::Config {
    config.keys.extend(key.map(|key| key.config().clone()));
    config
}

async fn start(wanted: SocketAddr, drain: &Drain) -> anyhow::Result<Demo> {
    let listener = match TcpListener::bind(wanted).await {
        Ok(listener) => listener,
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            TcpListener::bind(free).await.context("demo.listen: no free port")?
        }
        Err(error) => return Err(error).with_context(|| format!("demo.listen: can't listen on {wanted}")),
    };
    let address = listener.local_addr().context("the address of the demo business system")?;
    let router = axum::Router::new().route(PATH, post(whose));
    let leaving = drain.token();
    drain.spawn_vital("demo", async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(leaving.cancelled_owned());
        if let Err(error) = served.await {
            tracing::error!(%error, "the demo business system stopped");
        }
    });
    Ok(Demo { address, wanted })
}

async fn whose(Json(Question { token }): Json<Question>) -> (StatusCode, Json<Value>) {
    match token.strip_prefix("user-").map(Uid::parse) {
        Some(Ok(uid)) => (StatusCode::OK, Json(json!({ "uid": uid.as_str() }))),
        Some(Err(_)) | None => {
            (StatusCode::UNAUTHORIZED, Json(json!({ "error": "the demo knows tokens like user-1001" })))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_knows_users_by_their_token() {
        let ask = async |token: &str| {
            let (status, Json(body)) = whose(Json(Question { token: token.into() })).await;
            (status.as_u16(), body["uid"].as_str().map(str::to_owned))
        };
        assert_eq!(ask("user-1001").await, (200, Some("1001".into())));
        assert_eq!(ask("user-bob").await, (200, Some("bob".into())));
        for stranger in ["", "1001", "user-", "user-0"] {
            assert_eq!(ask(stranger).await, (401, None), "{stranger}");
        }
    }

    #[tokio::test]
    async fn where_its_port_is_taken_it_takes_another() {
        let drain = Drain::new();
        let first = start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &drain).await.unwrap();
        let second = start(first.address, &drain).await.unwrap();
        assert_ne!(first.address, second.address);
        assert_eq!(second.wanted, first.address);
        assert_eq!(drain.finish(std::time::Duration::from_secs(5)).await, 0);
    }
}
