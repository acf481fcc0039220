//! The bound of written data that the system holds for a connection whose other end has not taken it yet.

use socket2::SockRef;
use tokio::net::TcpListener;

/// The size of a send buffer in bytes; Linux adds as much for itself. Without a bound the buffer grows to
/// megabytes of memory that nobody counts.
const SEND_BUFFER: usize = 128 << 10;

/// Bounds the send buffer of each connection of this listener.
///
/// # Errors
/// The system refuses.
pub fn bound_send_buffers(listener: &TcpListener) -> std::io::Result<()> {
    // Accepted connections inherit the size.
    SockRef::from(listener).set_send_buffer_size(SEND_BUFFER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn the_system_holds_a_bounded_part_of_what_a_client_does_not_take() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        bound_send_buffers(&listener).unwrap();
        let (client, server) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (_client, (server, _)) = (client.unwrap(), server.unwrap());
        // Linux says what it uses, its own part included.
        let bytes = SockRef::from(&server).send_buffer_size().unwrap();
        assert!((SEND_BUFFER..=2 * SEND_BUFFER).contains(&bytes), "{bytes}");
    }
}
