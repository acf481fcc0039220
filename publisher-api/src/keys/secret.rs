//! Secrets and their hashes: how one is made, kept and recognized.
//!
//! A plain SHA-256 keeps a secret as well as a slow hash would, because secrets are random and have 256 bits:
//! there is nothing to guess. It costs a microsecond a request, where a slow one would let strangers keep the
//! machine busy.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The prefix of generated secrets, so that people and scanners for leaked secrets recognize them.
const PREFIX: &str = "mck_";
/// The prefix of a hash in the configuration.
const SCHEME: &str = "sha256:";
/// Random bytes of a generated secret.
const RANDOM_BYTES: usize = 32;
/// The fewest characters of a secret that was not generated here: 22 of base64 hold 128 bits.
pub(super) const MIN_CHARACTERS: usize = 22;
/// The longest secret, in bytes.
pub(super) const MAX_BYTES: usize = 512;

/// The SHA-256 of a secret. Equality takes the same time whatever differs.
#[derive(Clone, Copy)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The hash of a secret.
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// Reads `sha256:<64 hexadecimal digits>`.
    ///
    /// # Errors
    /// The text is no such hash. It is not repeated, for the text may be a secret that got
    /// here by mistake.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FAULT: &str = "must be \"sha256:\" and 64 hexadecimal digits, as `message-center key new` prints it; \
                             the secret itself does not belong here";
        let digits = text.strip_prefix(SCHEME).ok_or(FAULT)?.as_bytes();
        let mut hash = [0; 32];
        if digits.len() != hash.len() * 2 {
            return Err(FAULT);
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let digit =
                |at: usize| char::from(pair[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            let (Some(high), Some(low)) = (digit(0), digit(1)) else { return Err(FAULT) };
            *byte = high << 4 | low;
        }
        Ok(Self(hash))
    }

    /// The first bytes, to find candidates by. How long finding takes may betray them to who guesses; from
    /// there is no way to a secret, nor to the rest.
    pub(crate) fn bucket(&self) -> [u8; 8] {
        let mut bucket = [0; 8];
        bucket.copy_from_slice(&self.0[..8]);
        bucket
    }
}

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretHash {}

impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}…")
    }
}

/// A new secret of 256 random bits. It needs no escaping in URLs, headers and shells.
///
/// # Errors
/// The system has no randomness to give.
pub fn generate() -> Result<String, getrandom::Error> {
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random)?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)))
}

/// Whether a secret of somebody's own making can be taken.
///
/// # Errors
/// Says what is wrong with it, without repeating it.
pub fn check(secret: &str) -> Result<(), String> {
    if secret.len() > MAX_BYTES {
        return Err(format!("the secret is longer than {MAX_BYTES} bytes"));
    }
    if secret.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("the secret has blanks or control characters, which do not survive in headers".into());
    }
    if secret.chars().count() < MIN_CHARACTERS {
        return Err(format!(
            "the secret is shorter than {MIN_CHARACTERS} characters, so that it could be guessed from its hash; \
             make one with `message-center key new`"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_hash_is_that_of_the_standard() {
        let hash = SecretHash::of("abc");
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_string(), text);
        assert_eq!(SecretHash::parse(text), Ok(hash));
        assert_eq!(SecretHash::parse(&text.replace("ba", "BA")), Ok(hash));
        assert!(!format!("{hash:?}").contains("7816"), "a log needs no hashes");
    }

    #[test]
    fn what_is_no_hash_is_refused_and_not_repeated() {
        for bad in
            ["", "sha256:", "mck_secret", "sha256:xyz", "md5:ba78", &format!("sha256:{}", "ß".repeat(32))]
        {
            let fault = SecretHash::parse(bad).unwrap_err();
            assert!(fault.contains("key new") && !fault.contains("mck_secret"), "{fault}");
        }
    }

    #[test]
    fn generated_secrets_differ_and_are_good_anywhere() {
        let (one, other) = (generate().unwrap(), generate().unwrap());
        assert_ne!(one, other);
        assert!(one.starts_with(PREFIX) && one.len() == PREFIX.len() + 43, "{one}");
        assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{one}");
        assert_eq!(check(&one), Ok(()));
    }

    #[test]
    fn a_secret_of_ones_own_must_be_long_and_plain() {
        for bad in [
            "",
            "12345678",
            &"x".repeat(MIN_CHARACTERS - 1),
            &"x".repeat(513),
            "correct horse battery staple",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert_eq!(check(&"x".repeat(MIN_CHARACTERS)), Ok(()));
    }

    proptest! {
        #[test]
        fn a_hash_is_read_as_it_is_written(secret in any::<String>()) {
            let hash = SecretHash::of(&secret);
            prop_assert_eq!(SecretHash::parse(&hash.to_string()), Ok(hash));
        }

        #[test]
        fn no_text_breaks_the_reader(text in any::<String>()) {
            let _ = SecretHash::parse(&text);
            let _ = SecretHash::parse(&format!("{SCHEME}{text}"));
        }
    }
}
