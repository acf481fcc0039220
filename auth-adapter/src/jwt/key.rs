//! Keys that check signatures, and where they come from: a secret, PEM files, the keys of a JWKS.
//!
//! ring does the cryptography. Private keys and secrets of a JWKS are never taken.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Map, Value};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::algorithm::{Algorithm, Scheme};

/// The bits of the smallest and the largest RSA key.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// A key that checks signatures.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// A secret, for HMAC.
    Secret(Vec<u8>),
    /// The modulus and the exponent of an RSA key, without leading zeros.
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    /// An uncompressed point on P-256.
    P256(Vec<u8>),
    /// An uncompressed point on P-384.
    P384(Vec<u8>),
    /// A key of Ed25519.
    Ed25519(Vec<u8>),
}

/// Shows the kind alone: a secret is in no output.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret(***)",
            Self::Rsa { .. } => "Rsa",
            Self::P256(_) => "P256",
            Self::P384(_) => "P384",
            Self::Ed25519(_) => "Ed25519",
        })
    }
}

impl Key {
    /// Returns whether signatures of this algorithm can be checked with this kind of key.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        matches!(
            (self, algorithm.scheme()),
            (Self::Secret(_), Scheme::Hmac(_))
                | (Self::Rsa { .. }, Scheme::Rsa(_))
                | (Self::P256(_), Scheme::P256)
                | (Self::P384(_), Scheme::P384)
                | (Self::Ed25519(_), Scheme::Ed25519)
        )
    }

    /// Returns whether a signature of these bytes was made with this key.
    pub(super) fn verifies(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        let point = |of: &'static dyn signature::VerificationAlgorithm, point: &[u8]| {
            UnparsedPublicKey::new(of, point).verify(signed, signature).is_ok()
        };
        match (self, algorithm.scheme()) {
            (Self::Secret(secret), Scheme::Hmac(of)) => {
                hmac::verify(&hmac::Key::new(of, secret), signed, signature).is_ok()
            }
            (Self::Rsa { modulus, exponent }, Scheme::Rsa(of)) => {
                RsaPublicKeyComponents { n: modulus, e: exponent }.verify(of, signed, signature).is_ok()
            }
            (Self::P256(key), Scheme::P256) => point(&signature::ECDSA_P256_SHA256_FIXED, key),
            (Self::P384(key), Scheme::P384) => point(&signature::ECDSA_P384_SHA384_FIXED, key),
            (Self::Ed25519(key), Scheme::Ed25519) => point(&signature::ED25519, key),
            _ => false,
        }
    }

    fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, &'static str> {
        let bare = |number: &[u8]| number.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<_>>();
        let (modulus, exponent) = (bare(modulus), bare(exponent));
        let unused = modulus.first().map_or(0, |first| first.leading_zeros() as usize);
        if !RSA_BITS.contains(&(modulus.len() * 8 - unused)) {
            return Err("an RSA key must have 2048 to 8192 bits");
        }
        Ok(Self::Rsa { modulus, exponent })
    }

    /// Reads a JWK (RFC 7517) that checks signatures. The error says why it does not.
    pub(super) fn of_jwk(jwk: &Map<String, Value>) -> Result<Self, &'static str> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let number = |name: &str| {
            let number = text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
            number.ok_or("a number of the key is missing or not base64url")
        };
        let coordinates = |bytes: usize| {
            let (x, y) = (number("x")?, number("y")?);
            let fit = x.len() == bytes && y.len() == bytes;
            if fit { Ok([&[4], &x[..], &y[..]].concat()) } else { Err("a coordinate has another length") }
        };
        if jwk.contains_key("d") {
            return Err("it is a private key, which everybody who reads the set could sign with");
        }
        match (text("kty"), text("crv")) {
            (Some("RSA"), _) => Self::rsa(&number("n")?, &number("e")?),
            (Some("EC"), Some("P-256")) => coordinates(32).map(Self::P256),
            (Some("EC"), Some("P-384")) => coordinates(48).map(Self::P384),
            (Some("OKP"), Some("Ed25519")) => {
                let key = number("x")?;
                if key.len() == 32 { Ok(Self::Ed25519(key)) } else { Err("the key has another length") }
            }
            _ => Err("no RSA key, and no key of P-256, P-384 or Ed25519"),
        }
    }

    fn of_spki(der: &[u8]) -> anyhow::Result<Self> {
        let (_, info) = SubjectPublicKeyInfo::from_der(der).context("is no public key")?;
        let curve = info.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
        let curve = curve.map(|curve| curve.to_id_string());
        let bits = info.subject_public_key.data.to_vec();
        match (info.algorithm.algorithm.to_id_string().as_str(), curve.as_deref()) {
            ("1.2.840.113549.1.1.1", _) => {
                let Ok(PublicKey::RSA(key)) = info.parsed() else { anyhow::bail!("is no RSA key") };
                Self::rsa(key.modulus, key.exponent).map_err(anyhow::Error::msg)
            }
            ("1.2.840.10045.2.1", Some("1.2.840.10045.3.1.7")) if bits.len() == 65 => Ok(Self::P256(bits)),
            ("1.2.840.10045.2.1", Some("1.3.132.0.34")) if bits.len() == 97 => Ok(Self::P384(bits)),
            ("1.3.101.112", _) if bits.len() == 32 => Ok(Self::Ed25519(bits)),
            _ => anyhow::bail!("is neither RSA nor P-256 (uncompressed), P-384 (uncompressed) or Ed25519"),
        }
    }
}

/// Reads the public keys of these PEM files.
///
/// # Errors
/// A file can't be read, holds a private key, or holds no key of a known kind.
pub(super) fn of_pem_files(files: &[PathBuf]) -> anyhow::Result<Vec<Key>> {
    let mut keys = Vec::new();
    for file in files {
        let text = std::fs::read(file).with_context(|| format!("{} can't be read", file.display()))?;
        keys.extend(of_pem(file, &text)?);
    }
    Ok(keys)
}

fn of_pem(file: &Path, text: &[u8]) -> anyhow::Result<Vec<Key>> {
    let file = file.display();
    anyhow::ensure!(
        !text.windows(12).any(|word| word == b"PRIVATE KEY-"),
        "{file} holds a private key, which belongs to the issuer alone; give its public key: openssl pkey -pubout"
    );
    let sections: Result<Vec<_>, _> = SubjectPublicKeyInfoDer::pem_slice_iter(text).collect();
    let sections = sections.with_context(|| format!("{file} is not PEM"))?;
    anyhow::ensure!(
        !sections.is_empty(),
        "{file} holds no \"BEGIN PUBLIC KEY\"; make one of a certificate with: openssl x509 -pubkey -noout"
    );
    sections.iter().map(|der| Key::of_spki(der).with_context(|| format!("a key in {file}"))).collect()
}
