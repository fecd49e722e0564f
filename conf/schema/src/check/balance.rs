//! Keys of the balancer that others leave without effect.

use crate::code::Code;
use crate::model::{Config, HashOn, Service};
use crate::reader::Reader;
use crate::report::{Diagnostic, quote};
use crate::table::Table;

/// What a request is placed by, beside how an instance is picked and who is known.
pub(super) fn service(t: &mut Table<'_, '_>, service: &Service) {
    let Some(place) = t.written_at("hash_on") else { return };
    if t.failed("hash_on") || t.failed("balance") {
        return;
    }
    let (keyed, by_caller) = (service.balance.is_keyed(), service.hash_on == HashOn::Subject);
    let message = if !keyed && !by_caller {
        format!("`hash_on` has no effect: `balance` is {}", quote(service.balance.as_str()))
    } else if keyed && by_caller && !service.auth_required && service.forward_authorization {
        "`hash_on` has no effect: credentials are forwarded unread, so callers go by their address".to_owned()
    } else {
        return;
    };
    let help = "hash and sticky place by sub, ip or header:NAME";
    t.reader.report(Diagnostic::new(Code::NoEffect, message).at(Some(place)).help(help));
}

/// Zones of instances that no zone of the edge is compared with.
pub(super) fn zones(reader: &mut Reader<'_>, config: &Config) {
    if !config.edge.zone.is_empty() || reader.has_failed("edge.zone") {
        return;
    }
    for (index, service) in config.services.iter().enumerate() {
        let Some(at) = service.instances.iter().position(|instance| !instance.zone.is_empty()) else {
            continue;
        };
        let place = reader.place(&format!("service[{index}].instance[{at}].zone"));
        let message = "`zone` has no effect: `edge.zone` says nothing about where this edge is";
        let help = "name the edge's own zone, in the file or as SLUICE__EDGE__ZONE";
        reader.report(Diagnostic::new(Code::NoEffect, message).at(place).help(help));
        return;
    }
}
