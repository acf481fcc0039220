//! Text with placeholders, as in `{id}@video`: the names and the channels of rules.

/// Text with placeholders, of which no two are adjacent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    /// Text before the first placeholder.
    pub(super) head: String,
    /// Each placeholder with the text that follows.
    pub(super) tail: Vec<(String, String)>,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it is empty".into());
        }
        let mut parts = text.split('{');
        let head = parts.next().unwrap_or_default().to_owned();
        let mut tail: Vec<(String, String)> = Vec::new();
        for part in parts {
            let (name, literal) =
                part.split_once('}').ok_or_else(|| format!("{text:?} has a {{ without its }}"))?;
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                return Err(format!("{{{name}}} is no placeholder: use a-z and _"));
            }
            if tail.iter().any(|(other, _)| other == name) {
                return Err(format!("{{{name}}} stands twice"));
            }
            if tail.last().is_some_and(|(_, literal)| literal.is_empty()) {
                return Err("two placeholders need text between them".into());
            }
            tail.push((name.to_owned(), literal.to_owned()));
        }
        if head.contains('}') || tail.iter().any(|(_, literal)| literal.contains('}')) {
            return Err(format!("{text:?} has a }} without its {{"));
        }
        Ok(Self { head, tail })
    }

    /// Returns the values of the placeholders if the whole text matches. A placeholder ends at the first
    /// occurrence of the text that follows; the last placeholder reaches to the end.
    pub(super) fn matches<'p, 't>(&'p self, text: &'t str) -> Option<Vec<(&'p str, &'t str)>> {
        let mut rest = text.strip_prefix(self.head.as_str())?;
        let mut values = Vec::with_capacity(self.tail.len());
        for (index, (name, literal)) in self.tail.iter().enumerate() {
            let value = if index + 1 == self.tail.len() {
                let value = rest.strip_suffix(literal.as_str())?;
                rest = "";
                value
            } else {
                // A value has at least one character, so the search for the following text begins behind it.
                let first = rest.chars().next()?.len_utf8();
                let end = first + rest[first..].find(literal.as_str())?;
                let value = &rest[..end];
                rest = &rest[end + literal.len()..];
                value
            };
            if value.is_empty() {
                return None;
            }
            values.push((name.as_str(), value));
        }
        rest.is_empty().then_some(values)
    }

    pub(super) fn fill<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> String {
        let mut text = self.head.clone();
        for (name, literal) in &self.tail {
            text.push_str(value(name).unwrap_or_default());
            text.push_str(literal);
        }
        text
    }

    pub(super) fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(|(name, _)| name.as_str())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.placeholders().any(|placeholder| placeholder == name)
    }
}
