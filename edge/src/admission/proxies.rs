//! Finds the real address of a client behind proxies: pure, from the remote address and the request's
//! headers.
//!
//! Only entries that a trusted proxy wrote are believed. Each proxy appends, on the right, the address that
//! it had the connection from. So the list is read from the right for as long as the writer of an entry is
//! trusted. Entries further left may be invented and are never looked at. Only the configured header counts:
//! a proxy passes on the other one as it came.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{FORWARDED, HeaderMap, HeaderName};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Entries that are read; a chain of proxies is never longer.
const MAX_HOPS: usize = 32;

/// The header in which trusted proxies name the client of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    /// `X-Forwarded-For: 192.0.2.7, 10.0.0.2`
    #[default]
    XForwardedFor,
    /// `Forwarded: for=192.0.2.7, for=10.0.0.2` (RFC 7239)
    Forwarded,
}

impl ForwardedHeader {
    /// Returns the header's name.
    pub(crate) fn name(self) -> HeaderName {
        match self {
            Self::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
            Self::Forwarded => FORWARDED,
        }
    }
}

/// Networks, by their configured texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Networks(Vec<IpNet>);

impl Networks {
    /// Reads `10.0.0.0/8`, `2001:db8::/32`, or a single address.
    ///
    /// # Errors
    /// The first text that is neither, and what to write instead.
    pub(crate) fn parse(texts: &[String]) -> Result<Self, String> {
        texts.iter().map(|text| network(text)).collect::<Result<_, _>>().map(Self)
    }

    /// Returns whether this address is in one of the networks.
    pub(crate) fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| format!("{text:?} is no network: write e.g. \"10.0.0.0/8\" or \"192.0.2.7\""))
}

/// Returns the real address of a client: the last one, from the right, that a trusted proxy vouches for. The
/// result is a trusted address itself if the proxies named no client, or none that can be read.
pub(crate) fn real_address(
    remote: IpAddr,
    trusted: &Networks,
    header: ForwardedHeader,
    headers: &HeaderMap,
) -> IpAddr {
    let mut address = remote.to_canonical();
    let lines = headers.get_all(header.name()).iter().collect::<Vec<_>>();
    let entries = lines.into_iter().rev().flat_map(|line| match header {
        ForwardedHeader::XForwardedFor => line.as_bytes().rsplit(|byte| *byte == b',').collect(),
        ForwardedHeader::Forwarded => elements_from_the_right(line.as_bytes()),
    });
    for entry in entries.take(MAX_HOPS) {
        if !trusted.contain(address) {
            break;
        }
        let named = std::str::from_utf8(entry).ok().and_then(|entry| match header {
            ForwardedHeader::XForwardedFor => node(entry),
            ForwardedHeader::Forwarded => forwarded_for(entry),
        });
        match named {
            Some(named) => address = named,
            None => break,
        }
    }
    address
}

/// Splits a `Forwarded` line into its elements. The split goes from the right, so that a quote that a client
/// left open can't swallow what a proxy added. Commas within quotes divide nothing, so that a client can't
/// smuggle an element in as its `host`.
fn elements_from_the_right(line: &[u8]) -> Vec<&[u8]> {
    let (mut elements, mut end, mut quoted) = (Vec::new(), line.len(), false);
    for (index, byte) in line.iter().enumerate().rev() {
        match byte {
            b'"' if !is_escaped(line, index) => quoted = !quoted,
            b',' if !quoted => {
                elements.push(&line[index + 1..end]);
                end = index;
            }
            _ => {}
        }
        if elements.len() == MAX_HOPS {
            return elements;
        }
    }
    elements.push(&line[..end]);
    elements
}

fn is_escaped(line: &[u8], index: usize) -> bool {
    line[..index].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// Returns the `for` of one element; none if there is none, or two.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut quoted = false;
    let bytes = element.as_bytes();
    let pairs = element.char_indices().filter(|(index, char)| {
        if *char == '"' && !is_escaped(bytes, *index) {
            quoted = !quoted;
        }
        *char == ';' && !quoted
    });
    let ends: Vec<usize> = pairs.map(|(index, _)| index).chain([element.len()]).collect();
    let mut start = 0;
    let mut values = ends.into_iter().filter_map(|end| {
        let pair = &element[start..end];
        start = end + 1;
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value.trim())
    });
    let value = values.next().filter(|_| values.next().is_none())?;
    let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    node(bare.unwrap_or(value))
}

