//! Second tries that other keys leave no room for.

use crate::code::Code;
use crate::model::{Balance, Hedge, Scheme, Service};
use crate::report::Diagnostic;
use crate::table::Table;

/// Keys without which nothing is known of a hedge.
const NEEDED: [&str; 9] = [
    "retry.hedge",
    "retry.attempts",
    "retry.budget",
    "retry.min_per_second",
    "methods",
    "balance",
    "timeouts.first_byte",
    "compress",
    "fallback",
];

/// A hedge that never comes to pass.
pub(super) fn service(t: &mut Table<'_, '_>, service: &Service) {
    if service.retry.hedge == Hedge::Off || NEEDED.iter().any(|key| t.failed(key)) {
        return;
    }
    let Some((reason, help)) = obstacle(service) else { return };
    let place = t.written(&["retry.hedge", "retry"]);
    let idle = Diagnostic::new(Code::NoEffect, format!("`hedge` has no effect: {reason}")).at(place);
    t.reader.report(idle.help(help));
}

/// Why no request of a service is ever sent twice at once, and what helps.
fn obstacle(service: &Service) -> Option<(&'static str, &'static str)> {
    let retry = &service.retry;
    let reads = service.methods.is_empty() || service.methods.iter().any(|method| method == "GET");
    let plain = |scheme: Scheme| matches!(scheme, Scheme::Http | Scheme::Unix);
    let obstacles = [
        (retry.attempts < 2, "`attempts` allows one try", "a hedge is a second try: write attempts = 2"),
        (
            retry.budget <= 0.0 && retry.min_per_second == 0,
            "`budget` allows no retry",
            "a hedge is paid from the budget of retries",
        ),
        (!reads, "it is for GET, and `methods` does not name it", "leave it out"),
        (
            service.balance == Balance::Sticky,
            "`balance` is `sticky`",
            "callers that are bound to an instance are asked for there alone",
        ),
        (
            matches!(retry.hedge, Hedge::After(after) if after >= service.timeouts.first_byte),
            "`timeouts.first_byte` ends the first try before",
            "make it shorter than `first_byte`",
        ),
        (
            service.compress || service.fallback.stale.is_some(),
            "answers are compressed or kept",
            "`compress` and `fallback.stale` take another way, on which nothing is sent twice",
        ),
        (
            service.instances.iter().any(|instance| !plain(instance.url.scheme)),
            "not all instances speak HTTP/1.1 in clear text",
            "https and h2c take another way, on which nothing is sent twice",
        ),
    ];
    obstacles.into_iter().find(|(there, ..)| *there).map(|(_, reason, help)| (reason, help))
}
