//! What TLS and the PROXY protocol ask of each other's keys.

use crate::code::Code;
use crate::model::{
    Authority, Certificate, ClientAuth, ClientCertificate, Config, RedisUrl, Scheme, Service,
};
use crate::reader::Reader;
use crate::report::{Diagnostic, Place, quote};

/// Compares the keys of the edge's TLS and of every service's.
pub(super) fn tls(reader: &mut Reader<'_>, config: &Config) {
    edge(reader, config);
    redis(reader, config);
    for (index, service) in config.services.iter().enumerate() {
        let secure = service.instances.iter().any(|instance| instance.url.scheme == Scheme::Https);
        if secure {
            upstream(reader, index, service);
        } else {
            unused(reader, index, service);
        }
    }
}

fn edge(reader: &mut Reader<'_>, config: &Config) {
    if config.edge.proxy_protocol
        && config.edge.trusted_proxies.is_empty()
        && !reader.has_failed("edge.trusted_proxies")
    {
        let message = "`proxy_protocol` has no effect: `trusted_proxies` names no network";
        no_effect(reader, message, reader.place("edge.proxy_protocol"));
    }
    let Some(tls) = &config.edge.tls else { return };
    if tls.client_auth == ClientAuth::Off
        && tls.client_ca != Authority::Auto
        && !reader.has_failed("edge.tls.client_auth")
    {
        let message = "`client_ca` has no effect: `client_auth` is off";
        no_effect(reader, message, reader.place("edge.tls.client_ca"));
    }
    if !tls.names.is_empty() && tls.certificate != Certificate::Auto {
        let message = "`names` has no effect: a certificate from files carries its own";
        no_effect(reader, message, reader.place("edge.tls.names"));
    }
}

fn redis(reader: &mut Reader<'_>, config: &Config) {
    if config.redis.as_ref().is_some_and(RedisUrl::is_secure) || reader.has_failed("redis.url") {
        return;
    }
    let written =
        [("ca", config.redis_tls.ca.is_some()), ("client_cert", config.redis_tls.client_cert.is_some())];
    let Some((key, _)) = written.iter().find(|(_, written)| *written) else { return };
    let message = format!("`{key}` has no effect: `url` is not a \"rediss://host:port\"");
    no_effect(reader, &message, reader.place(&format!("redis.{key}")));
}

fn upstream(reader: &mut Reader<'_>, index: usize, service: &Service) {
    let path = |key: &str| format!("service[{index}].{key}");
    if service.tls.sni.is_empty() && !reader.has_failed(&path("tls.sni")) {
        let https = |(_, instance): &(usize, &crate::model::Instance)| instance.url.scheme == Scheme::Https;
        let Some((at, instance)) = service.instances.iter().enumerate().find(https) else { return };
        let message = format!("{} has an https instance and no `tls.sni`", quote(&service.name));
        let place = reader.place(&path(&format!("instance[{at}].url")));
        let missing = Diagnostic::new(Code::NoServerName, message).at(place);
        let help = if instance.url.ip().is_none() {
            format!("write tls = {{ sni = \"{}\" }} in the service", instance.url.host)
        } else {
            "write tls = { sni = \"NAME\" } in the service: the name its certificate carries".to_owned()
        };
        reader.report(missing.help(help));
    }
    if !service.tls.verify {
        let message = format!("any certificate is taken for the instances of {}", quote(&service.name));
        let place = reader.place(&path("tls.verify"));
        let unverified = Diagnostic::new(Code::Unverified, message).at(place);
        reader.report(unverified.help("name who signs it: tls = { ca = \"FILE\" }"));
    }
}

/// What is written for https where nothing is https.
fn unused(reader: &mut Reader<'_>, index: usize, service: &Service) {
    let tls = &service.tls;
    let written = [
        ("sni", !tls.sni.is_empty()),
        ("ca", tls.ca != Authority::Auto),
        ("client_cert", matches!(tls.client_cert, ClientCertificate::Files(_))),
        ("verify", !tls.verify),
    ];
    let Some((key, _)) = written.iter().find(|(_, written)| *written) else { return };
    let unread = |at: usize| reader.has_failed(&format!("service[{index}].instance[{at}].url"));
    if service.name.is_empty() || (0..service.instances.len()).any(unread) {
        return;
    }
    let message = format!("`tls.{key}` has no effect: no instance of {} is https", quote(&service.name));
    let path = format!("service[{index}].tls");
    let place = reader.place(&format!("{path}.{key}")).or_else(|| reader.place(&path));
    no_effect(reader, &message, place);
}

fn no_effect(reader: &mut Reader<'_>, message: &str, place: Option<Place>) {
    reader.report(Diagnostic::new(Code::NoEffect, message).at(place));
}
