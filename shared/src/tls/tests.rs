//! Certificates that are good, bad, and renewed.

use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

struct Files {
    folder: TempDir,
    config: TlsConfig,
}

impl Files {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
        let files = Self { folder, config: TlsConfig { cert, key } };
        files.renew();
        files
    }

    /// Writes a new pair, and gives the certificate.
    fn renew(&self) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(&self.config.key, key.serialize_pem()).unwrap();
        std::fs::write(&self.config.cert, cert.pem()).unwrap();
        cert.der().clone()
    }

    fn faults(&self) -> String {
        let mut problems = Problems::default();
        self.config.validate("edge.tls", &mut problems);
        problems.to_string()
    }
}

/// Connects with trust in this certificate alone.
async fn connect(acceptor: &Acceptor, trusted: CertificateDer<'static>) -> bool {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(trusted).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connecting = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(client)).connect(name, stream).await.is_ok()
    };
    let accepting = async {
        let (stream, _) = listener.accept().await.unwrap();
        acceptor.accept(stream).await.is_ok()
    };
    let (connected, _) = tokio::join!(connecting, accepting);
    connected
}

#[test]
fn each_fault_is_told_apart_and_names_its_file() {
    let files = Files::new();
    assert_eq!(files.faults(), "");
    let good = std::fs::read(&files.config.cert).unwrap();
    files.renew();
    let cert = files.config.cert.display().to_string();
    std::fs::write(&files.config.cert, good).unwrap();
    assert!(files.faults().contains(&format!("is not the key of {cert}")), "{}", files.faults());
    std::fs::write(&files.config.cert, "no certificate").unwrap();
    assert!(files.faults().contains("holds no certificate"), "{}", files.faults());
    std::fs::write(&files.config.cert, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    assert!(files.faults().contains("is not X.509"), "{}", files.faults());
    files.renew();
    std::fs::write(&files.config.key, "").unwrap();
    assert!(files.faults().contains("holds no private key"), "{}", files.faults());
    std::fs::remove_file(&files.config.key).unwrap();
    assert!(files.faults().contains("can't be read"), "{}", files.faults());
    let half = Files { config: TlsConfig { key: PathBuf::new(), ..files.config }, folder: files.folder };
    assert!(half.faults().contains("belong together"), "{}", half.faults());
    let mut none = Problems::default();
    TlsConfig::default().validate("edge.tls", &mut none);
    assert_eq!(none.to_string(), "");
}

#[tokio::test(start_paused = true)]
async fn a_renewed_certificate_is_used_and_one_that_is_no_good_is_not() {
    let (files, drain) = (Files::new(), Drain::new());
    let first = files.renew();
    let (live, mut registry) = (Live::from(files.config.clone()), Registry::default());
    let acceptor = Acceptor::new("edge", &live, "mc_edge", &mut registry, &drain).unwrap().unwrap();
    assert!(connect(&acceptor, first.clone()).await);
    let second = files.renew();
    assert!(!connect(&acceptor, second.clone()).await, "it was not looked at yet");
    let reloads = |outcome| acceptor.metrics.reloads.get_or_create(&Reload { outcome }).get();
    let until = async |outcome, count| {
        // The files are read on a thread, which the paused clock does not wait for.
        let began = std::time::Instant::now();
        while reloads(outcome) < count {
            assert!(began.elapsed() < PATIENCE, "{outcome} stays at {}", reloads(outcome));
            tokio::time::advance(POLL).await;
            tokio::task::yield_now().await;
            std::thread::yield_now();
        }
    };
    until("applied", 1).await;
    assert!(connect(&acceptor, second.clone()).await);
    assert!(!connect(&acceptor, first).await, "the first is not shown any more");
    std::fs::write(&files.config.cert, "rubbish").unwrap();
    until("refused", 1).await;
    assert!(connect(&acceptor, second).await, "the old one stays");
    assert!(acceptor.metrics.expiry.get() > 1_700_000_000);
    assert!(acceptor.metrics.failures.get() >= 1);
    assert_eq!(drain.finish(PATIENCE).await, 0);
}

#[tokio::test]
async fn a_port_without_files_has_no_tls() {
    let (drain, live, mut registry) = (Drain::new(), Live::from(TlsConfig::default()), Registry::default());
    assert!(Acceptor::new("edge", &live, "mc_edge", &mut registry, &drain).unwrap().is_none());
    assert_eq!(drain.tasks(), 0);
}
