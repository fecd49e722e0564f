//! Where the edge finds the demo's services.

use std::collections::BTreeMap;

use sluice_schema::{Config, UpstreamTls};
use sluice_wire::role::Role;

/// The demo's addresses reach the edge as the environment names that the platforms use, unless the
/// operator has set them: by mutual TLS where every hop is to be. Where the operator has written how a
/// service's `https` is to be called, another server than the demo is meant: then plain.
pub(super) fn addresses(config: &Config, environment: &mut BTreeMap<String, String>) {
    let addresses = [
        ("DATA_SERVICE", "data_service", config.demo.data_listen),
        ("BACKTESTING_SERVICE", "backtesting_service", config.demo.backtesting_listen),
        ("TRADING_BOT_SERVICE", "trading_bot_service", config.demo.trading_bot_listen),
    ];
    for (prefix, name, address) in addresses {
        let (url, sni) = (format!("{prefix}_URL"), format!("{prefix}_SNI"));
        let Some(service) = config.services.iter().find(|known| known.name == name) else { continue };
        if environment.contains_key(&url) {
            continue;
        }
        if config.mtls && service.tls == UpstreamTls::default() && !environment.contains_key(&sni) {
            environment.insert(url, format!("https://{address}"));
            environment.insert(sni, Role::Demo.to_string());
        } else {
            environment.insert(url, format!("http://{address}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(mtls: bool) -> Config {
        let mut config = Config { mtls, ..Config::default() };
        config.services =
            vec![config.service("data_service", "/a"), config.service("trading_bot_service", "/b")];
        config
    }

    fn given(config: &Config, set: &[(&str, &str)]) -> Vec<String> {
        let mut environment = set.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
        addresses(config, &mut environment);
        environment.iter().map(|(name, text)| format!("{name}={text}")).collect()
    }

    #[test]
    fn demo_is_called_by_mutual_tls_where_every_hop_is() {
        let by_tls = [
            "DATA_SERVICE_SNI=demo",
            "DATA_SERVICE_URL=https://127.0.0.1:8001",
            "TRADING_BOT_SERVICE_SNI=demo",
            "TRADING_BOT_SERVICE_URL=https://127.0.0.1:8003",
        ];
        assert_eq!(given(&config(true), &[]), by_tls);
        let plain =
            ["DATA_SERVICE_URL=http://127.0.0.1:8001", "TRADING_BOT_SERVICE_URL=http://127.0.0.1:8003"];
        assert_eq!(given(&config(false), &[]), plain);
    }

    #[test]
    fn what_the_operator_says_stays() {
        let set = [("DATA_SERVICE_URL", "http://data:1"), ("TRADING_BOT_SERVICE_URL", "http://bot:1")];
        assert_eq!(
            given(&config(true), &set),
            ["DATA_SERVICE_URL=http://data:1", "TRADING_BOT_SERVICE_URL=http://bot:1"]
        );
        let mut own = config(true);
        own.services[0].tls.sni = "data.example".into();
        own.services.pop();
        assert_eq!(given(&own, &[]), ["DATA_SERVICE_URL=http://127.0.0.1:8001"]);
    }
}
