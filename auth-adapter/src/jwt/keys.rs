//! The keys that are in use, and which of them a token's header means. Pure.

use super::algorithm::{self, Algorithm};
use super::key::Key;
use super::refusal::Refusal;

/// The keys that are in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Keys {
    /// Keys from the configuration. `kid` is of no account: whichever verifies is the key.
    Configured(Vec<Key>),
    /// Keys from a JWKS, found by `kid`.
    Named(Vec<NamedKey>),
}

/// A key of a JWKS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedKey {
    /// The name.
    pub(super) kid: Option<String>,
    /// The one algorithm that the key is for. `None`: every algorithm of its kind.
    pub(super) algorithm: Option<Algorithm>,
    /// The key.
    pub(super) key: Key,
}

impl NamedKey {
    fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithm.is_none_or(|only| only == algorithm) && self.key.fits(algorithm)
    }
}

impl Keys {
    /// Returns the keys that a header may mean.
    ///
    /// # Errors
    /// No key fits, or a header without `kid` fits several keys of a JWKS.
    pub(super) fn candidates(&self, kid: Option<&str>, of: Algorithm) -> Result<Vec<&Key>, Refusal> {
        match self {
            Self::Configured(keys) => {
                let fit: Vec<_> = keys.iter().filter(|key| key.fits(of)).collect();
                if fit.is_empty() { Err(self.not_allowed()) } else { Ok(fit) }
            }
            Self::Named(keys) => {
                let named: Vec<_> =
                    keys.iter().filter(|key| kid.is_none() || key.kid.as_deref() == kid).collect();
                let fit: Vec<_> = named.iter().filter(|key| key.fits(of)).map(|key| &key.key).collect();
                match (fit.len(), kid) {
                    (1, _) => Ok(fit),
                    (0, Some(_)) if !named.is_empty() => Err(self.not_allowed()),
                    (0, _) => Err(Refusal::UnknownKid),
                    _ => Err(Refusal::KeyAmbiguous),
                }
            }
        }
    }

    fn not_allowed(&self) -> Refusal {
        let fits = |of: &Algorithm| match self {
            Self::Configured(keys) => keys.iter().any(|key| key.fits(*of)),
            Self::Named(keys) => keys.iter().any(|key| key.fits(*of)),
        };
        let all = algorithm::SECRET.into_iter().chain(algorithm::PUBLIC);
        Refusal::AlgNotAllowed(algorithm::list(&all.filter(fits).collect::<Vec<_>>()))
    }

    /// Returns whether checking a signature takes so little time that a worker of the runtime may do it.
    pub(super) fn are_fast(&self) -> bool {
        matches!(self, Self::Configured(keys) if keys.iter().all(|key| matches!(key, Key::Secret(_))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rsa(kid: Option<&str>, algorithm: Option<Algorithm>) -> NamedKey {
        let key = Key::Rsa { modulus: vec![1; 256], exponent: vec![1, 0, 1] };
        NamedKey { kid: kid.map(str::to_owned), algorithm, key }
    }

    fn p256(kid: Option<&str>) -> NamedKey {
        NamedKey { kid: kid.map(str::to_owned), algorithm: None, key: Key::P256(vec![4; 65]) }
    }

    #[test]
    fn a_key_is_found_by_kid_or_is_the_only_one_that_fits() {
        use Algorithm::{Es256, Es384, Ps256, Rs256};
        let keys = Keys::Named(vec![rsa(Some("a"), None), rsa(Some("b"), Some(Ps256)), p256(None)]);
        let outcome = |kid, of| {
            keys.candidates(kid, of).map_or_else(
                |r| r.label(),
                |keys| match keys[..] {
                    [Key::Rsa { .. }] => "rsa",
                    [Key::P256(_)] => "p256",
                    _ => "other",
                },
            )
        };
        for (kid, of, expected) in [
            (Some("a"), Rs256, "rsa"),
            (Some("b"), Ps256, "rsa"),
            (Some("b"), Rs256, "alg_not_allowed"),
            (Some("a"), Es256, "alg_not_allowed"),
            (Some("c"), Rs256, "unknown_kid"),
            (None, Es256, "p256"),
            (None, Rs256, "rsa"),
            (None, Ps256, "key_ambiguous"),
            (None, Es384, "unknown_kid"),
        ] {
            assert_eq!(outcome(kid, of), expected, "{kid:?} {of}");
        }
        let twice = Keys::Named(vec![rsa(Some("a"), None), rsa(Some("a"), None)]);
        assert_eq!(twice.candidates(Some("a"), Rs256), Err(Refusal::KeyAmbiguous));
        let configured = Keys::Configured(vec![Key::P256(vec![4; 65])]);
        assert!(configured.candidates(Some("any"), Es256).is_ok());
        assert_eq!(
            configured.candidates(None, Algorithm::Hs256),
            Err(Refusal::AlgNotAllowed("ES256".into()))
        );
    }
}
