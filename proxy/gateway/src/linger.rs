//! Closing a connection whose client may still be sending: its write side ends, its input is discarded
//! for a moment. Closing at once would reset it, and the reset overtakes the answer in the client's kernel.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::caps::ConnectionPermit;
use crate::socket::Socket;

/// LIMIT: how long, and how much is discarded.
const TIME: Duration = Duration::from_secs(1);
const BYTES: usize = 1 << 20;

/// Sends `unsent`, closes the write side and discards input. The connection still counts meanwhile.
pub(crate) async fn linger(mut socket: Socket, unsent: Vec<u8>, permit: Option<ConnectionPermit>) {
    let discard = async {
        socket.write_all(&unsent).await?;
        socket.shutdown().await?;
        let mut sink = [0; 4096];
        let mut left = BYTES;
        while left > 0 {
            match socket.read(&mut sink).await? {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        io::Result::Ok(())
    };
    // Whatever goes wrong, the connection ends here.
    drop(tokio::time::timeout(TIME, discard).await);
    drop(permit);
}
