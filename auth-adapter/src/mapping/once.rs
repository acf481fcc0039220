//! Keys that stand twice on the way to a configured place: readers differ in which of the two counts.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::pointer::Pointer;

/// Returns whether every key on the way to these places stands at most once in this JSON text. Other keys
/// don't matter.
pub(super) fn is_clear(text: &[u8], places: &[&Pointer]) -> bool {
    let ways: Vec<_> = places.iter().map(|place| place.keys()).collect();
    let ways = Ways(ways.iter().map(Vec::as_slice).collect());
    ways.deserialize(&mut serde_json::Deserializer::from_slice(text)).is_ok()
}

/// The keys that are still to go, for each place.
struct Ways<'a>(Vec<&'a [String]>);

impl<'a> Ways<'a> {
    /// Returns the ways that lead over this key, from there on. `None`: no way does.
    fn over(&self, key: &str) -> Option<Self> {
        let over = self.0.iter().filter_map(|way| way.split_first()).filter(|(first, _)| *first == key);
        let rest: Vec<&'a [String]> = over.map(|(_, rest)| rest).collect();
        (!rest.is_empty()).then_some(Self(rest))
    }

    fn is_there(&self) -> bool {
        self.0.iter().all(|way| way.is_empty())
    }
}

impl<'de> DeserializeSeed<'de> for Ways<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.is_there() {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(drop);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Ways<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value whose keys stand once")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            match self.over(&key) {
                None => drop(map.next_value::<IgnoredAny>()?),
                Some(_) if !seen.insert(key.clone()) => return Err(A::Error::custom("a key stands twice")),
                Some(rest) => map.next_value_seed(rest)?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut index = 0_usize;
        loop {
            let next = match self.over(&index.to_string()) {
                None => list.next_element::<IgnoredAny>()?.map(drop),
                Some(rest) => list.next_element_seed(rest)?,
            };
            if next.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_twice_matters_only_on_the_way_to_a_place() {
        let places: Vec<_> =
            ["/uid", "/data/uid", "/list/1/id"].iter().map(|place| Pointer::parse(place).unwrap()).collect();
        let places: Vec<_> = places.iter().collect();
        for (text, clear) in [
            (r#"{"uid":1}"#, true),
            (r#"{"uid":1,"uid":1}"#, false),
            (r#"{"uid":1,"\u0075id":2}"#, false),
            (r#"{"uid":{"a":1,"a":2}}"#, true),
            (r#"{"x":1,"x":2,"data":{"x":1,"x":2,"uid":1}}"#, true),
            (r#"{"data":{"uid":1},"data":{"uid":2}}"#, false),
            (r#"{"data":null,"data":{"uid":2}}"#, false),
            (r#"{"data":{"uid":1,"uid":2}}"#, false),
            (r#"{"list":[{"id":1,"id":2},{"id":1}]}"#, true),
            (r#"{"list":[{"id":1},{"id":1,"id":2}]}"#, false),
            (r#"[{"uid":1,"uid":2}]"#, true),
            ("true", true),
            ("1.5", true),
            ("-1", true),
            (r#""x""#, true),
            ("null", true),
        ] {
            assert_eq!(is_clear(text.as_bytes(), &places), clear, "{text}");
        }
        assert!(is_clear(br#"{"uid":1,"uid":2}"#, &[]), "no place, no doubt");
    }
}
