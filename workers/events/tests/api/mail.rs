//! A small mail server: takes what it is sent, or answers as it is told to.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

/// A mail as it came.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) text: String,
    pub(crate) secure: bool,
}

/// How the server speaks TLS.
#[derive(Clone, Default)]
pub(crate) struct Secure {
    pub(crate) acceptor: Option<TlsAcceptor>,
    /// From the start, not by STARTTLS.
    pub(crate) at_once: bool,
}

#[derive(Clone)]
struct Server {
    secure: Secure,
    answers: Arc<Mutex<VecDeque<&'static str>>>,
    mails: mpsc::Sender<Mail>,
}

/// Starts a server; `answers` are given to the first receivers named, then each is welcome.
pub(crate) async fn serve(secure: Secure, answers: &[&'static str]) -> (SocketAddr, mpsc::Receiver<Mail>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (mails, got) = mpsc::channel(100);
    let answers = Arc::new(Mutex::new(answers.iter().copied().collect()));
    let server = Server { secure, answers, mails };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(server.clone().connected(stream));
        }
    });
    (address, got)
}

impl Server {
    async fn connected(self, stream: TcpStream) -> Option<()> {
        let Secure { acceptor, at_once } = self.secure.clone();
        let stream = if at_once { Ok(acceptor.clone()?.accept(stream).await.ok()?) } else { Err(stream) };
        let stream = match stream {
            Ok(secure) => return self.talk(secure, true).await.map(drop),
            Err(plain) => self.talk(plain, false).await?,
        };
        self.talk(acceptor?.accept(stream).await.ok()?, true).await.map(drop)
    }

    /// Talks until the end, or gives the connection back for TLS.
    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, secure: bool) -> Option<S> {
        let offers = self.secure.acceptor.is_some() && !secure;
        let mut stream = BufReader::new(stream);
        stream
            .write_all(if offers || !secure || self.secure.at_once { b"220 mail\r\n" } else { b"" })
            .await
            .ok()?;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let answer = match line.get(..4).unwrap_or_default() {
                "EHLO" if offers => "250-mail\r\n250-STARTTLS\r\n250 8BITMIME",
                "EHLO" => "250-mail\r\n250 8BITMIME",
                "STAR" => {
                    stream.write_all(b"220 go on\r\n").await.ok()?;
                    return Some(stream.into_inner());
                }
                "RCPT" => self.answers.lock().unwrap().pop_front().unwrap_or("250 ok"),
                "DATA" => {
                    stream.write_all(b"354 go on\r\n").await.ok()?;
                    let mut text = String::new();
                    while !text.ends_with("\r\n.\r\n") {
                        stream.read_line(&mut text).await.ok().filter(|read| *read > 0)?;
                    }
                    drop(self.mails.try_send(Mail { text, secure }));
                    "250 taken"
                }
                "QUIT" => "221 bye",
                _ => "250 ok",
            };
            stream.write_all(format!("{answer}\r\n").as_bytes()).await.ok()?;
        }
    }
}
