//! The connection to the Redis that several edges share.
//!
//! One connection, on which calls of all threads go out as they come; it is made when it is first needed, and again
//! after it broke. Its work is done on the runtime that was given, whoever calls. While Redis is away a call fails
//! at once: a new connection is tried at most every 100 ms. A `rediss` address is spoken to over TLS: the server's
//! certificate must carry the host of the address and come from `redis.ca`; the files are read for each connection,
//! so new ones count from the next connection on.
//!
//! LIMIT: [`CONNECT_WITHIN`], [`ANSWER_WITHIN`] a call.

use std::sync::Mutex as Guarded;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, FromRedisValue, Pipeline, TlsCertificates};
use sluice_schema::RedisUrl;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

/// For a connection to stand.
pub const CONNECT_WITHIN: Duration = Duration::from_millis(500);
/// For an answer.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// Between two tries to connect.
const AGAIN: Duration = Duration::from_millis(100);

/// Numbers connections of this process.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// Why a call came to nothing. After [`RedisError::Failed`] nobody knows whether it was executed.
#[derive(Debug, Error)]
pub enum RedisError {
    /// The address is none that the client understands.
    #[error("the address of Redis cannot be used")]
    Address(#[source] redis::RedisError),
    /// There is no connection: nothing was sent.
    #[error("Redis is not reached: {0}")]
    Away(Arc<str>),
    /// The call failed or was not answered in time.
    #[error("Redis did not do what it was asked")]
    Failed(#[source] redis::RedisError),
}

/// A Redis.
#[derive(Debug)]
pub struct Redis {
    url: RedisUrl,
    handle: Handle,
    place: Mutex<Option<Connection>>,
    failed: Guarded<Option<(Instant, Arc<str>)>>,
    well: AtomicBool,
}

#[derive(Clone)]
struct Connection {
    number: u64,
    connection: MultiplexedConnection,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Redis {
    /// A Redis that is not connected to yet.
    ///
    /// # Errors
    /// [`RedisError::Address`].
    pub fn new(url: &RedisUrl, handle: Handle) -> Result<Self, RedisError> {
        Client::open(url.expose()).map_err(RedisError::Address)?;
        let (place, failed) = (Mutex::default(), Guarded::default());
        Ok(Self { url: url.clone(), handle, place, failed, well: AtomicBool::new(true) })
    }

    /// Its address.
    pub const fn url(&self) -> &RedisUrl {
        &self.url
    }

    /// The runtime that its work is done on.
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Whether it answered when it was last asked.
    pub fn is_well(&self) -> bool {
        self.well.load(Ordering::Relaxed)
    }

    /// Makes one call. To be awaited on the runtime that was given.
    ///
    /// # Errors
    /// [`RedisError::Away`], [`RedisError::Failed`].
    pub async fn call<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        self.call_within(command, ANSWER_WITHIN).await
    }

    /// The same, where the answer has another time.
    ///
    /// # Errors
    /// [`RedisError::Away`], [`RedisError::Failed`].
    pub async fn call_within<T: FromRedisValue>(
        &self,
        command: &Cmd,
        within: Duration,
    ) -> Result<T, RedisError> {
        let asked = async |mut connection| command.query_async(&mut connection).await;
        self.ask(asked, within).await
    }

    /// Makes several calls at once, which are answered in order and within this time altogether.
    ///
    /// # Errors
    /// [`RedisError::Away`], [`RedisError::Failed`].
    pub async fn call_all<T: FromRedisValue>(
        &self,
        pipeline: &Pipeline,
        within: Duration,
    ) -> Result<T, RedisError> {
        let asked = async |mut connection| pipeline.query_async(&mut connection).await;
        self.ask(asked, within).await
    }

    async fn ask<T>(
        &self,
        asked: impl AsyncFnOnce(MultiplexedConnection) -> redis::RedisResult<T>,
        within: Duration,
    ) -> Result<T, RedisError> {
        let called = self.try_ask(asked, within).await;
        self.well.store(called.is_ok(), Ordering::Relaxed);
        called
    }

    async fn try_ask<T>(
        &self,
        asked: impl AsyncFnOnce(MultiplexedConnection) -> redis::RedisResult<T>,
        within: Duration,
    ) -> Result<T, RedisError> {
        let Connection { number, connection } = self.connection().await?;
        match tokio::time::timeout(within, asked(connection)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                if error.is_io_error() || error.is_unrecoverable_error() {
                    self.forget(number).await;
                }
                Err(RedisError::Failed(error))
            }
            Err(_) => {
                // What is answered late must not be taken for the answer to another call.
                self.forget(number).await;
                Err(RedisError::Failed(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
            }
        }
    }

    async fn connection(&self) -> Result<Connection, RedisError> {
        let mut place = self.place.lock().await;
        if let Some(connection) = &*place {
            return Ok(connection.clone());
        }
        if let Some(why) = self.failed_just_now() {
            return Err(RedisError::Away(why));
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_WITHIN))
            .set_response_timeout(None);
        let connecting = async {
            let client = self.client().await?;
            client.get_multiplexed_async_connection_with_config(&config).await
        };
        let connection = match tokio::time::timeout(CONNECT_WITHIN, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(self.away(&error.to_string())),
            Err(_) => return Err(self.away("there was no connection in time")),
        };
        let connection = Connection { number: NUMBERS.fetch_add(1, Ordering::Relaxed), connection };
        *place = Some(connection.clone());
        Ok(connection)
    }

    /// What connects, with the files as they are now.
    async fn client(&self) -> redis::RedisResult<Client> {
        let url = self.url.clone();
        if !url.is_secure() {
            return Client::open(url.expose());
        }
        let opened = self.handle.spawn_blocking(move || {
            let pem = url.tls().read()?;
            let client_tls =
                pem.client_cert.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
            Client::build_with_tls(url.expose(), TlsCertificates { client_tls, root_cert: pem.ca })
        });
        opened.await.map_err(std::io::Error::other)?
    }

    fn away(&self, why: &str) -> RedisError {
        let why: Arc<str> = why.into();
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), Arc::clone(&why)));
        RedisError::Away(why)
    }

    /// Why there was no connection a moment ago.
    fn failed_just_now(&self) -> Option<Arc<str>> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.as_ref().filter(|(at, _)| at.elapsed() < AGAIN).map(|(_, why)| Arc::clone(why))
    }

    async fn forget(&self, number: u64) {
        let mut place = self.place.lock().await;
        place.take_if(|connection| connection.number == number);
    }
}
