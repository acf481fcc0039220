//! A certificate for the port, and callers that trust no other.

#[path = "../../../../tests/support/site.rs"]
mod site;

use std::path::Path;

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::soon;
pub(crate) use site::Site;

/// TLS over a connection that is there, by someone who trusts this certificate alone.
pub(crate) async fn over_tls(stream: TcpStream, trusted: &Path) -> TlsStream<TcpStream> {
    soon("a TLS handshake", site::over_tls(stream, trusted)).await.unwrap()
}
