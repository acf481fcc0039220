//! Certificates for tests: an authority, and the certificates it signs for names on loopback.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// A certificate authority. Its files lie in the folder given to [`Authority::new`].
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    /// PEM file of the authority's own certificate.
    pub file: PathBuf,
}

/// A certificate and its key, as PEM files.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Authority {
    /// Creates an authority.
    ///
    /// # Panics
    /// The folder can't be written to.
    pub fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are good names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Strict verifiers (Python 3.13 and later) require the key usage of an authority (RFC 5280, 4.2.1.3).
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, key()).expect("it signs itself");
        let file = folder.join(format!("{name}.pem"));
        write(&file, &issuer.pem());
        Self { issuer, folder: folder.to_owned(), file }
    }

    /// Issues a certificate for `localhost` and `127.0.0.1` into files of this name; replaces existing files.
    ///
    /// # Panics
    /// The folder can't be written to.
    pub fn issue(&self, name: &str) -> Certificate {
        let names = ["localhost", "127.0.0.1"].map(str::to_owned).to_vec();
        let mut params = CertificateParams::new(names).expect("these are names");
        params.distinguished_name.push(DnType::CommonName, name);
        // Strict verifiers require the identifier of the signing key (RFC 5280, 4.2.1.1).
        params.use_authority_key_identifier_extension = true;
        let own = key();
        let signed = params.signed_by(&own, &self.issuer).expect("the authority signs");
        let path = |kind: &str| self.folder.join(format!("{name}.{kind}.pem"));
        let files = Certificate { cert: path("cert"), key: path("key") };
        write(&files.cert, &signed.pem());
        write(&files.key, &own.serialize_pem());
        files
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("the system has random numbers")
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
