//! Which channels a key may name: a name in which `*` stands for any run of characters, an empty one too.
//!
//! Matching takes time in proportion to pattern times name at worst and allocates nothing; both are short.

use std::fmt;

use shared::ids::has_stray_blank;

/// The longest pattern, in bytes: that of the longest channel name, with room for stars.
pub(crate) const MAX_BYTES: usize = 256;

/// A pattern of channel names, such as `user:*`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pattern(Box<str>);

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// The pattern is empty, too long, or has characters that no channel has; the text says which.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("is empty and matches no channel; write \"*\" for all");
        }
        if text.len() > MAX_BYTES {
            return Err("is longer than 256 bytes; use * for a part of it");
        }
        if text.chars().any(char::is_control) || has_stray_blank(text) {
            return Err(
                "has control characters, or blanks that are not behind \"user:\", which no channel has",
            );
        }
        Ok(Self(text.into()))
    }

    /// Whether the whole name fits.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        // Where the last star was, and up to where it was taken to reach.
        let mut star: Option<(usize, usize)> = None;
        while n < name.len() {
            if pattern.get(p) == Some(&b'*') {
                star = Some((p, n));
                p += 1;
            } else if pattern.get(p) == Some(&name[n]) {
                (p, n) = (p + 1, n + 1);
            } else if let Some((at, reach)) = star {
                // Let the last star take one byte more. Earlier stars need not be tried again.
                star = Some((at, reach + 1));
                (p, n) = (at + 1, reach + 1);
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(name)
    }

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, name) in [
            ("*", "broadcast"),
            ("user:*", "user:1001"),
            ("user:*", "user:"),
            ("*:1001", "user:1001"),
            ("a*b*c", "abbc"),
            ("a*b*c", "axxbxbxxc"),
            ("**", "x"),
            ("raum:*:ü", "raum:größe:ü"),
            ("broadcast", "broadcast"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn the_whole_name_must_fit_and_case_counts() {
        for (pattern, name) in [
            ("user:*", "users:1"),
            ("user:*", "xuser:1"),
            ("user:1", "user:10"),
            ("*:1", "user:10"),
            ("user:*", "User:1"),
            ("a*b*c", "acb"),
            ("user?1", "user:1"),
            ("[a-z]", "a"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_that_no_channel_could_match_is_refused() {
        for bad in ["", "two words", "a\n", "\u{a0}", &"x".repeat(257)] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
    }

    /// The meaning of a pattern, in its simplest form.
    fn meaning(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|taken| meaning(rest, &name[taken..])),
            Some((byte, rest)) => name.first() == Some(byte) && meaning(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn a_name_matches_exactly_what_the_pattern_means(pattern in "[ab*]{1,8}", name in "[ab]{0,10}") {
            prop_assert_eq!(matches(&pattern, &name), meaning(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn a_name_matches_itself_and_any_of_its_beginnings_with_a_star(name in "[a-zü:@-]{1,40}", cut in 0_usize..40) {
            prop_assert!(matches(&name, &name));
            let beginning: String = name.chars().take(cut).collect();
            let pattern = format!("{beginning}*");
            prop_assert!(matches(&pattern, &name));
        }
    }
}
