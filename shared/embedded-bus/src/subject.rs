//! Subjects and patterns: validity, wildcards, matching.
//!
//! A subject is bytes, not text: tokens between dots, none of them empty. A token `*` stands for any one
//! token, and `>` as the last token for one or more. Inside a longer token both are ordinary bytes, as in
//! `a*b`.

const ONE: &[u8] = b"*";
const REST: &[u8] = b">";

/// Returns the tokens of a subject, in order.
pub(crate) fn tokens(subject: &[u8]) -> impl Iterator<Item = &[u8]> {
    subject.split(|byte| *byte == b'.')
}

/// Whether no token is empty. A message whose subject has an empty token reaches nobody.
pub(crate) fn is_well_formed(subject: &[u8]) -> bool {
    let mut previous = b'.';
    for byte in subject {
        if *byte == b'.' && previous == b'.' {
            return false;
        }
        previous = *byte;
    }
    previous != b'.'
}

/// Whether a client may subscribe to this pattern.
pub(crate) fn is_valid_pattern(pattern: &[u8]) -> bool {
    let mut ended = false;
    for token in tokens(pattern) {
        if token.is_empty() || ended {
            return false;
        }
        ended = token == REST;
    }
    true
}

/// Whether pedantic mode accepts this subject for a message: well formed and without wildcards.
pub(crate) fn is_valid_literal(subject: &[u8]) -> bool {
    tokens(subject).all(|token| !token.is_empty() && !is_wildcard(token))
}

/// Whether a valid pattern has a wildcard.
pub(crate) fn has_wildcard(pattern: &[u8]) -> bool {
    // Most patterns contain neither byte, and that check needs no splitting.
    pattern.iter().any(|byte| matches!(byte, b'*' | b'>')) && tokens(pattern).any(is_wildcard)
}

/// Whether this token is a wildcard.
pub(crate) fn is_wildcard(token: &[u8]) -> bool {
    token == ONE || token == REST
}

/// Whether this token stands for all tokens that follow.
pub(crate) fn is_rest(token: &[u8]) -> bool {
    token == REST
}

/// Whether any subject matches both patterns.
pub(crate) fn collide(one: &[u8], other: &[u8]) -> bool {
    let (mut these, mut those) = (tokens(one), tokens(other));
    loop {
        match (these.next(), those.next()) {
            (None, None) => return true,
            (Some(REST), Some(_)) | (Some(_), Some(REST)) => return true,
            (Some(token), Some(facing)) if token == ONE || facing == ONE || token == facing => {}
            (Some(_), _) | (None, Some(_)) => return false,
        }
    }
}

/// Whether a subject matches a pattern. This is the definition in its shortest form; [`crate::routing`] gives
/// the same answer for many patterns at once and is tested against it.
pub(crate) fn matches(pattern: &[u8], subject: &[u8]) -> bool {
    let (mut wanted, mut given) = (tokens(pattern), tokens(subject));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(REST), Some(_)) => return true,
            (Some(token), Some(other)) if token == ONE || token == other => {}
            (Some(_), _) | (None, Some(_)) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_no_empty_token_and_its_rest_wildcard_is_last() {
        for good in ["a", "a.b", "*", ">", "a.*", "*.b.>", "a*b", ">a", "a.>b", "$JS.API", "a\0b", "ü"] {
            assert!(is_valid_pattern(good.as_bytes()), "{good:?}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", ">.a", "a.>.b", "*.>.>"] {
            assert!(!is_valid_pattern(bad.as_bytes()), "{bad:?}");
        }
    }

    #[test]
    fn a_literal_has_no_wildcard_token() {
        for good in ["a", "a.b", "a*b", ">a", "a.b*"] {
            assert!(is_valid_literal(good.as_bytes()), "{good:?}");
            assert!(!has_wildcard(good.as_bytes()), "{good:?}");
        }
        for bad in ["*", ">", "a.*", "a.>", "*.a"] {
            assert!(!is_valid_literal(bad.as_bytes()), "{bad:?}");
            assert!(has_wildcard(bad.as_bytes()), "{bad:?}");
        }
        assert!(!is_valid_literal(b"a..b"));
    }

    #[test]
    fn patterns_collide_if_one_subject_is_for_both() {
        for (one, other) in
            [("a", "a"), ("a.*", "*.b"), ("a.>", "a.b.c"), (">", "a"), ("a.*.c", "a.>"), ("*", ">")]
        {
            assert!(collide(one.as_bytes(), other.as_bytes()), "{one} {other}");
            assert!(collide(other.as_bytes(), one.as_bytes()), "{other} {one}");
        }
        for (one, other) in [("a", "b"), ("a.>", "a"), ("a.*", "a.b.c"), ("a.b", "a"), ("a.*.c", "a.*.d")] {
            assert!(!collide(one.as_bytes(), other.as_bytes()), "{one} {other}");
            assert!(!collide(other.as_bytes(), one.as_bytes()), "{other} {one}");
        }
    }

    #[test]
    fn an_empty_token_anywhere_is_seen() {
        for bad in ["", ".", ".a", "a.", "a..b", "..", "a.b."] {
            assert!(!is_well_formed(bad.as_bytes()), "{bad:?}");
        }
        for good in ["a", "a.b", "*", "a.>"] {
            assert!(is_well_formed(good.as_bytes()), "{good:?}");
        }
    }

    #[test]
    fn wildcards_stand_for_whole_tokens() {
        let yes = [
            ("a.b", "a.b"),
            ("a.*", "a.b"),
            ("*.b", "a.b"),
            ("a.>", "a.b"),
            ("a.>", "a.b.c"),
            (">", "a"),
            ("*", "a"),
        ];
        for (pattern, subject) in yes {
            assert!(matches(pattern.as_bytes(), subject.as_bytes()), "{pattern} {subject}");
        }
        let no = [
            ("a.b", "a"),
            ("a", "a.b"),
            ("a.*", "a"),
            ("a.*", "a.b.c"),
            ("a.>", "a"),
            ("*", "a.b"),
            ("a*", "ab"),
        ];
        for (pattern, subject) in no {
            assert!(!matches(pattern.as_bytes(), subject.as_bytes()), "{pattern} {subject}");
        }
    }
}
