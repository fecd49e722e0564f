//! Closing a connection whose client may still be sending: its write side ends, its input is discarded
//! for a moment. Closing at once would reset it, and the reset overtakes the answer in the client's kernel.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::caps::ConnectionPermit;
use crate::socket::Socket;

/// LIMIT: how much is discarded.
const BYTES: usize = 1 << 20;

/// LIMIT: how long a client may stay, and how long without sending anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    time: Duration,
    silence: Duration,
}

impl Patience {
    /// With a client that was refused.
    pub(crate) const SHORT: Self = Self { time: Duration::from_secs(1), silence: Duration::from_secs(1) };
    /// With one that has answers of HTTP/2 to take: megabytes may wait in the kernel for a slow line, the client goes
    /// on sending window updates and answers to pings, and each of them resets a connection that is closed.
    pub(crate) const LONG: Self = Self { time: Duration::from_secs(30), silence: Duration::from_secs(5) };
}

/// Sends `unsent`, closes the write side and discards input. The connection still counts meanwhile.
pub(crate) async fn linger(
    mut socket: Socket,
    unsent: Vec<u8>,
    permit: Option<ConnectionPermit>,
    patience: Patience,
) {
    let discard = async {
        socket.write_all(&unsent).await?;
        socket.shutdown().await?;
        let mut sink = [0; 4096];
        let mut left = BYTES;
        while left > 0 {
            match tokio::time::timeout(patience.silence, socket.read(&mut sink)).await?? {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        io::Result::Ok(())
    };
    // Whatever goes wrong, the connection ends here.
    drop(tokio::time::timeout(patience.time, discard).await);
    drop(permit);
}
