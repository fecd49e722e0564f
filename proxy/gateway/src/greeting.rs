//! The PROXY protocol on an accepted socket: read to its last byte and not one further.

use std::time::Duration;

use sluice_policy::proxy_protocol::{Origin, Step, read};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// LIMIT: for a balancer to send its header, whatever `header_timeout` allows.
const GREETING_MAX: Duration = Duration::from_secs(5);

/// Whose connection a trusted proxy passes on; the error is a fixed word for metrics.
pub(crate) async fn origin(socket: &mut TcpStream, deadline: Instant) -> Result<Origin, &'static str> {
    let deadline = deadline.min(Instant::now() + GREETING_MAX);
    let reading = async {
        let mut bytes = Vec::with_capacity(108);
        loop {
            match read(&bytes).map_err(|_| "proxy_header")? {
                Step::Done(origin) => return Ok(origin),
                Step::Need(count) => {
                    let from = bytes.len();
                    bytes.resize(from + count, 0);
                    socket.read_exact(&mut bytes[from..]).await.map_err(|_| "proxy_header_cut")?;
                }
            }
        }
    };
    tokio::time::timeout_at(deadline, reading).await.unwrap_or(Err("proxy_header_timeout"))
}
