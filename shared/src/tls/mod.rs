//! TLS on a port of this process: certificate and key from files, renewed without closing connections.
//!
//! New connections get the latest certificate. Files that can't be used are refused, with the reason in the
//! log, and the old certificate stays. TLS 1.2 and 1.3 through rustls, with HTTP/1.1 alone offered by ALPN
//! (RFC 7301).

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use anyhow::Context as _;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use sockets::Acknowledged;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::Problems;
use crate::drain::Drain;
use crate::reload::{Live, POLL};
use crate::tasks::on_a_thread;

/// Certificate and key of a port. Without them the port speaks plain text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct TlsConfig {
    /// PEM file of the certificate, followed by the certificates between it and the authority. Empty: no TLS.
    pub cert: PathBuf,
    /// PEM file of the certificate's key (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
}

impl TlsConfig {
    /// Returns whether the port speaks TLS.
    pub fn is_set(&self) -> bool {
        !self.cert.as_os_str().is_empty()
    }

    /// Adds the problems of the files; `section` is the section of these keys, e.g. `edge.tls`.
    pub fn validate(&self, section: &str, problems: &mut Problems) {
        if self.is_set() == self.key.as_os_str().is_empty() {
            problems
                .add(format!("{section}.key"), "cert and key belong together: set both or none".to_owned());
        } else if self.is_set()
            && let Err(error) = Pair::read(self)
        {
            problems.add(section.to_owned(), format!("{error:#}"));
        }
    }
}

/// Certificate and key, usable together.
struct Pair {
    server: Arc<ServerConfig>,
    /// The end of validity, in seconds since 1970.
    not_after: i64,
    /// The bytes of both files.
    bytes: [Vec<u8>; 2],
}

impl Pair {
    fn read(config: &TlsConfig) -> anyhow::Result<Self> {
        Self::of(config, [bytes(&config.cert)?, bytes(&config.key)?])
    }

    /// Of the bytes of both files.
    fn of(config: &TlsConfig, bytes: [Vec<u8>; 2]) -> anyhow::Result<Self> {
        let cert = config.cert.display();
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes[0])
            .collect::<Result<_, _>>()
            .with_context(|| format!("{cert} is not a PEM file of certificates"))?;
        let first = chain.first().with_context(|| format!("{cert} holds no certificate"))?;
        let not_after = not_after(first).with_context(|| format!("the first certificate in {cert}"))?;
        let key = PrivateKeyDer::from_pem_slice(&bytes[1])
            .with_context(|| format!("{} holds no private key", config.key.display()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("TLS 1.2 and 1.3")?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .with_context(|| format!("{} is not the key of {cert}", config.key.display()))?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A fleet that reconnects resumes its sessions instead of signing once for each.
        server.ticketer = rustls::crypto::ring::Ticketer::new().context("a key for session tickets")?;
        Ok(Self { server: Arc::new(server), not_after, bytes })
    }
}

fn bytes(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("{} can't be read", file.display()))
}

fn not_after(certificate: &[u8]) -> anyhow::Result<i64> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).context("is not X.509")?;
    Ok(parsed.validity().not_after.timestamp())
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reload {
    outcome: &'static str,
}

/// Metrics of a TLS port.
#[derive(Debug, Clone, Default)]
struct Metrics {
    expiry: Gauge,
    failures: Counter,
    reloads: Family<Reload, Counter>,
}

impl Metrics {
    fn register(prefix: &str, registry: &mut Registry) -> Self {
        let (metrics, registry) = (Self::default(), registry.sub_registry_with_prefix(prefix));
        let help = "When the certificate in use ends, in seconds since 1970";
        registry.register("tls_certificate_expiry_timestamp_seconds", help, metrics.expiry.clone());
        let help = "TLS handshakes that failed";
        registry.register("tls_handshake_failures", help, metrics.failures.clone());
        let help = "Times that changed certificate files were read, by what became of it";
        registry.register("tls_reloads", help, metrics.reloads.clone());
        metrics
    }
}

/// Accepts TLS on the connections of one port. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Acceptor {
    part: &'static str,
    current: Arc<RwLock<Arc<ServerConfig>>>,
    metrics: Metrics,
}

impl Acceptor {
    /// Reads the files, and reads them again whenever they or their names change, until the drain begins.
    /// `None`: the port speaks plain text, which only a restart changes. `prefix` is the prefix of the
    /// metrics, e.g. `mc_edge`.
    ///
    /// # Errors
    /// The files can't be used.
    pub fn new(
        part: &'static str,
        config: &Live<TlsConfig>,
        prefix: &str,
        registry: &mut Registry,
        drain: &Drain,
    ) -> anyhow::Result<Option<Self>> {
        let now = config.get();
        if !now.is_set() {
            return Ok(None);
        }
        let Pair { server, not_after, bytes } = Pair::read(&now)?;
        let current = Arc::new(RwLock::new(server));
        let acceptor = Self { part, current, metrics: Metrics::register(prefix, registry) };
        acceptor.metrics.expiry.set(not_after);
        let state = (acceptor.clone(), config.clone(), bytes, drain.token());
        drain.supervise("tls-certificate", state, |(follower, config, seen, leaving)| {
            Box::pin(async {
                tokio::select! { () = follower.follow(config, seen) => {}, () = leaving.cancelled() => {} }
            })
        });
        Ok(Some(acceptor))
    }

    /// Performs the handshake. The caller sets the deadline.
    ///
    /// # Errors
    /// The client speaks no TLS, or refuses this server, or the connection broke.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Stream> {
        let server = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        match TlsAcceptor::from(server).accept(stream).await {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
            Err(error) => {
                self.metrics.failures.inc();
                Err(error)
            }
        }
    }

    async fn follow(&self, config: &mut Live<TlsConfig>, seen: &mut [Vec<u8>; 2]) {
        let (mut more, mut candidate) = (true, seen.clone());
        loop {
            tokio::select! {
                reread = config.reread(), if more => more = reread.is_some(),
                () = tokio::time::sleep(POLL) => {}
            }
            let now = config.get();
            // The files may be on a disk that hangs.
            let files = [now.cert.clone(), now.key.clone()];
            let read = move || files.map(|file| std::fs::read(file).unwrap_or_default());
            let bytes = on_a_thread(read).await;
            // In the middle of a change a file may be away or half written, or one of the two still be the
            // old one.
            let settled = bytes == candidate;
            candidate.clone_from(&bytes);
            if bytes == *seen || !settled || bytes.iter().any(Vec::is_empty) {
                continue;
            }
            seen.clone_from(&bytes);
            let outcome = match Pair::of(&now, bytes) {
                Ok(pair) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = pair.server;
                    self.metrics.expiry.set(pair.not_after);
                    *seen = pair.bytes;
                    tracing::info!(part = self.part, "the certificate was renewed");
                    "applied"
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(
                        part = self.part,
                        error,
                        "the new certificate can't be used; the old one stays"
                    );
                    "refused"
                }
            };
            self.metrics.reloads.get_or_create(&Reload { outcome }).inc();
        }
    }
}

/// The connection of a client, with TLS or without. Plain text costs nothing extra.
#[derive(Debug)]
pub enum Stream {
    /// A connection without TLS.
    Plain(TcpStream),
    /// A connection after the handshake.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Returns the connection below.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(stream)
    }
}

impl Acknowledged for Stream {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(Self::tcp(self))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests;
