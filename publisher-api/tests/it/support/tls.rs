//! Callers over TLS that trust only one certificate.

use std::path::Path;

use test_kit::site;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::soon;
pub(crate) use site::Site;

/// Starts TLS over an open connection; the caller trusts only the certificate in `trusted`.
pub(crate) async fn over_tls(stream: TcpStream, trusted: &Path) -> TlsStream<TcpStream> {
    soon("a TLS handshake", site::over_tls(stream, trusted)).await.unwrap()
}
