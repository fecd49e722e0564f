//! One connection to the Redis that holds the stream: found, checked, with bounds in time.

use std::time::Duration;

use redis::{
    Client, ClientTlsConfig, Cmd, Connection, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    RedisError, TlsCertificates, Value,
};
use sluice_schema::{RedisTls, RedisUrl};

use super::script;

/// Port of a server, and of a sentinel, whose address names none.
const SERVER_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;
/// For a connection to stand and to be set up.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// For an answer; what takes longer is given up, and whether it was done is not known.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Answers that say that nothing was executed.
const NOT_DONE: [&str; 16] = [
    "FENCED",
    "OOM",
    "MISCONF",
    "NOSCRIPT",
    "EPOCH",
    "MOVED",
    "ASK",
    "READONLY",
    "LOADING",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "TRYAGAIN",
    "BUSY",
    "NOAUTH",
    "NOREPLICAS",
    "UNKILLABLE",
];
/// Answers after which another server may be the right one.
const ELSEWHERE: [&str; 8] =
    ["MOVED", "ASK", "READONLY", "LOADING", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "NOAUTH"];

/// What went wrong with a call.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// There is no connection: nothing was sent.
    #[error("{0}")]
    Away(String),
    /// The connection broke, or there was no answer in time: whether the call was executed is not known.
    #[error("Redis did not answer: {0}")]
    Lost(String),
    /// Redis answered with an error.
    #[error("Redis refused: {code} {detail}")]
    Answer {
        /// The first word of the answer.
        code: String,
        /// The rest.
        detail: String,
    },
    /// The answer is not of the form expected.
    #[error("Redis answered something else than expected: {0}")]
    Odd(&'static str),
}

impl Trouble {
    /// Whether it is certain that the call was not executed.
    pub(crate) fn is_not_done(&self) -> bool {
        match self {
            Self::Away(_) => true,
            Self::Answer { code, .. } => NOT_DONE.contains(&code.as_str()),
            Self::Lost(_) | Self::Odd(_) => false,
        }
    }

    /// Whether the connection is of no use any longer.
    pub(super) fn breaks_link(&self) -> bool {
        match self {
            Self::Answer { code, .. } => ELSEWHERE.contains(&code.as_str()),
            Self::Away(_) | Self::Lost(_) | Self::Odd(_) => true,
        }
    }

    pub(super) fn is(&self, word: &str) -> bool {
        matches!(self, Self::Answer { code, .. } if code == word)
    }
}

/// Where the stream is.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Servers to be asked, in turn.
    servers: Vec<ConnectionInfo>,
    kind: Kind,
    /// What counts where the address is `rediss`.
    tls: RedisTls,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// The first server.
    Single,
    /// The server that holds the key's slot.
    Cluster { key: String },
    /// The primary that the sentinels name.
    Sentinel { name: String, database: i64 },
}

impl Target {
    /// Reads an address: `redis://…`, `redis+cluster://user:password@host:port,host:port`, or
    /// `redis+sentinel://user:password@host:port,host:port/name/database`; with `rediss` the same over TLS.
    pub(super) fn new(url: &RedisUrl, key: &str) -> Result<Self, String> {
        Self::parse(url.expose(), key, url.tls().clone())
    }

