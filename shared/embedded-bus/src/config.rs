//! The settings of a bus.
//!
//! No text here prints a secret. Comparing a secret takes the same time wherever the first wrong byte is.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::error::BindError;

/// Limits, address and credentials of one bus. Every limit is nats-server's default unless its text says
/// otherwise.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address to listen on. Port 0 takes any free port, see [`crate::EmbeddedBus::local_addr`].
    pub listen: SocketAddr,
    /// The credentials that a client has to present.
    pub credentials: Credentials,
    /// The server's name in INFO.
    pub server_name: String,
    /// Bytes of headers and payload of one message, at least 1. A larger message ends its connection.
    pub max_payload: usize,
    /// Bytes that may wait for one connection, at least twice `max_payload`. Beyond that the connection is
    /// cut off as a slow consumer.
    pub max_pending_bytes: usize,
    /// Bytes of arguments in one protocol line. A longer line ends its connection.
    pub max_control_line: usize,
    /// Connections at the same time. Further clients are told so and closed.
    pub max_connections: usize,
    /// Subscriptions of one connection; 0: no limit. Further subscriptions are refused, and the connection
    /// stays. (nats-server has no limit unless told.)
    pub max_subscriptions: usize,
    /// How long a connection may be silent before the bus sends a PING.
    pub ping_interval: Duration,
    /// PINGs that may be unanswered. One interval after the last of them the connection is closed as stale.
    pub max_pings_out: u32,
    /// How long a new connection may take to present its credentials, if they are required.
    pub auth_timeout: Duration,
    /// How long a socket may take no byte while some wait. After that the connection is cut off as a slow
    /// consumer.
    pub write_deadline: Duration,
    /// How long connections are served on after they were told that the bus ends, so that clients can finish
    /// or move. The time ends sooner once all clients have gone. 0: the bus ends at once. (nats-server: 10 s
    /// if told by a signal, else 0.)
    pub lame_duck: Duration,
    /// The streams, if this bus has any.
    pub streams: Option<StreamsConfig>,
}

/// How streams are stored, and the limits of all streams together.
///
/// # Example
///
/// Creates a stream in memory, by the API that JetStream clients use, and stores a message.
///
/// ```
/// use embedded_bus::{Config, EmbeddedBus, StreamsConfig};
/// use tokio_util::sync::CancellationToken;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let streams = Some(StreamsConfig::default());
/// let bus = EmbeddedBus::bind(Config { listen: "127.0.0.1:0".parse()?, streams, ..Config::default() }).await?;
/// let (address, stats, shutdown) = (bus.local_addr(), bus.stats(), CancellationToken::new());
/// tokio::spawn(bus.serve(shutdown));
/// let client = async_nats::connect(format!("nats://{address}")).await?;
///
/// let settings = r#"{"name":"ORDERS","subjects":["orders.>"]}"#;
/// client.request("$JS.API.STREAM.CREATE.ORDERS", settings.into()).await?;
/// let acknowledgement = client.request("orders.7", "paid".into()).await?;
/// assert_eq!(acknowledgement.payload, r#"{"stream":"ORDERS","seq":1}"#);
/// assert_eq!(stats.snapshot().stream_stored, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct StreamsConfig {
    /// Where messages are stored.
    pub storage: Storage,
    /// Streams at the same time, at least 1. Further ones are refused.
    pub max_streams: usize,
    /// Messages and requests that may wait for the streams, at least 1. A publisher that fills the queue
    /// waits.
    pub max_queued: usize,
    /// Bytes of messages and requests that may wait for the streams, at least 1. One message of each
    /// connection may exceed the limit.
    pub max_queued_bytes: usize,
    /// Bytes of memory for messages, subjects and message ids, by estimate, above 0. Messages themselves
    /// count too if they are stored in memory. At the limit further messages are refused until some have gone.
    pub max_memory: u64,
    /// Streams that may use reserved space: small ones whose messages must not be refused, e.g. the list of
    /// bans. Reserved are a sixteenth of [`DiskConfig::max_bytes`], and a sixteenth of `max_memory` on top of
    /// it.
    pub reserved_streams: Vec<String>,
    /// A header that marks a message as the replacement of all erased messages of its subject. Such a message
    /// may use reserved space in any stream. At a limit of its stream the erased messages make room for it.
    /// Empty: no header.
    pub reserved_header: String,
}

