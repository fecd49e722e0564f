//! Which requests a viewer of the live traffic wants to see.
//!
//! Exact rules: every condition given must hold. A route is its exact name; statuses are one to
//! [`STATUSES_MAX`] of `200`, `4xx` and `500-599`, separated by commas, any of which may hold; a client is an
//! address or a network; a method is its word.

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use crate::method::Method;

/// LIMIT: status conditions of one filter.
pub const STATUSES_MAX: usize = 8;
/// LIMIT: bytes of one condition.
const TEXT_BYTES_MAX: usize = 128;

/// A filter that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FilterFault {
    /// The route is no name.
    #[error("route: at most {TEXT_BYTES_MAX} characters")]
    Route,
    /// The status condition.
    #[error("status: `200`, `4xx` or `500-599`, at most {STATUSES_MAX} separated by commas")]
    Status,
    /// The client condition.
    #[error("client: an address or a network such as 10.0.0.0/8")]
    Client,
    /// The method condition.
    #[error("method: a known method in upper case")]
    Method,
}

/// What a viewer wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    route: Option<String>,
    statuses: Vec<(u16, u16)>,
    client: Option<IpNet>,
    method: Option<Method>,
}

/// What of a request a filter looks at.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Name of its route.
    pub route: &'a str,
    /// Its status.
    pub status: u16,
    /// Its client.
    pub client: IpAddr,
    /// Its method, where it is known.
    pub method: Option<Method>,
}

impl Filter {
    /// Reads the conditions; an empty one is none.
    ///
    /// # Errors
    /// [`FilterFault`], the first condition that cannot be understood.
    pub fn new(
        route: Option<&str>,
        status: Option<&str>,
        client: Option<&str>,
        method: Option<&str>,
    ) -> Result<Self, FilterFault> {
        let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        let route = given(route);
        if route.as_ref().is_some_and(|name| name.len() > TEXT_BYTES_MAX) {
            return Err(FilterFault::Route);
        }
        let statuses = given(status).map_or(Ok(Vec::new()), |text| statuses(&text))?;
        let client = given(client).map(|text| network(&text).ok_or(FilterFault::Client)).transpose()?;
        let method = given(method)
            .map(|word| Method::parse(word.as_bytes()).map_err(|_| FilterFault::Method))
            .transpose()?;
        Ok(Self { route, statuses, client, method })
    }

    /// Whether a request is wanted.
    pub fn matches(&self, seen: &Seen<'_>) -> bool {
        self.route.as_deref().is_none_or(|name| name == seen.route)
            && (self.statuses.is_empty()
                || self.statuses.iter().any(|(low, high)| (*low..=*high).contains(&seen.status)))
            && self.client.is_none_or(|net| net.contains(&seen.client.to_canonical()))
            && self.method.is_none_or(|method| seen.method == Some(method))
    }
}

fn statuses(text: &str) -> Result<Vec<(u16, u16)>, FilterFault> {
    let ranges: Option<Vec<(u16, u16)>> = text.split(',').map(|part| status(part.trim())).collect();
    ranges.filter(|ranges| ranges.len() <= STATUSES_MAX).ok_or(FilterFault::Status)
}

fn status(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| {
        let number: u16 = text.parse().ok()?;
        (text.len() == 3 && (100..=599).contains(&number)).then_some(number)
    };
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().ok().filter(|class| (1..=5).contains(class))?;
        return (text.len() == 3).then_some((class * 100, class * 100 + 99));
    }
    match text.split_once('-') {
        Some((low, high)) => {
            let range = (number(low)?, number(high)?);
            (range.0 <= range.1).then_some(range)
        }
        None => number(text).map(|status| (status, status)),
    }
}

fn network(text: &str) -> Option<IpNet> {
    let address = || text.parse::<IpAddr>().ok().map(|address| IpNet::from(address.to_canonical()));
    text.parse::<IpNet>().ok().or_else(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(route: &str, status: u16, client: &str, method: Method) -> bool {
        let filter = Filter::new(Some("orders"), Some("200,4xx,500-503"), Some("10.0.0.0/8"), Some("POST"));
        let client = client.parse().unwrap();
        filter.unwrap().matches(&Seen { route, status, client, method: Some(method) })
    }

    #[test]
    fn every_condition_must_hold() {
        assert!(seen("orders", 200, "10.1.2.3", Method::Post));
        assert!(seen("orders", 418, "::ffff:10.1.2.3", Method::Post));
        assert!(!seen("order", 200, "10.1.2.3", Method::Post));
        assert!(!seen("orders", 201, "10.1.2.3", Method::Post));
        assert!(!seen("orders", 504, "10.1.2.3", Method::Post));
        assert!(!seen("orders", 200, "11.1.2.3", Method::Post));
        assert!(!seen("orders", 200, "10.1.2.3", Method::Get));
        let all = Filter::new(None, Some(""), None, None).unwrap();
        assert!(all.matches(&Seen { route: "x", status: 499, client: "::1".parse().unwrap(), method: None }));
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        for bad in
            ["x", "20", "0200", "6xx", "0xx", "503-500", "200-", "99", "+20", "200,,300", "1,2,3,4,5,6,7,8,9"]
        {
            assert_eq!(Filter::new(None, Some(bad), None, None), Err(FilterFault::Status), "{bad}");
        }
        assert_eq!(Filter::new(None, None, Some("10.0.0.0/33"), None), Err(FilterFault::Client));
        assert_eq!(Filter::new(None, None, None, Some("get")), Err(FilterFault::Method));
        assert_eq!(Filter::new(Some(&"x".repeat(129)), None, None, None), Err(FilterFault::Route));
        assert_eq!(
            Filter::new(None, None, Some("::1"), None).unwrap().client,
            Some("::1/128".parse().unwrap())
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn a_range_means_what_it_says(low in 100_u16..=599, width in 0_u16..60, status in 100_u16..=599) {
            let high = (low + width).min(599);
            let filter = Filter::new(None, Some(&format!("{low}-{high}")), None, None).unwrap();
            let seen = Seen { route: "", status, client: "::1".parse().unwrap(), method: None };
            prop_assert_eq!(filter.matches(&seen), status >= low && status <= high);
        }
    }
}
