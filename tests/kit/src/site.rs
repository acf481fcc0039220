//! The certificate of a port, and TLS clients that trust only this certificate.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The files of a port's self-signed certificate, for `localhost`.
#[derive(Debug)]
pub struct Site {
    folder: TempDir,
}

impl Site {
    /// Makes a certificate in a folder of its own.
    #[expect(clippy::new_without_default, reason = "a certificate is no default value")]
    pub fn new() -> Self {
        let site = Self { folder: TempDir::new().expect("there is space for a folder") };
        site.renew();
        site
    }

    /// The path of `cert` or `key`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces the certificate with a new one.
    ///
    /// # Panics
    /// The folder cannot be written to.
    pub fn renew(&self) {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("localhost is a name");
        std::fs::write(self.file("cert"), pair.cert.pem()).expect("the folder is there");
        std::fs::write(self.file("key"), pair.signing_key.serialize_pem()).expect("the folder is there");
    }
}

/// TLS over an open connection, for a client that trusts only the certificate in `trusted`.
///
/// # Errors
/// The handshake fails.
///
/// # Panics
/// The file holds no certificate.
pub async fn over_tls(stream: TcpStream, trusted: &Path) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(trusted).expect("the file holds a certificate"))
        .expect("a certificate of this kit is a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring knows these versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("localhost is a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}
