//! What `sluice up` prints when everything answers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use sluice_wire::role::Role;
use sluice_wire::start::Ready;

/// The banner as one JSON line.
#[derive(Debug, Serialize)]
pub(crate) struct Banner {
    event: &'static str,
    edge: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    edge_tls: Option<String>,
    control: String,
    events: String,
    vault: String,
    calc: String,
    token: Option<String>,
    data_dir: String,
    pids: BTreeMap<Role, u32>,
    demo: BTreeMap<String, String>,
    #[serde(skip)]
    ca_fingerprint: Option<String>,
    #[serde(skip)]
    started_in: Duration,
    #[serde(skip)]
    dev: bool,
    /// The Redis that events are stored in.
    #[serde(skip)]
    redis: Option<String>,
}

impl Banner {
    /// The banner of running roles.
    pub(crate) fn new(
        ready: &BTreeMap<Role, Ready>,
        data_dir: &Path,
        token: Option<String>,
        ca_fingerprint: Option<String>,
        started_in: Duration,
        dev: bool,
    ) -> Self {
        let url = |role: Role, name: &str| {
            let address = ready.get(&role).and_then(|ready| ready.listeners.get(name));
            address.map_or_else(String::new, |address| url_of(address))
        };
        let tls = ready.get(&Role::Edge).and_then(|ready| ready.listeners.get("tls"));
        let tls = tls.map(|address| format!("https://{}", reachable(address)));
        let demo = ready.get(&Role::Demo).map(|ready| ready.listeners.clone()).unwrap_or_default();
        Self {
            event: "ready",
            edge: url(Role::Edge, "http"),
            edge_tls: tls,
            control: url(Role::Edge, "control"),
            events: url(Role::Events, "api"),
            vault: url(Role::Vault, "api"),
            calc: url(Role::Calc, "api"),
            token,
            data_dir: data_dir.display().to_string(),
            pids: ready.iter().map(|(role, ready)| (*role, ready.pid)).collect(),
            demo: demo.into_iter().map(|(name, address)| (name, url_of(&address))).collect(),
            ca_fingerprint,
            started_in,
            dev,
            redis: None,
        }
    }

    /// Says in which Redis events are stored; its address shows no password. Without one they are in the data
    /// directory.
    pub(crate) fn stored_in(mut self, redis: Option<String>) -> Self {
        self.redis = redis;
        self
    }

    /// One JSON line.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers always serialize")
    }

    /// Text for people.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing to a string does not fail");
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let mode = if self.dev { "development" } else { "production" };
        writeln!(
            out,
            "\nSluice {} · {mode} · ready in {} ms\n",
            env!("CARGO_PKG_VERSION"),
            self.started_in.as_millis()
        )?;
        writeln!(out, "  {:<12} {:>8}  {:<28} STATE", "ROLE", "PID", "URL")?;
        self.row(out, Role::Edge, "edge", &self.edge)?;
        if let Some(tls) = &self.edge_tls {
            self.row(out, Role::Edge, "edge TLS", tls)?;
        }
        self.row(out, Role::Edge, "control", &self.control)?;
        for (role, url) in
            [(Role::Events, &self.events), (Role::Vault, &self.vault), (Role::Calc, &self.calc)]
        {
            self.row(out, role, role.as_str(), url)?;
        }
        for (name, url) in &self.demo {
            self.row(out, Role::Demo, name, url)?;
        }
        match &self.redis {
            Some(redis) => writeln!(out, "\n  store      Redis at {redis}")?,
            None => writeln!(out, "\n  store      embedded log in {}/events", self.data_dir)?,
        }
        if let Some(fingerprint) = &self.ca_fingerprint {
            writeln!(out, "  CA         SHA-256 {fingerprint}")?;
        }
        writeln!(out, "  dashboard  {}/dashboard", self.control)?;
        self.examples(out)
    }

    fn row(&self, out: &mut String, role: Role, name: &str, url: &str) -> std::fmt::Result {
        let pid = self.pids.get(&role).map_or_else(|| "-".to_owned(), ToString::to_string);
        writeln!(out, "  {name:<12} {pid:>8}  {url:<28} ready")
    }

    fn examples(&self, out: &mut String) -> std::fmt::Result {
        let Some(token) = &self.token else { return Ok(()) };
        let edge = &self.edge;
        writeln!(out, "  token      {}/token (administrator, 12 h): {token}", self.data_dir)?;
        writeln!(out, "\n  TOKEN=$(cat {}/token)", self.data_dir)?;
        writeln!(out, "  curl {edge}/health")?;
        writeln!(out, "  curl -H \"Authorization: Bearer $TOKEN\" {edge}/api/data/market/BTC/USDT")?;
        writeln!(
            out,
            "  curl -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' {edge}/events -d '{{\"event_type\":\"trading_signal\",\"source\":\"me\",\"data\":{{\"symbol\":\"BTC/USDT\",\"action\":\"BUY\"}}}}'"
        )?;
        writeln!(
            out,
            "  curl -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' {edge}/calculations/indicators -d '{{\"data\":{{\"close\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]}},\"indicators\":[\"rsi\"]}}'"
        )?;
        writeln!(
            out,
            "\n  Not for production: any source may publish, keys lie beside the data. Ctrl-C ends everything."
        )
    }
}

