//! Socket addresses, networks, instance addresses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use crate::code::Code;
use crate::kind::{Text, Wrong};
use crate::model::{InstanceUrl, RedisUrl, Scheme, UrlError};
use crate::report::quote;

/// The address of a listener.
pub(crate) const ADDRESS: Text<SocketAddr> = Text {
    what: "an address such as \"127.0.0.1:8000\"",
    code: Code::Address,
    parse: parse_address,
    show: ToString::to_string,
    pattern: r"^(\[[0-9A-Fa-f:.]+\]|[0-9.]+|localhost):[0-9]{1,5}$",
};

/// A network, or one address.
pub(crate) const NETWORK: Text<IpNet> = Text {
    what: "a network such as \"10.0.0.0/8\"",
    code: Code::Network,
    parse: parse_network,
    show: ToString::to_string,
    pattern: r"^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$",
};

/// The address of an instance.
pub(crate) const URL: Text<InstanceUrl> = Text {
    what: "an address such as \"http://127.0.0.1:8001\"",
    code: Code::Url,
    parse: parse_url,
    show: ToString::to_string,
    pattern: r"^(([Hh][Tt][Tt][Pp][Ss]?|[Hh]2[Cc])://[^/?#@\s]+/?|[Uu][Nn][Ii][Xx]:/[^/].{0,98})$",
};

/// The address of an OTLP receiver.
pub(crate) const COLLECTOR: Text<String> = Text {
    what: "an address such as \"http://127.0.0.1:4318\"",
    code: Code::Url,
    parse: parse_collector,
    show: Clone::clone,
    pattern: r"^https?://[^/?#@\s]+/?$",
};

/// The address of an external vault.
pub(crate) const VAULT_URL: Text<InstanceUrl> = Text {
    what: "an address such as \"https://vault.example.com:8200\"",
    code: Code::Url,
    parse: parse_vault,
    show: ToString::to_string,
    pattern: r"^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@\s]+/?$",
};

/// The address of an event worker, or of an edge before it.
pub(crate) const EVENTS_URL: Text<InstanceUrl> = Text {
    what: "an address such as \"http://10.0.0.5:8011\"",
    code: Code::Url,
    parse: parse_events,
    show: ToString::to_string,
    pattern: r"^[Hh][Tt][Tt][Pp]://[^/?#@\s]+/?$",
};

/// LIMIT: servers named in the address of a cluster or of sentinels.
const REDIS_SERVERS_MAX: usize = 16;

/// The address of a Redis.
pub(crate) const REDIS_URL: Text<RedisUrl> = Text {
    what: "an address such as \"redis://127.0.0.1:6379\"",
    code: Code::Url,
    parse: parse_redis,
    show: ToString::to_string,
    pattern: r"^rediss?(\+cluster|\+sentinel)?://([^/?#@\s]*@)?[^/?#@\s]+(/[A-Za-z0-9._-]+){0,2}$",
};

/// Never quotes the text: it may hold a password.
fn parse_redis(text: &str) -> Result<RedisUrl, Wrong> {
    let wrong = |why: &str| {
        Wrong::new(why).help(
            "write it as \"redis://host:port\", \"redis+cluster://host:port,host:port\" or \
             \"redis+sentinel://host:port,host:port/name\" (rediss for TLS), with user and password before an @ \
             where needed",
        )
    };
    let none = || wrong("this is not the address of a Redis");
    let (scheme, rest) = text.split_once("://").ok_or_else(none)?;
    let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user_info, hosts) = place.rsplit_once('@').unwrap_or(("", place));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() <= 5;
    let (servers_max, path_fits) = match scheme.strip_prefix("rediss").or(scheme.strip_prefix("redis")) {
        Some("") => (1, is_number(path)),
        Some("+cluster") => (REDIS_SERVERS_MAX, path.is_empty()),
        Some("+sentinel") => {
            let (name, database) = path.split_once('/').unwrap_or((path, ""));
            (REDIS_SERVERS_MAX, is_name(name) && is_number(database))
        }
        _ => return Err(none()),
    };
    let odd = |c: char| c.is_whitespace() || c.is_control() || "/?#@".contains(c);
    // The rules of an instance's host and port hold here too.
    let is_server = |host: &str| format!("http://{host}").parse::<InstanceUrl>().is_ok();
    let servers_fit = hosts.split(',').count() <= servers_max && hosts.split(',').all(is_server);
    if user_info.contains(odd) || !servers_fit || !path_fits {
        return Err(none());
    }
    Ok(RedisUrl::new(text.to_owned()))
}

/// What sentinels call a primary.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn parse_address(text: &str) -> Result<SocketAddr, Wrong> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    let wrong = Wrong::new(format!("{} is not an address", quote(text)));
    Err(if text == "localhost" || text.parse::<IpAddr>().is_ok() {
        wrong.help("add the port: \"127.0.0.1:8000\", \"[::1]:8000\"")
    } else if let Some(port) = text.strip_prefix(':').and_then(|port| port.parse::<u16>().ok()) {
        wrong.help(format!(
            "write `0.0.0.0:{port}` for every interface, `127.0.0.1:{port}` for this machine alone"
        ))
    } else {
        wrong.help("write an IP address and a port, such as \"127.0.0.1:8000\" or \"[::1]:8000\"")
    })
}

fn parse_network(text: &str) -> Result<IpNet, Wrong> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let network: IpNet = text.parse().map_err(|_| {
        Wrong::new(format!("{} is not a network", quote(text)))
            .help("write an address, or an address and a prefix length, such as \"10.0.0.0/8\"")
    })?;
    if network.trunc() == network {
        return Ok(network);
    }
    Err(Wrong::new(format!("{} has bits set past its prefix length", quote(text))).help(format!(
        "write `{}` for the network, `{}` for the one address",
        network.trunc(),
        network.addr()
    )))
}

