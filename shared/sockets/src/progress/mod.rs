//! The progress of the other end of a socket: whether it takes data.
//!
//! On Linux, a socket that was full is writable only once a third of its send buffer is free. A client that
//! takes a few KB a second needs longer for that than anybody waits. So the kernel is asked how many bytes
//! the other end has acknowledged (sock_diag(7), a lookup of one socket). On other systems, or behind a
//! filter of system calls, only writability tells, and such a client counts as taking no data.

use std::time::Duration;

use tokio::io::{DuplexStream, Sink, WriteHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::Instant;

/// The first look comes after this fraction of the limit: most sockets never need one.
const FIRST_LOOK: u32 = 2;
/// Later looks come after this fraction of the limit each.
const LOOKS: u32 = 10;

/// A socket that may know how much its other end has taken.
pub trait Acknowledged {
    /// Returns the TCP connection below. `None`: there is none, or it is out of reach.
    fn tcp(&self) -> Option<&TcpStream>;

    /// Returns the bytes that the other end has acknowledged so far. `None`: unknown.
    fn acknowledged(&self) -> Option<u64> {
        Some(sent(self.tcp()?)?.acknowledged)
    }

    /// Returns the written bytes that the other end has not acknowledged. `None`: unknown.
    fn unacknowledged(&self) -> Option<u32> {
        Some(sent(self.tcp()?)?.waiting)
    }
}

impl Acknowledged for TcpStream {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Acknowledged for OwnedWriteHalf {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(self.as_ref())
    }
}

impl Acknowledged for DuplexStream {
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

impl<S> Acknowledged for WriteHalf<S> {
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

impl Acknowledged for Sink {
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

/// Makes the close of the connection a reset, so that the system holds no data for an end that takes none.
pub fn reset_on_close(stream: &impl Acknowledged) {
    if let Some(tcp) = stream.tcp() {
        // A socket that refuses the option is closed as usual.
        let _ = tcp.set_zero_linger();
    }
}

/// The time since which the other end takes no data, as far as the looks show.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    since: Instant,
    /// The latest look; `None`: none since the latest write.
    looked: Option<Instant>,
    acknowledged: Option<u64>,
}

impl Progress {
    /// Starts when data begins to wait.
    pub fn new(now: Instant) -> Self {
        Self { since: now, looked: None, acknowledged: None }
    }

    /// Notes that the system took data for the other end.
    pub fn wrote(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// Leaves this time out: this process could not write.
    pub fn pause(&mut self, time: Duration) {
        self.since += time;
    }

    /// Notes a look: the bytes that the other end has acknowledged by now.
    pub fn look(&mut self, now: Instant, acknowledged: Option<u64>) {
        self.looked = Some(now);
        if let (Some(before), Some(after)) = (self.acknowledged, acknowledged)
            && after > before
        {
            self.since = now;
        }
        self.acknowledged = acknowledged;
    }

    /// Returns when the latest byte was taken.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Returns when to look again, if the other end may take no data for `limit`.
    pub fn next_look(&self, limit: Duration) -> Instant {
        let next = self.looked.map_or(self.since + limit / FIRST_LOOK, |looked| looked + limit / LOOKS);
        next.min(self.since + limit)
    }
}

/// The bytes written to a socket.
#[derive(Debug, Clone, Copy)]
struct Sent {
    acknowledged: u64,
    waiting: u32,
}

#[cfg(target_os = "linux")]
fn sent(stream: &TcpStream) -> Option<Sent> {
    diag::ask(stream.local_addr().ok()?, stream.peer_addr().ok()?)
}

#[cfg(not(target_os = "linux"))]
fn sent(_: &TcpStream) -> Option<Sent> {
    None
}

/// Question and answer of sock_diag(7).
#[cfg(target_os = "linux")]
mod diag {
    use std::net::{IpAddr, SocketAddr};

    use rustix::net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
    };

    use super::Sent;

    /// `SOCK_DIAG_BY_FAMILY`
    const BY_FAMILY: u16 = 20;
    /// `NLM_F_REQUEST`
    const REQUEST: u16 = 1;
    /// `AF_INET`
    const INET: u8 = 2;
    /// `AF_INET6`
    const INET6: u8 = 10;
    /// `IPPROTO_TCP`
    const TCP: u8 = 6;
    /// `INET_DIAG_INFO`: a `struct tcp_info`.
    const INFO: u16 = 2;
    /// The length of `struct nlmsghdr`.
    const HEADER: usize = 16;
    /// The length of `struct inet_diag_req_v2`.
    const QUESTION: usize = 56;
    /// The length of `struct inet_diag_msg`; attributes follow.
    const ANSWER: usize = 72;
    /// Where `idiag_wqueue` is in `inet_diag_msg`.
    const WAITING: usize = 60;
    /// Where `tcpi_bytes_acked` is in `tcp_info`, since Linux 4.1.
    const BYTES_ACKED: usize = 120;

    /// Asks the kernel about the connection between these two addresses. `None`: no answer.
    pub(super) fn ask(local: SocketAddr, peer: SocketAddr) -> Option<Sent> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(netlink::SOCK_DIAG);
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol).ok()?;
        send(&socket, &question(local, peer), SendFlags::empty()).ok()?;
        let mut answer = [0; 2048];
        // The kernel answers before `send` returns.
        let (length, _) = recv(&socket, &mut answer, RecvFlags::empty()).ok()?;
        read(&answer[..length])
    }

    fn question(local: SocketAddr, peer: SocketAddr) -> Vec<u8> {
        let (from, to) = (local.ip().to_canonical(), peer.ip().to_canonical());
        let family = if from.is_ipv4() { INET } else { INET6 };
        let scope = if let SocketAddr::V6(local) = local { local.scope_id() } else { 0 };
        let mut bytes = Vec::with_capacity(HEADER + QUESTION);
        bytes.extend(((HEADER + QUESTION) as u32).to_ne_bytes());
        bytes.extend(BY_FAMILY.to_ne_bytes());
        bytes.extend(REQUEST.to_ne_bytes());
        // Sequence number and port of netlink, which only dialogues need.
        bytes.extend([0; 8]);
        bytes.extend([family, TCP, 1 << (INFO - 1), 0]);
        // Sockets in any state.
        bytes.extend(u32::MAX.to_ne_bytes());
        bytes.extend(local.port().to_be_bytes());
        bytes.extend(peer.port().to_be_bytes());
        for address in [from, to] {
            match address {
                IpAddr::V4(address) => {
                    bytes.extend(address.octets());
                    bytes.extend([0; 12]);
                }
                IpAddr::V6(address) => bytes.extend(address.octets()),
            }
        }
        bytes.extend(scope.to_ne_bytes());
        // `INET_DIAG_NOCOOKIE`: the addresses are enough.
        bytes.extend([0xff; 8]);
        bytes
    }

    fn read(answer: &[u8]) -> Option<Sent> {
        let u16_at = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_ne_bytes(answer.get(at..at + 8)?.try_into().ok()?));
        // Any other message is an error.
        (u16_at(4)? == BY_FAMILY).then_some(())?;
        let waiting = u32_at(HEADER + WAITING)?;
        let mut attribute = HEADER + ANSWER;
        loop {
            let (length, kind) = (usize::from(u16_at(attribute)?), u16_at(attribute + 2)?);
            if kind == INFO && length >= 4 + BYTES_ACKED + 8 {
                return Some(Sent { acknowledged: u64_at(attribute + 4 + BYTES_ACKED)?, waiting });
            }
            attribute += length.max(4).next_multiple_of(4);
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn answers_that_are_cut_off_or_errors_tell_nothing() {
            let mut error = vec![0; 200];
            error[4] = 2;
            assert!(read(&error).is_none());
            let mut whole = vec![0; HEADER + ANSWER + 4 + BYTES_ACKED + 8];
            whole[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
            whole[HEADER + WAITING..][..4].copy_from_slice(&7_u32.to_ne_bytes());
            let length = (whole.len() - HEADER - ANSWER) as u16;
            whole[HEADER + ANSWER..][..2].copy_from_slice(&length.to_ne_bytes());
            whole[HEADER + ANSWER + 2..][..2].copy_from_slice(&INFO.to_ne_bytes());
            let last = whole.len() - 8;
            whole[last..].copy_from_slice(&9_u64.to_ne_bytes());
            let sent = read(&whole).map(|sent| (sent.acknowledged, sent.waiting));
            assert_eq!(sent, Some((9, 7)));
            assert!((0..whole.len()).all(|length| read(&whole[..length]).is_none()));
        }
    }
}

#[cfg(test)]
mod tests;
