//! TLS towards the business system: rustls with ring, for this client alone; nothing is installed globally.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::BusinessTls;

/// Makes the configuration: the trusted authorities, and the own certificate. The system's authorities are
/// read only if they are `needed`.
pub(super) fn client(files: &BusinessTls, needed: bool) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .with_root_certificates(authorities("auth_adapter.tls.ca", &files.ca, needed)?);
    if files.cert.as_os_str().is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("tls.key: {} holds no private key in PEM", files.key.display()))?;
    builder
        .with_client_auth_cert(certificates(&files.cert, "tls.cert")?, key)
        .context("tls.cert and tls.key don't belong together")
}

/// Makes the configuration for a server that asks for no certificate; `key` names the setting of the file.
pub(crate) fn anonymous(key: &str, ca: &Path, needed: bool) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let roots = authorities(key, ca, needed)?;
    Ok(builder.context("TLS")?.with_root_certificates(roots).with_no_client_auth())
}

fn authorities(key: &str, file: &Path, needed: bool) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if !file.as_os_str().is_empty() {
        for certificate in certificates(file, key)? {
            roots.add(certificate).with_context(|| {
                format!("{key}: a certificate in {} is none of an authority", file.display())
            })?;
        }
    } else if needed {
        // An unreadable certificate is no reason to do without the others.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        anyhow::ensure!(
            !roots.is_empty(),
            "no certificate authorities were found to check an https url against; install the system's \
             certificates (package ca-certificates), or name a file with yours in {key}"
        );
    }
    Ok(roots)
}

fn certificates(file: &Path, key: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let fault = || format!("{key}: {} holds no certificates in PEM", file.display());
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(file).and_then(Iterator::collect).with_context(fault)?;
    anyhow::ensure!(!certificates.is_empty(), fault());
    Ok(certificates)
}
