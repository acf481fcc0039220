//! The source of a connection: the customer behind an address.
//!
//! A source is an IPv4 address, or an IPv6 network of 64 bits: a customer has all addresses of such a
//! network.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One customer, as far as an address tells.
///
/// ```
/// use std::net::IpAddr;
///
/// use sockets::Source;
///
/// let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
/// assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2::ffff"));
/// assert_ne!(source("192.0.2.7"), source("192.0.2.8"));
/// assert_eq!(source("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// The first 64 bits of an IPv6 address.
    V6(u64),
}

/// Writes the address or the network: `192.0.2.7`, `2001:db8:1:2::/64`.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::V6(network) => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(*network) << 64)),
        }
    }
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(address: &str) -> Source {
        address.parse::<IpAddr>().expect("an address").into()
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_source_and_a_mapped_address_is_ipv4() {
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:192.0.2.7"), source("192.0.2.7"));
        assert_ne!(source("192.0.2.7"), source("192.0.2.8"));
        let told = ["::ffff:192.0.2.7", "2001:db8:1:2::1"].map(|address| source(address).to_string());
        assert_eq!(told, ["192.0.2.7", "2001:db8:1:2::/64"]);
    }
}
