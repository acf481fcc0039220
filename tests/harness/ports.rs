//! Ports for servers that go away and come back, or that others must know before they start.
//!
//! Port 0 is for all others: what it gave to a server may be given to somebody else as soon as the server is gone.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Below what Linux gives for port 0 and to connections that go out (32768 to 60999), and above what services use.
const RANGE: std::ops::Range<u16> = 10_000..32_000;
/// So many are tried for one.
const TRIES: usize = 1_000;

/// Addresses on loopback that are free, differ, and are given to nobody who asks for just any.
///
/// # Panics
/// Everything is taken.
pub fn lasting<const N: usize>() -> [SocketAddr; N] {
    // All are held until the last is found, so that they differ.
    let held: [TcpListener; N] = std::array::from_fn(|_| {
        let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, fastrand::u16(RANGE))).ok();
        (0..TRIES).find_map(bind).expect("loopback has free ports")
    });
    held.map(|held| held.local_addr().expect("it is bound"))
}