    fn parse(url: &str, key: &str, tls: RedisTls) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("it has no scheme")?;
        let (plain, topology) = scheme.split_once('+').unwrap_or((scheme, ""));
        if !["redis", "rediss"].contains(&plain) {
            return Err("its scheme is not known".to_owned());
        }
        let (places, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user_info, hosts) = match places.rsplit_once('@') {
            Some((user_info, hosts)) => (format!("{user_info}@"), hosts),
            None => (String::new(), places),
        };
        let kind = match topology {
            "" => {
                let server = info(url)?;
                return Ok(Self { servers: vec![server], kind: Kind::Single, tls });
            }
            "cluster" => Kind::Cluster { key: key.to_owned() },
            "sentinel" => {
                let (name, database) = path.split_once('/').unwrap_or((path, "0"));
                let database = database.parse().map_err(|_| "the database is not a number")?;
                Kind::Sentinel { name: name.to_owned(), database }
            }
            _ => return Err("its scheme is not known".to_owned()),
        };
        let port = if topology == "sentinel" { SENTINEL_PORT } else { SERVER_PORT };
        let servers = hosts.split(',').map(|host| {
            // Behind the bracket that ends an IPv6 address, a colon means a port.
            let has_port = host.rsplit(']').next().is_some_and(|rest| rest.contains(':'));
            let host = if has_port { host.to_owned() } else { format!("{host}:{port}") };
            info(&format!("{plain}://{user_info}{host}"))
        });
        Ok(Self { servers: servers.collect::<Result<_, _>>()?, kind, tls })
    }

    /// Connects to the server that takes writes of the stream.
    fn connect(&self) -> Result<Connection, Trouble> {
        let mut last = Trouble::Away("no address".to_owned());
        for server in &self.servers {
            let found = match &self.kind {
                Kind::Single => Ok(server.clone()),
                Kind::Cluster { key } => self.slot_owner(server, key),
                Kind::Sentinel { name, database } => self.named(server, name, *database),
            };
            let found = found.and_then(|server| self.open(server));
            match found {
                Ok(connection) => return Ok(connection),
                Err(trouble) => last = trouble,
            }
        }
        Err(last)
    }

    fn open(&self, info: ConnectionInfo) -> Result<Connection, Trouble> {
        let client = client(info, &self.tls).map_err(|error| away(&error))?;
        let connection = client.get_connection_with_timeout(CONNECT_WITHIN).map_err(|error| away(&error))?;
        connection.set_read_timeout(Some(ANSWER_WITHIN)).map_err(|error| away(&error))?;
        connection.set_write_timeout(Some(ANSWER_WITHIN)).map_err(|error| away(&error))?;
        Ok(connection)
    }

    fn slot_owner(&self, server: &ConnectionInfo, key: &str) -> Result<ConnectionInfo, Trouble> {
        let mut link = Link { connection: self.open(server.clone())? };
        let slot: i64 = link.ask(redis::cmd("CLUSTER").arg("KEYSLOT").arg(key))?;
        let Value::Array(ranges) = link.call(redis::cmd("CLUSTER").arg("SLOTS"))? else {
            return Err(Trouble::Odd("CLUSTER SLOTS"));
        };
        for range in ranges {
            let Value::Array(parts) = range else { continue };
            let [Value::Int(first), Value::Int(last), Value::Array(owner), ..] = parts.as_slice() else {
                continue;
            };
            if !(*first..=*last).contains(&slot) {
                continue;
            }
            let [host, Value::Int(port), ..] = owner.as_slice() else { continue };
            let host = script::text(host).unwrap_or_default();
            let port = u16::try_from(*port).map_err(|_| Trouble::Odd("the port of a cluster node"))?;
            return Ok(at(server, &host, port));
        }
        Err(Trouble::Away("no server of the cluster holds the stream's slot".to_owned()))
    }

    fn named(&self, server: &ConnectionInfo, name: &str, database: i64) -> Result<ConnectionInfo, Trouble> {
        // A sentinel is asked without the password of what it watches, as it is by default.
        let plain = server.clone().set_redis_settings(redis::RedisConnectionInfo::default());
        let mut link = Link { connection: self.open(plain)? };
        let command = &mut redis::cmd("SENTINEL");
        let answer: Option<(String, u16)> = link.ask(command.arg("GET-MASTER-ADDR-BY-NAME").arg(name))?;
        let (host, port) =
            answer.ok_or_else(|| Trouble::Away("the sentinel does not know this name".to_owned()))?;
        let settings = server.redis_settings().clone().set_db(database);
        Ok(at(server, &host, port).set_redis_settings(settings))
    }
}

fn info(url: &str) -> Result<ConnectionInfo, String> {
    let info = url.into_connection_info().map_err(|error| error.category().to_owned())?;
    let settings = info.tcp_settings().clone().set_nodelay(true);
    Ok(info.set_tcp_settings(settings))
}

/// What connects; the files are read each time, so that new ones count from the next connection on.
fn client(info: ConnectionInfo, tls: &RedisTls) -> redis::RedisResult<Client> {
    if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
        return Client::open(info);
    }
    let pem = tls.read()?;
    let client_tls =
        pem.client_cert.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
    Client::build_with_tls(info, TlsCertificates { client_tls, root_cert: pem.ca })
}

fn away(error: &RedisError) -> Trouble {
    Trouble::Away(format!("Redis is not reached: {error}"))
}