fn url_of(address: &str) -> String {
    format!("http://{}", reachable(address))
}

/// The address as a client reaches it: an unspecified host answers on loopback.
fn reachable(address: &str) -> String {
    address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_agreed_members() {
        let ready = |role, listeners: &[(&str, &str)]| Ready {
            role,
            pid: 7,
            listeners: listeners.iter().map(|(name, address)| ((*name).into(), (*address).into())).collect(),
        };
        let ready = BTreeMap::from([
            (Role::Edge, ready(Role::Edge, &[("http", "0.0.0.0:8000"), ("control", "127.0.0.1:8012")])),
            (Role::Demo, ready(Role::Demo, &[("data", "127.0.0.1:8001")])),
        ]);
        let banner =
            Banner::new(&ready, Path::new("/d"), Some("t".into()), None, Duration::from_millis(900), true);
        let value: serde_json::Value = serde_json::from_str(&banner.to_json()).unwrap();
        assert_eq!(value["event"], "ready");
        assert_eq!(value["edge"], "http://127.0.0.1:8000");
        assert_eq!(value["control"], "http://127.0.0.1:8012");
        assert_eq!(value["pids"]["edge"], 7);
        assert_eq!(value["demo"]["data"], "http://127.0.0.1:8001");
        assert!(banner.to_text().matches("curl ").count() >= 4);
        assert!(banner.to_text().contains("store      embedded log in /d/events"));
        let banner = banner.stored_in(Some("redis://***@cache:6379".to_owned()));
        assert!(banner.to_text().contains("store      Redis at redis://***@cache:6379\n"));
        assert_eq!(value.get("edge_tls"), None);
    }

    #[test]
    fn a_tls_listener_is_shown_where_there_is_one() {
        let listeners = [("http", "127.0.0.1:8000"), ("control", "127.0.0.1:8012"), ("tls", "0.0.0.0:8443")];
        let listeners = listeners.map(|(name, address)| (name.to_owned(), address.to_owned()));
        let ready = Ready { role: Role::Edge, pid: 7, listeners: listeners.into() };
        let ready = BTreeMap::from([(Role::Edge, ready)]);
        let banner = Banner::new(&ready, Path::new("/d"), None, None, Duration::ZERO, true);
        let value: serde_json::Value = serde_json::from_str(&banner.to_json()).unwrap();
        assert_eq!(value["edge_tls"], "https://127.0.0.1:8443");
        let text = banner.to_text();
        let row = text.lines().find(|line| line.contains("https://127.0.0.1:8443")).unwrap();
        assert!(row.contains("edge TLS") && row.contains('7'), "{row}");
    }
}