impl Default for StreamsConfig {
    fn default() -> Self {
        Self {
            storage: Storage::Memory,
            max_streams: 512,
            max_queued: 16_384,
            max_queued_bytes: 32 << 20,
            max_memory: 2 << 30,
            reserved_streams: Vec::new(),
            reserved_header: String::new(),
        }
    }
}

/// Where the messages of streams are stored.
#[derive(Clone, Debug)]
pub enum Storage {
    /// In memory: messages end with the process.
    Memory,
    /// In a folder.
    Disk(DiskConfig),
}

/// A folder for the messages of streams.
///
/// ```
/// use embedded_bus::{Config, DiskConfig, Storage, StreamsConfig, SyncMode};
///
/// let disk = DiskConfig { path: "/var/lib/bus".into(), sync: SyncMode::Strict, max_bytes: 10 << 30 };
/// let streams = StreamsConfig { storage: Storage::Disk(disk), ..StreamsConfig::default() };
/// let config = Config { streams: Some(streams), ..Config::default() };
/// # drop(config);
/// ```
#[derive(Clone, Debug)]
pub struct DiskConfig {
    /// The folder. The bus makes it if it is missing. One process at a time may use it.
    pub path: PathBuf,
    /// The durability that an acknowledgement promises.
    pub sync: SyncMode,
    /// Bytes of all streams on the disk, above 0. From fifteen sixteenths on, further messages are refused
    /// until some have gone. Space without use is given back before that: messages within the limits of their
    /// streams fit, up to four fifths of `max_bytes`.
    pub max_bytes: u64,
}

/// The durability that an acknowledgement promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Acknowledged messages are on the disk and survive a crash of the machine.
    Strict,
    /// Acknowledged messages are with the system, which writes them to the disk within a second. They survive
    /// a crash of the process. After a crash of the machine messages of the last second may be missing, and
    /// the streams then count as created anew.
    Relaxed,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 4222)),
            credentials: Credentials::None,
            server_name: "embedded-bus".to_owned(),
            max_payload: 1 << 20,
            max_pending_bytes: 64 << 20,
            max_control_line: 4096,
            max_connections: 65_536,
            max_subscriptions: 1_000_000,
            ping_interval: Duration::from_secs(10),
            max_pings_out: 2,
            auth_timeout: Duration::from_secs(2),
            write_deadline: Duration::from_secs(10),
            lame_duck: Duration::from_secs(2),
            streams: None,
        }
    }
}

impl Config {
    /// Returns an error for the first rule that these settings break.
    pub(crate) fn check(&self) -> Result<(), BindError> {
        let rules = [
            (self.max_payload > 0, "max_payload is 0: nothing could be published; set at least 1"),
            (
                self.max_payload < 1_000_000_000,
                "max_payload has ten digits, which the protocol does not carry; set less than 1000000000",
            ),
            (
                self.max_payload <= self.max_pending_bytes / 2,
                "max_pending_bytes is less than twice max_payload: one message could cut its receiver off; raise it",
            ),
            (
                self.max_control_line >= 512,
                "max_control_line is below 512 bytes, too little for a client's CONNECT; raise it",
            ),
            (self.max_connections > 0, "max_connections is 0: nobody could connect; set at least 1"),
            (!self.ping_interval.is_zero(), "ping_interval is 0; set at least a second"),
            (!self.auth_timeout.is_zero(), "auth_timeout is 0: nobody could log in; set at least a second"),
            (
                !self.write_deadline.is_zero(),
                "write_deadline is 0: nothing could be written; set at least a second",
            ),
            (
                !self.credentials.any_empty(),
                "the token, the user or the password is empty; set it, or use Credentials::None on purpose",
            ),
        ];
        let of_streams = self.streams.iter().flat_map(StreamsConfig::rules);
        match rules.into_iter().chain(of_streams).find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(BindError::Setting(rule)),
            None => Ok(()),
        }
    }
}

