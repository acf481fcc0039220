//! Why a bus can't start, can't go on, or can't use its store.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a bus could not start. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A setting makes no sense.
    #[error("{0}")]
    Setting(&'static str),
    /// Something listens there already.
    #[error(
        "can't listen on {0}: the port is taken; stop the program that has it, or set another port (0: any free)"
    )]
    PortTaken(SocketAddr),
    /// This process may not use that port.
    #[error("can't listen on {0}: not permitted; use a port above 1023, or give this program the right to")]
    NotPermitted(SocketAddr),
    /// This machine does not have that address.
    #[error(
        "can't listen on {0}: this machine has no such address; use one of its own, 127.0.0.1 or 0.0.0.0"
    )]
    NoSuchAddress(SocketAddr),
    /// What the streams were kept in can't be used.
    #[error("the streams of the bus can't be opened: {0}")]
    Streams(#[from] StreamsError),
    /// Anything else.
    #[error("can't listen on {address}: {source}")]
    Other {
        /// Where it was to listen.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Why the streams of a bus can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum StreamsError {
    /// The system gave no thread.
    #[error("no thread for them: {0}")]
    Thread(#[source] io::Error),
    /// The thread that opened them panicked.
    #[error("the thread that opens them panicked; see the log")]
    Panicked,
    /// Their store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a bus ended before it was told to. The process that has it is best started anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// The thread that keeps the streams panicked.
    #[error("the thread of the streams panicked, so nothing would be stored until the bus is started anew")]
    Streams,
    /// The task of a connection panicked.
    #[error(
        "a panic left the subscriptions half changed, so messages could go astray until the bus is started anew"
    )]
    Subscriptions,
}

impl BindError {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "io::ErrorKind grows; the rest is told in the system's words"
    )]
    pub(crate) fn from_io(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::PortTaken(address),
            io::ErrorKind::PermissionDenied => Self::NotPermitted(address),
            io::ErrorKind::AddrNotAvailable => Self::NoSuchAddress(address),
            _ => Self::Other { address, source },
        }
    }
}

/// Why the store of the streams can't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full, or the limit is reached. Nothing that was appended since the last commit is kept.
    #[error("no room for {}: the disk is full or bus.store.max_bytes is reached; free some room, or raise it", .0.display())]
    Full(PathBuf),
    /// A file or folder can't be trusted. The text names it, and says what is wrong and what to do.
    #[error("{0}")]
    Damaged(String),
    /// The settings of a stream are no JSON of the right shape.
    #[error("{what}: {source}{advice}")]
    Settings {
        /// Which settings.
        what: String,
        /// What the parser said.
        source: serde_json::Error,
        /// What to do, with the punctuation before it; may be empty.
        advice: &'static str,
    },
    /// The data folder can't be made, taken or read.
    #[error(
        "the data folder {} can't be used: {source}; give this user the right to write there, set another \
         bus.store.path (--data), or bus.store.sync = \"memory\" to keep nothing",
        folder.display()
    )]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused. Nothing that was appended since the last commit may be called stored.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
