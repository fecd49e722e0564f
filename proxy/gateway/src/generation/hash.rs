//! What tells effective configurations apart. A service that did not change is not hashed again.

use std::collections::HashMap;
use std::fmt::{Arguments, Write as _};

use ring::digest::{self, Context, SHA256};
use sluice_schema::{Config, Service};

use super::Generation;

/// Hash of one service's effective values.
pub(super) type ServiceHash = [u8; 32];

/// Takes text in, piece by piece.
struct Hashed(Context);

impl std::fmt::Write for Hashed {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

/// Text shows secrets by their length alone.
fn of(text: Arguments<'_>) -> digest::Digest {
    let mut hashed = Hashed(Context::new(&SHA256));
    // It takes whatever comes.
    let _never_fails = hashed.write_fmt(text);
    hashed.0.finish()
}

/// The hashes of a configuration's services, in their order.
pub(super) fn of_services(config: &Config, before: Option<&Generation>) -> Vec<ServiceHash> {
    let known = before.into_iter().flat_map(|before| before.config.services.iter().zip(&before.hashes));
    let known: HashMap<&str, (&Service, &ServiceHash)> =
        known.map(|(service, hash)| (service.name.as_str(), (service, hash))).collect();
    let hash = |service: &Service| match known.get(service.name.as_str()) {
        Some((same, hash)) if *same == service => **hash,
        _ => {
            let mut hash = ServiceHash::default();
            hash.copy_from_slice(of(format_args!("{service:?}")).as_ref());
            hash
        }
    };
    config.services.iter().map(hash).collect()
}

/// 12 hexadecimal digits of everything in force.
pub(super) fn of_all(registered: &[Service], config: &Config, services: &[ServiceHash]) -> String {
    let rest = config.without_services();
    let all = of(format_args!("{rest:?}{services:?}{registered:?}"));
    all.as_ref()[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}
