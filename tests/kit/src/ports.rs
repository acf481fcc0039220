//! Ports for servers that stop and start again, or whose ports must be known before they start.
//!
//! Port 0 is right for all other servers: the kernel may reuse such a port as soon as its server has stopped.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Below the range of Linux for port 0 and for outgoing connections (32768 to 60999), and above well-known
/// services.
const RANGE: std::ops::Range<u16> = 10_000..32_000;
/// Attempts to find one free port.
const TRIES: usize = 1_000;

/// Distinct free addresses on loopback, which the kernel gives to nobody who asks for port 0.
///
/// # Panics
/// No port is free.
pub fn lasting<const N: usize>() -> [SocketAddr; N] {
    // All listeners stay bound until the last is found, so that the ports differ.
    let held: [TcpListener; N] = std::array::from_fn(|_| {
        let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, fastrand::u16(RANGE))).ok();
        (0..TRIES).find_map(bind).expect("loopback has free ports")
    });
    held.map(|held| held.local_addr().expect("it is bound"))
}