/// Reads an address, with or without brackets and port.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let address = text.parse().ok();
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    const BOTH: [ForwardedHeader; 2] = [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn trusted() -> Networks {
        Networks::parse(&["10.0.0.0/8".into(), "fd00::/8".into(), "192.0.2.1".into()]).unwrap()
    }

    fn headers(header: ForwardedHeader, lines: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header.name(), HeaderValue::from_bytes(line).unwrap());
        }
        headers
    }

    fn real(remote: &str, header: ForwardedHeader, lines: &[&str]) -> String {
        let lines: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
        real_address(ip(remote), &trusted(), header, &headers(header, &lines)).to_string()
    }

    #[test]
    fn the_last_address_that_a_trusted_proxy_vouches_for_counts() {
        let x = |remote, lines: &[&str]| real(remote, ForwardedHeader::XForwardedFor, lines);
        assert_eq!(x("203.0.113.9", &["198.51.100.1"]), "203.0.113.9", "a stranger is not believed");
        assert_eq!(x("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(x("192.0.2.1", &["9.9.9.9, 198.51.100.1, 10.2.3.4"]), "198.51.100.1");
        assert_eq!(x("10.0.0.1", &["9.9.9.9", "198.51.100.1", " 10.2.3.4 "]), "198.51.100.1");
        assert_eq!(x("10.0.0.1", &["198.51.100.1:4711"]), "198.51.100.1");
        assert_eq!(x("10.0.0.1", &["2001:db8::7"]), "2001:db8::7");
        assert_eq!(x("10.0.0.1", &["[2001:db8::7]:4711"]), "2001:db8::7");
        assert_eq!(x("::ffff:10.0.0.1", &["::ffff:198.51.100.1"]), "198.51.100.1");
        assert_eq!(x("fd00::1", &["198.51.100.1"]), "198.51.100.1");
    }

    #[test]
    fn what_proxies_do_not_tell_leaves_the_last_of_them() {
        let x = |lines: &[&str]| real("10.0.0.1", ForwardedHeader::XForwardedFor, lines);
        assert_eq!(x(&[]), "10.0.0.1");
        assert_eq!(x(&[""]), "10.0.0.1");
        assert_eq!(x(&["unknown"]), "10.0.0.1");
        assert_eq!(x(&["198.51.100.1, unknown, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(x(&["10.0.0.3, 10.0.0.2"]), "10.0.0.3", "all of them are trusted");
        let other = headers(ForwardedHeader::Forwarded, &[b"for=198.51.100.1"]);
        let read = real_address(ip("10.0.0.1"), &trusted(), ForwardedHeader::XForwardedFor, &other);
        assert_eq!(read, ip("10.0.0.1"), "the other header may be the client's own");
    }

    #[test]
    fn the_standard_header_is_read_with_its_quotes() {
        let f = |lines: &[&str]| real("10.0.0.1", ForwardedHeader::Forwarded, lines);
        assert_eq!(f(&["for=198.51.100.1;proto=http;by=10.0.0.1"]), "198.51.100.1");
        assert_eq!(f(&["proto=https;FOR=\"[2001:db8::7]:4711\""]), "2001:db8::7");
        assert_eq!(f(&["for=9.9.9.9, for=198.51.100.1, for=10.0.0.9"]), "198.51.100.1");
        assert_eq!(f(&["for=9.9.9.9;host=\"a, for=8.8.8.8;b\", for=198.51.100.1"]), "198.51.100.1");
        let smuggled = "for=198.51.100.1;host=\"x,for=8.8.8.8;y\"";
        assert_eq!(f(&[smuggled]), "198.51.100.1", "a comma in quotes divides nothing");
        assert_eq!(f(&["host=\"open, for=198.51.100.1"]), "198.51.100.1", "an open quote swallows nothing");
        assert_eq!(f(&["for=\"_hidden\""]), "10.0.0.1");
        assert_eq!(f(&["for=198.51.100.1;for=8.8.8.8"]), "10.0.0.1", "two are none");
        assert_eq!(f(&["for=198.51.100.1;host=\"a\\\";for=8.8.8.8;\""]), "198.51.100.1", "an escaped quote");
    }

    #[test]
    fn networks_are_cidrs_or_single_addresses() {
        let networks = trusted();
        assert!(
            ["10.255.0.1", "::ffff:10.0.0.1", "192.0.2.1", "fdff::1"]
                .iter()
                .all(|it| networks.contain(ip(it)))
        );
        assert!(["11.0.0.1", "192.0.2.2", "2001:db8::1"].iter().all(|it| !networks.contain(ip(it))));
        let error = Networks::parse(&["10.0.0.0/33".into()]).unwrap_err();
        assert!(error.contains("10.0.0.0/33") && error.contains("write"), "{error}");
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_sends_hides_whom_the_proxy_saw(
            claims in prop::collection::vec("[ -~\t\u{80}-\u{ff}]{0,40}", 0..4),
            same_line in prop::bool::ANY,
            hops in 0_usize..3,
        ) {
            for header in BOTH {
                let client = match header {
                    ForwardedHeader::XForwardedFor => "198.51.100.1".to_owned(),
                    ForwardedHeader::Forwarded => "for=198.51.100.1;host=\"a,for=8.8.8.8\"".to_owned(),
                };
                let hop = match header {
                    ForwardedHeader::XForwardedFor => ", 10.0.0.2",
                    ForwardedHeader::Forwarded => ", for=10.0.0.2",
                };
                let written = format!("{client}{}", hop.repeat(hops));
                let mut lines: Vec<String> = claims.clone();
                match lines.pop() {
                    Some(last) if same_line => lines.push(format!("{last}, {written}")),
                    Some(last) => lines.extend([last, written]),
                    None => lines.push(written),
                }
                let lines: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
                let headers = headers(header, &lines);
                prop_assert_eq!(real_address(ip("10.0.0.1"), &trusted(), header, &headers), ip("198.51.100.1"));
                prop_assert_eq!(real_address(ip("203.0.113.9"), &trusted(), header, &headers), ip("203.0.113.9"));
            }
        }

        #[test]
        fn whatever_a_trusted_proxy_passes_on_is_read_without_harm(
            lines in prop::collection::vec(prop::collection::vec(prop::sample::select(
                b"for=\"\\,; []:.0123456789abFOR\t\xff".to_vec()), 0..60), 0..5),
        ) {
            for header in BOTH {
                let lines: Vec<_> = lines.iter().map(Vec::as_slice).collect();
                let read = real_address(ip("10.0.0.1"), &trusted(), header, &headers(header, &lines));
                let text = lines.concat();
                prop_assert!(read == ip("10.0.0.1") || text.contains(&b'.') || text.contains(&b':'));
            }
        }
    }
}
