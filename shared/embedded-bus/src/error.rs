//! Errors: why a bus can't start, can't go on, or can't use its store.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a bus could not start. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A setting makes no sense.
    #[error("{0}")]
    Setting(&'static str),
    /// Another program listens on this address.
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
    /// The stored streams can't be opened.
    #[error("the streams of the bus can't be opened: {0}")]
    Streams(#[from] StreamsError),
    /// The system refused for another reason.
    #[error("can't listen on {address}: {source}")]
    Other {
        /// The address to listen on.
        address: SocketAddr,
        /// The system's error.
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
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a bus ended before it was told to. The process should be restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// The stream worker panicked.
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
    /// The disk is full, or the limit is reached. Nothing appended since the last commit is stored.
    #[error("no room for {}: the disk is full or bus.store.max_bytes is reached; free some room, or raise it", .0.display())]
    Full(PathBuf),
    /// A file or folder can't be trusted. The text names it, and says what is wrong and what to do.
    #[error("{0}")]
    Damaged(String),
    /// The settings of a stream are no JSON of the expected shape.
    #[error("{what}: {source}{advice}")]
    Settings {
        /// The settings that can't be read.
        what: String,
        /// The parser's error.
        source: serde_json::Error,
        /// Advice, with the punctuation before it; may be empty.
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
        /// The system's error.
        source: io::Error,
    },
    /// The system refused an operation. Nothing appended since the last commit may be called stored.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}
