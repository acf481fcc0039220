//! Connections to the business system that fail, break, or need a certificate.

use std::sync::Arc;
use std::time::Duration;

use auth_adapter::BusinessTls;
use test_kit::certificate::{Authority, Certificate};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto};

use crate::support::{Rig, known, soon, unavailable};

const TRIED: &str = "mc_auth_retries_total{outcome=\"tried\"}";
const NO_BUDGET: &str = "mc_auth_retries_total{outcome=\"no_budget\"}";
const UNREACHABLE: &str = "mc_auth_business_calls_total{outcome=\"unreachable\"}";

#[tokio::test]
async fn what_could_not_connect_is_tried_again_a_bounded_number_of_times() {
    let rig = Rig::with(|config| config.retries = 2).await;
    rig.business.stop().await;
    let verdict = rig.edge.ask("user-1").await;
    assert!(unavailable(&verdict).contains("can't be reached"), "{verdict:?}");
    assert_eq!((rig.adapter.metric(UNREACHABLE), rig.adapter.metric(TRIED)), (3, 2));
    rig.end().await;
}

#[tokio::test]
async fn a_login_survives_a_business_system_that_restarts() {
    let rig = Rig::with(|config| config.retries = 10).await;
    let address = rig.business.address();
    rig.business.stop().await;
    let restart = async {
        crate::support::eventually("it was tried", async || rig.adapter.metric(UNREACHABLE) >= 1).await;
        let listener = TcpListener::bind(address).await.unwrap();
        let (mut stream, _) = soon("it is tried again", listener.accept()).await.unwrap();
        answer(&mut stream).await;
    };
    let (verdict, ()) = tokio::join!(rig.edge.ask("user-1"), restart);
    assert_eq!(verdict, known("1"));
    rig.end().await;
}

#[tokio::test]
async fn retries_never_are_more_than_their_budget() {
    let rig = Rig::with(|config| {
        config.retries = 10;
        config.breaker.min_calls = 100_000;
    })
    .await;
    rig.business.stop().await;
    let tokens: Vec<String> = (1..=100).map(|uid| format!("user-{uid}")).collect();
    rig.ask_all(&tokens).await;
    let tried = rig.adapter.metric(TRIED);
    assert!((10..=20).contains(&tried), "{tried} retries of 100 calls: ten saved, and a tenth");
    assert!(rig.adapter.metric(NO_BUDGET) >= 90);
    assert_eq!(rig.adapter.metric(UNREACHABLE), 100 + tried);
    rig.end().await;
}

/// Reads a request and answers yes.
async fn answer(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) {
    let mut buffer = vec![0; 4096];
    assert!(stream.read(&mut buffer).await.unwrap() > 0);
    let body = r#"{"uid":1}"#;
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn a_request_that_broke_after_it_was_sent_is_not_repeated() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/check", listener.local_addr().unwrap());
    let rig = Rig::with(|config| config.url = url).await;
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        answer(&mut stream).await;
        // The second request on the open connection was read, so it may have been processed.
        assert!(stream.read(&mut vec![0; 4096]).await.unwrap() > 0);
        drop(stream);
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = vec![0; 4096];
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(String::from_utf8_lossy(&buffer[..count]).contains("third"), "the second was repeated");
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    };
    let asked = async {
        assert_eq!(rig.edge.ask("first").await, known("1"));
        let verdict = rig.edge.ask("second").await;
        assert!(unavailable(&verdict).contains("the connection broke"), "{verdict:?}");
        assert_eq!(rig.edge.ask("third").await, shared::wire::Verdict::Unknown);
    };
    soon("all are answered", async { tokio::join!(server, asked) }).await;
    assert_eq!(rig.adapter.metric(TRIED), 0);
    rig.end().await;
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_while_idle_costs_nobody_a_login() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/check", listener.local_addr().unwrap());
    let rig = Rig::with(|config| config.url = url).await;
    for token in 0..20 {
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            answer(&mut stream).await;
            // The server closes the connection, and the adapter has seen the end.
            stream.shutdown().await.unwrap();
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        };
        let asked = async { assert_eq!(rig.edge.ask(&format!("token-{token}")).await, known("1")) };
        soon("it is answered", async { tokio::join!(server, asked) }).await;
    }
    rig.end().await;
}

/// An authority, and the certificates of both sides of a connection.
struct Paper {
    authority: Authority,
    adapter: Certificate,
    server: Certificate,
    _folder: tempfile::TempDir,
}

impl Paper {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "ca");
        let (adapter, server) = (authority.issue("adapter"), authority.issue("server"));
        Self { authority, adapter, server, _folder: folder }
    }

    /// Returns the configuration of a server that accepts only clients with a certificate of this authority.
    fn acceptor(&self) -> TlsAcceptor {
        let certificate = CertificateDer::from_pem_file(&self.server.cert).unwrap();
        let key = PrivateKeyDer::from_pem_file(&self.server.key).unwrap();
        let provider = Arc::new(crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.authority.file).unwrap()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider)).build().unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

async fn serve(listener: &TcpListener, acceptor: &TlsAcceptor) -> std::io::Result<()> {
    let (stream, _): (TcpStream, _) = listener.accept().await?;
    let mut stream = acceptor.accept(stream).await?;
    answer(&mut stream).await;
    Ok(())
}

#[tokio::test]
async fn https_with_an_authority_and_a_certificate_of_ones_own() {
    let paper = Paper::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/check", listener.local_addr().unwrap());
    let (ca, own) = (paper.authority.file.clone(), paper.adapter.clone());
    let tls = BusinessTls { ca, cert: own.cert, key: own.key };
    let rig = Rig::with(|config| (config.url, config.tls) = (url.clone(), tls)).await;
    let acceptor = paper.acceptor();
    let (verdict, served) =
        soon("it is answered", async { tokio::join!(rig.edge.ask("user-1"), serve(&listener, &acceptor)) })
            .await;
    assert_eq!(verdict, known("1"));
    served.unwrap();
    rig.end().await;

    // With another authority, the server can't prove its identity, so it gets no token.
    let other = Paper::new();
    let tls = BusinessTls { ca: other.authority.file.clone(), ..BusinessTls::default() };
    let rig = Rig::with(|config| {
        (config.url, config.tls, config.retries) = (url, tls, 0);
        config.deadline = Duration::from_secs(10);
    })
    .await;
    let (verdict, served) =
        soon("it is answered", async { tokio::join!(rig.edge.ask("user-1"), serve(&listener, &acceptor)) })
            .await;
    assert!(unavailable(&verdict).contains("certificate"), "{verdict:?}");
    assert!(served.is_err());
    rig.end().await;
}