/// Never quotes the text: it may hold a password.
fn parse_collector(text: &str) -> Result<String, Wrong> {
    let url =
        text.parse::<InstanceUrl>().ok().filter(|url| matches!(url.scheme, Scheme::Http | Scheme::Https));
    url.map(|url| url.to_string()).ok_or_else(|| {
        Wrong::new("this is not the address of a receiver").help(
            "write its scheme, host and port alone, such as \"http://127.0.0.1:4318\"; traces go to `/v1/traces` there",
        )
    })
}

/// Never quotes the text: it may hold a password.
fn parse_vault(text: &str) -> Result<InstanceUrl, Wrong> {
    let url = text.parse::<InstanceUrl>().ok();
    url.filter(|url| matches!(url.scheme, Scheme::Http | Scheme::Https)).ok_or_else(|| {
        Wrong::new("this is not the address of a vault").help(
            "write its scheme, host and port alone, such as \"https://vault.example.com:8200\"; `mount` says where \
             the secrets are there",
        )
    })
}

fn parse_events(text: &str) -> Result<InstanceUrl, Wrong> {
    let url = text.parse::<InstanceUrl>().ok();
    url.filter(|url| url.scheme == Scheme::Http).ok_or_else(|| {
        Wrong::new("this is not the address of an event worker").help(
            "write http://, host and port alone, such as \"http://10.0.0.5:8011\"; workers speak no TLS to each other, so \
             keep them on one private network",
        )
    })
}

/// Never quotes the text: it may hold a password.
fn parse_url(text: &str) -> Result<InstanceUrl, Wrong> {
    text.parse().map_err(|error: UrlError| {
        let wrong = Wrong::new(error.to_string());
        match error {
            UrlError::NotBare => {
                wrong.help("the path of a request comes from the client; see `strip_prefix`")
            }
            UrlError::NoScheme => wrong.help("write it as \"http://host:port\""),
            UrlError::BadSocketPath => wrong.help("write it as \"unix:/run/service.sock\""),
            _ => wrong,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_an_ip_and_a_port() {
        assert_eq!(parse_address("localhost:80").expect("localhost").to_string(), "127.0.0.1:80");
        assert_eq!(parse_address("[::1]:80").expect("v6").to_string(), "[::1]:80");
        for bad in ["", "127.0.0.1", ":8000", "host:80", "1.2.3.4:70000", "[::1]"] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_redis_is_shown_without_its_password() {
        for (text, shown) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://cache/2", "redis://cache/2"),
            ("redis://:hunter2@[::1]:7/0", "redis://***@[::1]:7/0"),
            ("redis://user:hunter2@cache", "redis://***@cache"),
            ("rediss://:hunter2@cache:6380", "rediss://***@cache:6380"),
            ("rediss+cluster://a:1", "rediss+cluster://a:1"),
            ("redis+cluster://:hunter2@a:1,[::1]:2", "redis+cluster://***@a:1,[::1]:2"),
            ("redis+sentinel://a,b:26379/main/3", "redis+sentinel://a,b:26379/main/3"),
        ] {
            let url = parse_redis(text).expect(text);
            assert_eq!((url.to_string().as_str(), url.expose()), (shown, text));
            assert!(!format!("{url:?}").contains("hunter2"));
            assert_eq!(url.is_single(), !text.contains('+'), "{text}");
            assert_eq!(url.is_secure(), text.contains("rediss"), "{text}");
        }
        for bad in [
            "",
            "cache:6379",
            "http://cache",
            "redis://",
            "redis://a b",
            "redis://a/x",
            "redis://a:0",
            "redis://a?b",
            "redis://a@b@c",
            "rediss://a,b",
            "rediss+sentinel://a",
            "redisss://a",
            "redis://a,b",
            "redis+cluster://a,,b",
            "redis+cluster://a/1",
            "redis+sentinel://a",
            "redis+sentinel://a/main/x",
            "redis+sentinel://a/main/1/2",
            "redis+tcp://a",
        ] {
            assert!(parse_redis(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_network_has_no_bits_past_its_prefix() {
        assert_eq!(parse_network("10.0.0.1").expect("one address").to_string(), "10.0.0.1/32");
        assert!(parse_network("10.0.0.1/8").is_err());
        assert!(parse_network("10.0.0.0/33").is_err());
        assert!(parse_network("::1/128").is_ok());
    }

    #[test]
    fn an_instance_address_is_scheme_host_port() {
        for (text, shown) in [
            ("http://127.0.0.1:8001", "http://127.0.0.1:8001"),
            ("HTTP://Data-Service:8001/", "http://data-service:8001"),
            ("http://data_service", "http://data_service:80"),
            ("http://[::1]:9", "http://[::1]:9"),
            ("https://data.example.com", "https://data.example.com:443"),
            ("h2c://127.0.0.1:50051", "h2c://127.0.0.1:50051"),
            ("unix:/run/data.sock", "unix:/run/data.sock"),
        ] {
            assert_eq!(parse_url(text).expect(text).to_string(), shown);
        }
        for bad in [
            "",
            "127.0.0.1:8001",
            "localhost:80",
            "ftp://x",
            "h2://x",
            "unix:tmp/x",
            "unix:///tmp/x",
            "unix:/",
            "unix:",
            "unix:/a\nb",
            "http://",
            "http://a/b",
            "http://u:p@h:1",
            "http://h:0",
            "http://h:70000",
            "http://h:",
            "http://1.2.3",
            "http://[::1]x",
            "http://a b",
            "http://h?q",
            "http://h#f",
            "http://-a",
            "http://h:+1",
        ] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }
}
