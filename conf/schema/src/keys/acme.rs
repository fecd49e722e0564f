//! `[acme]`: certificates for services that speak ACME.

use super::falco::IDENTITY;
use crate::form::{NETWORK, WILD_HOST};
use crate::kind::{Dict, List, count};
use crate::model::Acme;
use crate::table::Table;

/// LIMIT: services that may order names.
const SERVICES_MAX: usize = 4_096;

pub(super) fn acme(t: &mut Table<'_, '_>, acme: &mut Acme) {
    t.table("acme", "Certificates for services that speak ACME (RFC 8555).", |t| {
        let doc =
            "The DNS names that a service may order: names, or *. and a domain for every name below it.";
        let names = Dict { key: IDENTITY, value: List::some(WILD_HOST), most: SERVICES_MAX };
        t.key("names", doc, names, &mut acme.names);
        let doc = "Networks in which challenges are looked up; no other address is ever connected to.";
        t.key("networks", doc, List::of(NETWORK), &mut acme.networks);
        let doc = "Port at which http-01 challenges are looked up.";
        t.key("http_port", doc, count(1..=65_535), &mut acme.http_port);
    });
}
