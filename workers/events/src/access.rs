//! Who may publish and read which types, and under which source.

use sluice_http::Reject;
use sluice_identity::caller::{Caller, Via};
use sluice_wire::code::Code;
use sluice_wire::event::{DISCOVERY_GROUP, EventType, is_series_group};
use sluice_wire::role::Role;

use crate::error::Fault;
use crate::log::Filter;

/// LIMIT: bytes of a source.
const SOURCE_BYTES_MAX: usize = 128;

/// Refuses a type that the caller may not publish. `write` of the older platforms publishes everything that is not
/// reserved; reserved types come from the roles alone.
pub(crate) fn may_publish(caller: &Caller, kind: &EventType) -> Result<(), Fault> {
    if kind.is_reserved() && caller.as_role().is_none() {
        let detail = format!("only Sluice's own roles publish `{kind}`");
        return Err(Fault { code: Code::ReservedType, detail, pointer: Some("/event_type".into()) });
    }
    if caller.grants.covers("write") {
        return Ok(());
    }
    let needed = format!("events:publish:{kind}");
    if caller.grants.covers(&needed) {
        return Ok(());
    }
    Err(Fault::new(Code::InsufficientScope, format!("permission `{needed}` is required")))
}

/// Refuses tokens signed with the older platforms' shared secret: they are believed at those platforms' own calls
/// alone.
pub(crate) fn not_legacy(caller: &Caller) -> Result<(), Reject> {
    if caller.via == Via::LegacyToken {
        return Err(Reject::new(
            Code::Forbidden,
            "this call does not take tokens signed with the shared secret",
        ));
    }
    Ok(())
}

/// Refuses who may not administer the streams.
pub(crate) fn may_administer(caller: &Caller) -> Result<(), Reject> {
    not_legacy(caller)?;
    if caller.grants.covers("events:admin") { Ok(()) } else { Err(Reject::lacking("events:admin")) }
}

/// Refuses who may not make a group or change it: administrators may, calculation workers may make those that feed
/// their stores and the one of requests for discovery, and others those of a name that `events:group:NAME` grants.
pub(crate) fn may_make(caller: &Caller, group: &str) -> Result<(), Reject> {
    let feeds = is_series_group(group) || group == DISCOVERY_GROUP;
    if feeds && caller.as_role() == Some(Role::Calc) {
        return Ok(());
    }
    not_legacy(caller)?;
    let named = format!("events:group:{group}");
    if caller.grants.covers("events:admin") || caller.grants.covers(&named) {
        return Ok(());
    }
    Err(Reject::lacking(if feeds { &named } else { "events:admin" }))
}

/// The source an event is stored under: the one it names, when the caller may name it, else the caller.
pub(crate) fn source<'a>(caller: &'a Caller, named: Option<&'a str>, dev: bool) -> Result<&'a str, Fault> {
    let Some(named) = named.filter(|named| !named.is_empty()) else { return Ok(&caller.subject) };
    if named.len() > SOURCE_BYTES_MAX || named.chars().any(char::is_control) {
        let detail = format!("a source has at most {SOURCE_BYTES_MAX} bytes and no control characters");
        return Err(Fault::event("/source", detail));
    }
    let own = named == caller.subject || caller.as_role().is_some_and(|role| role.as_str() == named);
    if own || dev || caller.grants.covers("events:source:any") {
        return Ok(named);
    }
    let detail = "the source differs from the caller, which needs `events:source:any`";
    Err(Fault { code: Code::SourceMismatch, detail: detail.to_owned(), pointer: Some("/source".into()) })
}

/// The part of a filter that the caller's grants make: nothing, or the types it may read.
pub(crate) fn readable(caller: &Caller) -> Result<Filter, Reject> {
    let grants = &caller.grants;
    if grants.covers("events:read") || grants.covers("read") {
        return Ok(Filter::default());
    }
    let globs: Vec<Box<str>> =
        grants.iter().filter_map(|held| held.strip_prefix("events:read:")).map(Into::into).collect();
    if globs.is_empty() {
        return Err(Reject::lacking("events:read"));
    }
    Ok(Filter { granted: Some(globs), ..Filter::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(grants: &str) -> Caller {
        Caller::forwarded("alice".to_owned(), None, grants.parse().unwrap_or_default(), false)
    }

    fn kind(name: &str) -> EventType {
        EventType::parse(name).unwrap()
    }

    #[test]
    fn publishing_needs_the_type_or_all_of_them() {
        for held in ["events:publish", "events:publish:trading_*", "write", "admin"] {
            assert_eq!(may_publish(&caller(held), &kind("trading_signal")), Ok(()), "{held}");
        }
        for held in ["", "read", "events:publish:order_*", "events:read"] {
            let fault = may_publish(&caller(held), &kind("trading_signal")).unwrap_err();
            assert_eq!(fault.code, Code::InsufficientScope, "{held}");
        }
    }

    #[test]
    fn reserved_types_come_from_roles_alone() {
        for name in ["kill_switch", "security_alert", "Service_registered", "candle_closed", "stream_gap"] {
            let fault = may_publish(&caller("admin"), &kind(name)).unwrap_err();
            assert_eq!(fault.code, Code::ReservedType, "{name}");
            assert_eq!(may_publish(&Caller::role(Role::Edge), &kind(name)), Ok(()), "{name}");
        }
    }

    #[test]
    fn groups_are_made_by_administrators_and_by_who_is_granted_their_name() {
        let (feeds, other) = ("calc-series-00ff", "desk");
        assert!(may_make(&Caller::role(Role::Calc), feeds).is_ok());
        for name in [other, "calc-series", "calc-series-", "calc-serieses"] {
            assert!(may_make(&Caller::role(Role::Calc), name).is_err(), "{name}");
        }
        assert!(may_make(&Caller::role(Role::Demo), feeds).is_err());
        assert!(may_make(&caller("events:admin"), other).is_ok());
        assert!(may_make(&caller("events:group:calc-series-*"), feeds).is_ok());
        assert!(may_make(&caller("events:group:calc-series-*"), other).is_err());
        assert!(may_make(&caller("events:read read write"), feeds).is_err());
    }

    #[test]
    fn a_source_is_the_callers_own_unless_it_may_name_any() {
        let alice = caller("write");
        assert_eq!(source(&alice, None, false), Ok("alice"));
        assert_eq!(source(&alice, Some(""), false), Ok("alice"));
        assert_eq!(source(&alice, Some("alice"), false), Ok("alice"));
        assert_eq!(source(&alice, Some("bob"), false).unwrap_err().code, Code::SourceMismatch);
        assert_eq!(source(&alice, Some("bob"), true), Ok("bob"));
        assert_eq!(source(&caller("write events:source:any"), Some("bob"), false), Ok("bob"));
        assert_eq!(source(&alice, Some("a\nb"), true).unwrap_err().code, Code::InvalidEvent);
        assert_eq!(source(&Caller::role(Role::Calc), Some("calc"), false), Ok("calc"));
        assert!(source(&Caller::role(Role::Calc), Some("bob"), false).is_err());
    }

    #[test]
    fn reading_is_narrowed_to_the_granted_types() {
        assert_eq!(readable(&caller("events:read")).unwrap(), Filter::default());
        assert_eq!(readable(&caller("read")).unwrap(), Filter::default());
        let narrow = readable(&caller("events:read:order_* write")).unwrap();
        assert!(narrow.admits_type("order_executed"));
        assert!(!narrow.admits_type("trading_signal"));
        assert!(readable(&caller("write")).is_err());
    }
}
