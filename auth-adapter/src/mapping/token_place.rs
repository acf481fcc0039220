//! The place of the token in a request.

use reqwest::header::{HeaderName, HeaderValue};

use super::config::Method;

/// The placeholder of the token in a header.
const PLACEHOLDER: &str = "{token}";
/// The most bytes of the name of a field.
const MAX_NAME: usize = 128;
/// Headers between two neighbours on the way (RFC 9110, section 7.6.1), and those that HTTP itself sets.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Headers that message center writes itself.
const OWN: [&str; 5] = ["content-type", "host", "traceparent", "tracestate", "user-agent"];

/// The place of the token in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenPlace {
    /// The only key of a JSON object.
    Json(String),
    /// The only field of a form.
    Form(String),
    /// A header, with the text before and after the token.
    Header { name: HeaderName, before: String, after: String },
    /// A parameter of the URL.
    Query(String),
}

impl TokenPlace {
    /// Reads a place such as `json:token` or `header:Authorization: Bearer {token}`.
    ///
    /// # Errors
    /// The rule that the text breaks, and what to write. No text of a header is repeated.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "json" => field(rest).map(Self::Json),
            "form" => field(rest).map(Self::Form),
            "query" => field(rest).map(Self::Query),
            "header" => header(rest),
            _ => Err("is no place for a token: write \"json:token\", \"form:token\", \
                      \"header:Authorization: Bearer {token}\" or \"query:token\""
                .to_owned()),
        }
    }

    /// Returns what keeps this place out of a request with `method`.
    pub(super) fn fault_with(&self, method: Method) -> Option<String> {
        let has_body = matches!(self, Self::Json(_) | Self::Form(_));
        (has_body && method == Method::Get).then(|| {
            "GET has no body for the token: set auth_adapter.request.token to \
             \"header:Authorization: Bearer {token}\" or \"query:token\", or the method to POST"
                .to_owned()
        })
    }

    /// Returns whether a token can stand here.
    pub(crate) fn carries(&self, token: &str) -> bool {
        match self {
            Self::Json(_) | Self::Form(_) | Self::Query(_) => true,
            Self::Header { .. } => self.header_value(token).is_some(),
        }
    }

    /// Returns the value of the header with the token, marked as a secret. `None`: this is no header, or the
    /// token can't stand in one.
    pub(crate) fn header_value(&self, token: &str) -> Option<HeaderValue> {
        let Self::Header { before, after, .. } = self else { return None };
        // Servers differ in how they read other bytes. The refused marks would end the value of a cookie or of
        // a parameter, and a device could add one of its own.
        let is_plain = token.bytes().all(|byte| byte.is_ascii_graphic() && !b"\";,\\".contains(&byte));
        let text = is_plain.then(|| format!("{before}{token}{after}"))?;
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Returns the place in words, with the token masked.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Json(name) => format!("JSON body {}", serde_json::json!({ name: "***" })),
            Self::Form(name) => format!("form body {name}=***"),
            Self::Header { name, before, after } => format!("header {name}: {before}***{after}"),
            Self::Query(name) => format!("query {name}=***"),
        }
    }
}

/// Returns whether a header may not be configured, since it belongs to one connection and not to a request.
pub(crate) fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.contains(&name.to_ascii_lowercase().as_str())
}

fn field(name: &str) -> Result<String, String> {
    let good = (1..=MAX_NAME).contains(&name.len()) && !name.chars().any(char::is_control);
    if good {
        Ok(name.to_owned())
    } else {
        Err(format!(
            "names no field: write a name of 1 to {MAX_NAME} bytes behind the colon, e.g. json:token"
        ))
    }
}

fn header(text: &str) -> Result<TokenPlace, String> {
    let (name, template) =
        text.split_once(':').ok_or("names no header: write \"header:Authorization: Bearer {token}\"")?;
    let name = name.trim();
    let parsed = HeaderName::try_from(name).map_err(|_| format!("{name:?} can't be the name of a header"))?;
    if is_hop_by_hop(name) || OWN.contains(&parsed.as_str()) {
        return Err(format!("the header {name} is set by HTTP itself or by message center: take another"));
    }
    let template = template.trim();
    let Some((before, after)) = template.split_once(PLACEHOLDER) else {
        return Err(format!("the header has no {PLACEHOLDER}: write it where the token stands"));
    };
    if after.contains(PLACEHOLDER) {
        return Err(format!("the header has {PLACEHOLDER} twice: the token stands in one place"));
    }
    let place = TokenPlace::Header { name: parsed, before: before.to_owned(), after: after.to_owned() };
    if place.carries("x") {
        Ok(place)
    } else {
        Err("the text around {token} can't be in a header".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_read() {
        assert_eq!(TokenPlace::parse("json:token"), Ok(TokenPlace::Json("token".into())));
        assert_eq!(TokenPlace::parse("form:access_token"), Ok(TokenPlace::Form("access_token".into())));
        assert_eq!(TokenPlace::parse("query:t"), Ok(TokenPlace::Query("t".into())));
        let bearer = TokenPlace::parse("header:Authorization: Bearer {token}").unwrap();
        assert_eq!(bearer.header_value("abc").unwrap(), "Bearer abc");
        let cookie = TokenPlace::parse("header:Cookie:sid={token}; path=/").unwrap();
        assert_eq!(cookie.header_value("abc").unwrap(), "sid=abc; path=/");
        assert_eq!(TokenPlace::parse("header:X-Token: {token}").unwrap().header_value("a").unwrap(), "a");
    }

    #[test]
    fn faults_say_what_to_write() {
        for (text, fault) in [
            ("", "no place for a token"),
            ("token", "no place for a token"),
            ("cookie:token", "no place for a token"),
            ("json", "names no field"),
            ("json:", "names no field"),
            ("form:a\nb", "names no field"),
            ("header:Authorization", "names no header"),
            ("header:Authorization: Bearer", "has no {token}"),
            ("header:Authorization: {token} {token}", "twice"),
            ("header:a b: {token}", "can't be the name"),
            ("header:X: \u{7f}{token}", "can't be in a header"),
            ("header:Connection: {token}", "set by HTTP itself"),
            ("header:transfer-encoding: {token}", "set by HTTP itself"),
            ("header:Host: {token}", "set by HTTP itself"),
        ] {
            let error = TokenPlace::parse(text).unwrap_err();
            assert!(error.contains(fault), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_body_wants_a_method_with_one() {
        for (place, fits_get) in
            [("json:t", false), ("form:t", false), ("query:t", true), ("header:X: {token}", true)]
        {
            let place = TokenPlace::parse(place).unwrap();
            assert_eq!(place.fault_with(Method::Get).is_none(), fits_get, "{place:?}");
            assert_eq!(place.fault_with(Method::Post), None);
        }
    }

    #[test]
    fn a_header_carries_only_what_can_stand_in_one_and_shows_no_token() {
        let bearer = TokenPlace::parse("header:Authorization: Bearer {token}").unwrap();
        assert!(bearer.carries("ey.J_-~+/="));
        for bad in ["ü", "a\nb", "\u{0}", "a b", "x;role=admin", "a,b", "a\"b", "a\\b"] {
            assert!(!bearer.carries(bad), "{bad:?}");
        }
        assert!(TokenPlace::Json("token".into()).carries("ü"));
        let value = bearer.header_value("hunter2").unwrap();
        assert!(value.is_sensitive() && !format!("{value:?}").contains("hunter2"));
        assert_eq!(bearer.words(), "header authorization: Bearer ***");
        assert_eq!(TokenPlace::Json("t".into()).words(), r#"JSON body {"t":"***"}"#);
    }
}
