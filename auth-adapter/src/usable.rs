//! Tokens that are refused without asking. Pure.

use crate::mapping::TokenPlace;

/// Returns why a token is not worth a call. No issuer makes tokens with control characters, and a business
/// system may stumble over them: some databases fail on a NUL.
pub(crate) fn fault(token: &str, max_token: usize, place: &TokenPlace) -> Option<&'static str> {
    if token.is_empty() {
        Some("the token is empty")
    } else if token.len() > max_token {
        Some("the token is longer than auth_adapter.max_token")
    } else if token.chars().any(char::is_control) {
        Some("the token has control characters")
    } else if !place.carries(token) {
        Some("the token can't stand in a header, where auth_adapter.request.token puts it")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_asked_about_only_if_it_can_be_one() {
        let place = TokenPlace::Json("token".into());
        let fault = |token: &str| fault(token, 5, &place);
        assert_eq!((fault("abcde"), fault("ü")), (None, None));
        for (token, words) in [("", "empty"), ("abcdef", "longer"), ("a\0", "control characters")] {
            assert!(fault(token).is_some_and(|fault| fault.contains(words)), "{token:?}");
        }
    }
}
