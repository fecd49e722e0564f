//! The supervisor's own socket: one JSON line asks, lines answer until it is done.
//!
//! Only this user's processes get in: the socket lies in a private folder with mode 0600, and the peer's uid
//! must be ours. LIMIT: [`CLIENTS_MAX`] at a time, [`LINE_BYTES`] and [`LINE_WITHIN`] for the question.

use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_wire::role::Role;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::report::Report;

/// Clients that may ask at a time.
const CLIENTS_MAX: usize = 8;
/// Longest question.
const LINE_BYTES: u64 = 4 << 10;
/// Longest time for it.
const LINE_WITHIN: Duration = Duration::from_secs(5);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Ask {
    /// The binary that now lies at the program's path, for one role or for everything.
    Upgrade {
        /// The role; absent: the supervisor and every role.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        role: Option<Role>,
    },
    /// The configuration as its files are now.
    Reload,
}

/// A question and whoever asks it.
pub(crate) struct Request {
    pub(crate) ask: Ask,
    pub(crate) report: Report,
}

/// Takes questions for ever.
pub(crate) async fn listen(door: StdListener, requests: mpsc::Sender<Request>) {
    let listener = match door.set_nonblocking(true).and_then(|()| UnixListener::from_std(door)) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(component = "supervisor", %error, "its socket cannot be used");
            return;
        }
    };
    let room = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let requests = requests.clone();
                tokio::spawn(async move {
                    take(stream, requests).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(component = "supervisor", %error, "accept failed");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn take(stream: UnixStream, requests: mpsc::Sender<Request>) {
    let own = rustix::process::getuid().as_raw();
    if stream.peer_cred().map_or(true, |peer| peer.uid() != own) {
        tracing::warn!(component = "supervisor", "another user asked and was refused");
        return;
    }
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    let read = timeout(LINE_WITHIN, (&mut reader).take(LINE_BYTES).read_line(&mut line)).await;
    let Ok(Ok(1..)) = read else { return };
    let Ok(Ok(report)) = reader.into_inner().into_std().map(Report::to) else { return };
    match serde_json::from_str(&line) {
        Ok(ask) => drop(requests.send(Request { ask, report }).await),
        Err(error) => report.close(Err(format!("this is no question: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Write as _};

    use crate::up::report::Line;

    fn ask(path: &std::path::Path, line: &[u8]) -> Option<Line> {
        let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
        stream.write_all(line).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).ok()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn questions_are_taken_and_nonsense_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let (send, mut requests) = mpsc::channel(4);
        let serving = tokio::spawn(listen(StdListener::bind(&path).unwrap(), send));
        let answering = tokio::spawn(async move {
            let mut asked = Vec::new();
            while asked.len() < 2 {
                let request = requests.recv().await.unwrap();
                asked.push(request.ask);
                request.report.close(Ok("so be it".to_owned()));
            }
            asked
        });
        let answers = tokio::task::spawn_blocking(move || {
            let long = [b"{\"do\":\"".to_vec(), vec![b'x'; 10_000]].concat();
            [
                ask(&path, b"{\"do\":\"upgrade\",\"role\":\"edge\"}\n"),
                ask(&path, b"{\"do\":\"upgrade\"}\n"),
                ask(&path, b"{\"do\":\"rm -rf\"}\n"),
                ask(&path, b"{\"do\":\"upgrade\",\"rolle\":\"edge\"}\n"),
                ask(&path, &long),
            ]
        });
        let [one, all, nonsense, typo, long] = answers.await.unwrap();
        assert_eq!((one, all), (Some(Line::Done("so be it".into())), Some(Line::Done("so be it".into()))));
        assert!(matches!(nonsense, Some(Line::Failed(_))) && matches!(typo, Some(Line::Failed(_))));
        assert!(matches!(long, Some(Line::Failed(_))), "{long:?}");
        let asked = answering.await.unwrap();
        assert_eq!(asked, [Ask::Upgrade { role: Some(Role::Edge) }, Ask::Upgrade { role: None }]);
        serving.abort();
    }
}
