//! The signature algorithms (RFC 7518, RFC 8037) that ring has.

use std::fmt;

use ring::{hmac, signature};
use serde::{Deserialize, Serialize};

/// A signature algorithm of a JWT. `none` is not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Algorithm {
    /// HMAC with SHA-256 and a secret.
    #[serde(rename = "HS256")]
    Hs256,
    /// HMAC with SHA-384 and a secret.
    #[serde(rename = "HS384")]
    Hs384,
    /// HMAC with SHA-512 and a secret.
    #[serde(rename = "HS512")]
    Hs512,
    /// RSA (PKCS#1) with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// RSA (PKCS#1) with SHA-384.
    #[serde(rename = "RS384")]
    Rs384,
    /// RSA (PKCS#1) with SHA-512.
    #[serde(rename = "RS512")]
    Rs512,
    /// RSA (PSS) with SHA-256.
    #[serde(rename = "PS256")]
    Ps256,
    /// RSA (PSS) with SHA-384.
    #[serde(rename = "PS384")]
    Ps384,
    /// RSA (PSS) with SHA-512.
    #[serde(rename = "PS512")]
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// ECDSA on P-384 with SHA-384.
    #[serde(rename = "ES384")]
    Es384,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// How a signature is checked. RSA keys have 2048 to 8192 bits.
pub(super) enum Scheme {
    Hmac(hmac::Algorithm),
    Rsa(&'static signature::RsaParameters),
    P256,
    P384,
    Ed25519,
}

/// The algorithms of a secret.
pub(super) const SECRET: [Algorithm; 3] = [Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512];
/// The algorithms of public keys.
pub(super) const PUBLIC: [Algorithm; 9] = [
    Algorithm::Rs256,
    Algorithm::Rs384,
    Algorithm::Rs512,
    Algorithm::Ps256,
    Algorithm::Ps384,
    Algorithm::Ps512,
    Algorithm::Es256,
    Algorithm::Es384,
    Algorithm::EdDsa,
];

impl Algorithm {
    /// Finds an algorithm by the name that a header gives.
    pub(super) fn parse(name: &str) -> Option<Self> {
        SECRET.into_iter().chain(PUBLIC).find(|algorithm| algorithm.name() == name)
    }

    /// Returns the name in a header.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// Returns how a signature is checked.
    pub(super) fn scheme(self) -> Scheme {
        match self {
            Self::Hs256 => Scheme::Hmac(hmac::HMAC_SHA256),
            Self::Hs384 => Scheme::Hmac(hmac::HMAC_SHA384),
            Self::Hs512 => Scheme::Hmac(hmac::HMAC_SHA512),
            Self::Rs256 => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            Self::Es256 => Scheme::P256,
            Self::Es384 => Scheme::P384,
            Self::EdDsa => Scheme::Ed25519,
        }
    }

    /// Returns the shortest secret, in bytes: as long as the hash (RFC 7518, 3.2). `None`: no secret signs.
    pub(super) fn shortest_secret(self) -> Option<usize> {
        match self.scheme() {
            Scheme::Hmac(hmac) => Some(hmac.digest_algorithm().output_len()),
            Scheme::Rsa(_) | Scheme::P256 | Scheme::P384 | Scheme::Ed25519 => None,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Writes algorithms as a list.
pub(super) fn list(algorithms: &[Algorithm]) -> String {
    algorithms.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>().join(", ")
}
