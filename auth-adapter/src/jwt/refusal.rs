//! The reasons for which a JWT is refused: a label for the counter, and words for the log. No value of the
//! token is in them.

use std::time::Duration;

use crate::pointer::Pointer;

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the token is no JWT: {0}")]
    Malformed(&'static str),
    #[error("the token has more than {0} bytes (auth_adapter.max_token)")]
    TooLong(usize),
    #[error("the token is not signed: its \"alg\" is \"none\"")]
    AlgNone,
    #[error("the token's \"alg\" is not allowed; allowed are {0} (auth_adapter.jwt.algorithms)")]
    AlgNotAllowed(String),
    #[error("the token's \"typ\" names another kind of token; looked for none, \"JWT\" or \"at+jwt\"")]
    Typ,
    #[error("the token demands an extension (\"crit\"), and none is understood")]
    Crit,
    #[error("no key fits the token's \"kid\"; the key set was fetched for it")]
    UnknownKid,
    #[error("several keys fit the token, which must name one by \"kid\"")]
    KeyAmbiguous,
    #[error("the signature is not of the configured key: the token is forged, or the key is another one")]
    BadSignature,
    #[error("\"iss\" is not {0:?} (auth_adapter.jwt.issuer)")]
    Issuer(String),
    #[error("\"aud\" does not hold {0:?} (auth_adapter.jwt.audience)")]
    Audience(String),
    #[error("\"exp\" has passed, by more than {0:?} (auth_adapter.jwt.leeway)")]
    Expired(Duration),
    #[error("\"nbf\" or \"iat\" is still to come, by more than {0:?} (auth_adapter.jwt.leeway)")]
    NotYetValid(Duration),
    #[error("there is no \"exp\" (auth_adapter.jwt.require_exp)")]
    NoExpiry,
    #[error(
        "\"iat\" is older than {0:?}, or is missing and \"exp\" further off than that (login.max_token_age)"
    )]
    TooOld(Duration),
    #[error("no user id stands at {0} (auth_adapter.jwt.uid)")]
    NoUid(Pointer),
}

impl Refusal {
    /// Returns the label for the counter.
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::TooLong(_) => "too_long",
            Self::AlgNone => "alg_none",
            Self::AlgNotAllowed(_) => "alg_not_allowed",
            Self::Typ => "typ",
            Self::Crit => "crit",
            Self::UnknownKid => "unknown_kid",
            Self::KeyAmbiguous => "key_ambiguous",
            Self::BadSignature => "bad_signature",
            Self::Issuer(_) => "iss",
            Self::Audience(_) => "aud",
            Self::Expired(_) => "expired",
            Self::NotYetValid(_) => "not_yet_valid",
            Self::NoExpiry => "no_exp",
            Self::TooOld(_) => "too_old",
            Self::NoUid(_) => "no_uid",
        }
    }
}