impl StreamsConfig {
    fn rules(&self) -> [(bool, &'static str); 5] {
        let bytes = match &self.storage {
            Storage::Memory => u64::MAX,
            Storage::Disk(disk) => disk.max_bytes,
        };
        [
            (bytes > 0, "max_bytes of the store is 0: nothing could be stored; set at least some megabytes"),
            (
                self.max_streams > 0,
                "max_streams is 0: no stream could be made; set at least 1, or no streams",
            ),
            (
                self.max_memory > 0,
                "max_memory of the streams is 0: nothing could be stored; set at least some megabytes",
            ),
            (self.max_queued > 0, "max_queued is 0: nothing could be stored; set at least 1"),
            (self.max_queued_bytes > 0, "max_queued_bytes is 0: nothing could be stored; set at least 1"),
        ]
    }
}

/// The credentials that a client has to present in CONNECT.
///
/// Their `Debug` names the kind and never the secret:
///
/// ```
/// use embedded_bus::Credentials;
///
/// assert_eq!(format!("{:?}", Credentials::Token("secret".to_owned())), "Token(***)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing.
    None,
    /// This `auth_token`.
    Token(String),
    /// This `user` with this `pass`.
    UserPassword {
        /// The user's name.
        user: String,
        /// The user's password.
        password: String,
    },
}

impl Credentials {
    /// Whether a client has to present credentials.
    pub(crate) fn required(&self) -> bool {
        !matches!(self, Self::None)
    }

    fn any_empty(&self) -> bool {
        match self {
            Self::None => false,
            Self::Token(token) => token.is_empty(),
            Self::UserPassword { user, password } => user.is_empty() || password.is_empty(),
        }
    }

    /// Whether a client's credentials are right. Absent and empty ones are wrong.
    pub(crate) fn accept(&self, token: Option<&str>, user: Option<&str>, password: Option<&str>) -> bool {
        match self {
            Self::None => true,
            Self::Token(expected) => same(expected, token.unwrap_or_default()),
            Self::UserPassword { user: expected_user, password: expected_password } => {
                // Both are always compared, so that the time does not tell a wrong user from a wrong
                // password.
                same(expected_user, user.unwrap_or_default())
                    & same(expected_password, password.unwrap_or_default())
            }
        }
    }
}

/// Names the kind of credentials, never the secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "None",
            Self::Token(_) => "Token(***)",
            Self::UserPassword { .. } => "UserPassword(***)",
        })
    }
}

/// Compares in a time that depends on the length of `expected` only.
fn same(expected: &str, given: &str) -> bool {
    let (expected, given) = (expected.as_bytes(), given.as_bytes());
    let mut difference = u8::from(expected.len() != given.len());
    for (index, byte) in expected.iter().enumerate() {
        difference |= byte ^ given.get(index).copied().unwrap_or(!byte);
    }
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let token = Credentials::Token("hunter2".to_owned());
        let password = Credentials::UserPassword { user: "alice".to_owned(), password: "hunter2".to_owned() };
        let config = Config { credentials: password.clone(), ..Config::default() };
        for text in [format!("{token:?}"), format!("{password:?}"), format!("{config:#?}")] {
            assert!(!text.contains("hunter2") && !text.contains("alice"), "{text}");
        }
    }

    #[test]
    fn only_the_whole_secret_is_accepted() {
        let token = Credentials::Token("hunter2".to_owned());
        assert!(token.accept(Some("hunter2"), None, None));
        for wrong in [None, Some(""), Some("hunter"), Some("hunter22"), Some("Hunter2")] {
            assert!(!token.accept(wrong, None, None), "{wrong:?}");
        }
        assert!(!token.accept(None, Some("hunter2"), Some("hunter2")));

        let both = Credentials::UserPassword { user: "alice".to_owned(), password: "hunter2".to_owned() };
        assert!(both.accept(None, Some("alice"), Some("hunter2")));
        assert!(!both.accept(None, Some("alice"), Some("hunter")));
        assert!(!both.accept(None, Some("bob"), Some("hunter2")));
        assert!(!both.accept(None, Some("alice"), None));
        assert!(!both.accept(Some("hunter2"), None, None));
        assert!(Credentials::None.accept(Some("anything"), None, None));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_with_what_to_do() {
        let broken = [
            (Config { max_payload: 0, ..Config::default() }, "max_payload"),
            (Config { max_pending_bytes: 1 << 20, ..Config::default() }, "max_pending_bytes"),
            (Config { max_control_line: 10, ..Config::default() }, "max_control_line"),
            (Config { max_connections: 0, ..Config::default() }, "max_connections"),
            (Config { ping_interval: Duration::ZERO, ..Config::default() }, "ping_interval"),
            (Config { credentials: Credentials::Token(String::new()), ..Config::default() }, "token"),
        ];
        for (config, word) in broken {
            let error = config.check().expect_err(word).to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(Config::default().check().is_ok());
    }
}
