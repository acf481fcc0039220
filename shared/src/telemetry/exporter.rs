//! The OTLP exporter: over HTTP or gRPC, in the clear or with TLS through rustls and ring.

use std::sync::Arc;

use anyhow::Context as _;
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};

use super::environment::{Protocol, TraceSettings};

/// Makes the exporter, which connects when the first spans are sent. Must be called within the runtime.
///
/// # Errors
/// The endpoint, the headers or the certificate can't be used.
pub(super) fn exporter(settings: &TraceSettings) -> anyhow::Result<SpanExporter> {
    let secure = settings.endpoint.starts_with("https://");
    let pem = match &settings.certificate {
        Some(path) if secure => {
            Some(std::fs::read(path).with_context(|| format!("OTEL_EXPORTER_OTLP_CERTIFICATE: {path}"))?)
        }
        Some(_) | None => None,
    };
    let built = match settings.protocol {
        Protocol::Http => {
            let client = reqwest::Client::builder()
                .tls_backend_preconfigured(tls(secure, pem.as_deref())?)
                .redirect(reqwest::redirect::Policy::none())
                .timeout(settings.timeout)
                .build()
                .context("the HTTP client")?;
            SpanExporter::builder().with_http().with_http_client(client).build()
        }
        #[cfg(feature = "otlp-grpc")]
        Protocol::Grpc => grpc(secure, pem),
    };
    built.context("OTEL_EXPORTER_OTLP_*")
}

#[cfg(feature = "otlp-grpc")]
fn grpc(secure: bool, pem: Option<Vec<u8>>) -> Result<SpanExporter, opentelemetry_otlp::ExporterBuildError> {
    use opentelemetry_otlp::WithTonicConfig as _;
    use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
    let builder = SpanExporter::builder().with_tonic();
    if !secure {
        return builder.build();
    }
    let tls = ClientTlsConfig::new();
    let tls = match pem {
        Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
        None => tls.with_enabled_roots(),
    };
    builder.with_tls_config(tls).build()
}

/// Makes the TLS configuration of this client: nothing is installed globally. The system's certificates are
/// read only where they are needed.
fn tls(secure: bool, pem: Option<&[u8]>) -> anyhow::Result<rustls::ClientConfig> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    if let Some(pem) = pem {
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.context("OTEL_EXPORTER_OTLP_CERTIFICATE is not PEM")?;
            roots.add(certificate).context("OTEL_EXPORTER_OTLP_CERTIFICATE")?;
        }
    } else if secure {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    anyhow::ensure!(
        !secure || !roots.is_empty(),
        "no certificate authorities were found to check the collector against; name a PEM file in \
         OTEL_EXPORTER_OTLP_CERTIFICATE"
    );
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