/// The same way to another server.
fn at(server: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let own = match server.addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.as_str(),
        _ => "",
    };
    // A cluster node that does not know its own name means itself.
    let host = if host.is_empty() || host == "?" { own } else { host };
    let host = host.to_owned();
    let addr = match server.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    server.clone().set_addr(addr)
}

/// A connection; it is dropped after a [`Trouble`] that breaks it.
pub(super) struct Link {
    connection: Connection,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

impl Link {
    /// Connects, and makes sure that this server takes writes.
    pub(super) fn open(target: &Target) -> Result<Self, Trouble> {
        let mut link = Self { connection: target.connect()? };
        let Value::Array(role) = link.call(&redis::cmd("ROLE"))? else { return Err(Trouble::Odd("ROLE")) };
        if role.first().and_then(script::text).as_deref() != Some("master") {
            return Err(Trouble::Away("this server is a replica".to_owned()));
        }
        Ok(link)
    }

    /// Bounds the time for each further answer.
    pub(super) fn answering_within(self, limit: Duration) -> Result<Self, Trouble> {
        self.connection.set_read_timeout(Some(limit)).map_err(|error| away(&error))?;
        Ok(self)
    }

    /// Makes a call.
    pub(super) fn call(&mut self, command: &Cmd) -> Result<Value, Trouble> {
        self.send(&command.get_packed_command())?;
        self.receive()
    }

    /// Makes a call whose answer has a form.
    pub(super) fn ask<T: redis::FromRedisValue>(&mut self, command: &Cmd) -> Result<T, Trouble> {
        redis::from_redis_value(self.call(command)?).map_err(|_| Trouble::Odd("another type"))
    }

    /// Sends a call whose answer is received later.
    pub(super) fn send(&mut self, packed: &[u8]) -> Result<(), Trouble> {
        self.connection.send_packed_command(packed).map_err(|error| Trouble::Lost(error.to_string()))
    }

    /// The answer to the oldest call that was not answered yet.
    pub(super) fn receive(&mut self) -> Result<Value, Trouble> {
        match self.connection.recv_response().and_then(Value::extract_error) {
            Ok(value) => Ok(value),
            Err(error) => Err(match error.code() {
                Some(code) if !error.is_io_error() => Trouble::Answer {
                    code: code.to_owned(),
                    detail: error.detail().unwrap_or_default().to_owned(),
                },
                _ => Trouble::Lost(error.to_string()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Target, String> {
        Target::parse(url, "s", RedisTls::default())
    }

    #[test]
    fn addresses_of_one_many_and_named_servers_are_read() {
        assert_eq!(parse("redis://:p@h:1/2").unwrap().kind, Kind::Single);
        let cluster = parse("redis+cluster://u:p@a:1,b:2").unwrap();
        assert_eq!((cluster.servers.len(), cluster.kind), (2, Kind::Cluster { key: "s".to_owned() }));
        assert_eq!(cluster.servers[1].redis_settings().password(), Some("p"));
        let sentinel = parse("redis+sentinel://a:26379,b/main/3").unwrap();
        let ports = |target: &Target| -> Vec<String> {
            target.servers.iter().map(|server| server.addr().to_string()).collect()
        };
        assert_eq!(ports(&sentinel), ["a:26379", "b:26379"]);
        assert_eq!(ports(&parse("redis+cluster://[::1],[::1]:7").unwrap()).len(), 2);
        assert_eq!(sentinel.kind, Kind::Sentinel { name: "main".to_owned(), database: 3 });
        let secure = parse("rediss+cluster://a:1,b:2").unwrap();
        assert!(matches!(
            at(&secure.servers[0], "c", 3).addr(),
            ConnectionAddr::TcpTls { insecure: false, .. }
        ));
        for bad in ["h:1", "http://h", "redis+sentinel://a/main/x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_surely_not_done_is_told_from_what_may_have_been() {
        let answer = |code: &str| Trouble::Answer { code: code.to_owned(), detail: String::new() };
        assert!(answer("OOM").is_not_done() && !answer("OOM").breaks_link());
        assert!(answer("MOVED").is_not_done() && answer("MOVED").breaks_link());
        assert!(!answer("ERR").is_not_done());
        assert!(!Trouble::Lost(String::new()).is_not_done());
    }
}
