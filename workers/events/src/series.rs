//! The consumer groups from which calculation workers feed their stored series: those that nobody uses are removed.
//!
//! Each store makes a group of its own, and its worker asks for messages all the time. A store that is thrown away
//! leaves its group behind, which would fall back for ever and take a place among the groups. So one whose consumers
//! were not heard of for a week is removed. That loses nothing: a store that comes back makes its group anew, from the
//! oldest event kept, and knows the candles that it has.
//!
//! Before, all stores shared one group, made by this worker where a calculation worker runs beside it; it is removed too.

use std::sync::Arc;
use std::time::Duration;

use sluice_wire::event::{SERIES_GROUP, is_series_group};

use crate::context::Context;
use crate::group::{GroupError, Groups, Report};
use crate::log::{Clock as _, SystemClock};

/// Time without a consumer after which a group is removed, in milliseconds: a week.
const UNUSED_MS: u64 = 7 * 86_400_000;
/// How often is looked. Much longer than a calculation worker is silent, so that those that live have been heard of
/// when it is looked for the first time after a start.
const EVERY: Duration = Duration::from_secs(3_600);
/// Groups looked at in one go.
const PAGE: usize = 1_000;

/// Removes groups that nobody uses, until it is dropped.
pub(crate) async fn tidy(context: Arc<Context>, has_calc: bool) {
    loop {
        if has_calc {
            told(SERIES_GROUP, remove(&context.groups, SERIES_GROUP).await);
        }
        tokio::time::sleep(EVERY).await;
        if let Err(error) = sweep(&context.groups, SystemClock.now_ms()).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(component = "series", error, "unused groups are not looked for");
        }
    }
}

/// Removes those that are unused by now.
async fn sweep(groups: &Groups, now_ms: u64) -> Result<(), GroupError> {
    // LIMIT: there are no more groups than a page has.
    for report in groups.list(None, PAGE).await? {
        if is_unused(&report.group, heard_ms(&report), now_ms) {
            told(&report.group, remove(groups, &report.group).await);
        }
    }
    Ok(())
}

/// When a group was last heard of.
fn heard_ms(report: &Report) -> u64 {
    let seen = report.consumers.iter().map(|(_, _, seen_ms)| *seen_ms);
    seen.max().unwrap_or_default().max(report.created_ms)
}

/// Whether a group feeds a store that has not been heard of for long.
fn is_unused(group: &str, heard_ms: u64, now_ms: u64) -> bool {
    is_series_group(group) && heard_ms.saturating_add(UNUSED_MS) < now_ms
}

/// Whether there was one.
async fn remove(groups: &Groups, name: &str) -> Result<bool, GroupError> {
    match groups.delete(name).await {
        Ok(()) => Ok(true),
        Err(GroupError::Unknown) => Ok(false),
        Err(error) => Err(error),
    }
}

fn told(group: &str, removed: Result<bool, GroupError>) {
    match removed {
        Ok(true) => tracing::info!(component = "series", group, "a group that nobody uses is removed"),
        Ok(false) => {}
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(component = "series", group, error, "a group that nobody uses stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_was_not_heard_of_for_a_week_loses_its_group() {
        let now_ms = 100 * 86_400_000;
        assert!(is_unused("calc-series-00ff", now_ms - UNUSED_MS - 1, now_ms));
        assert!(!is_unused("calc-series-00ff", now_ms - UNUSED_MS, now_ms));
        assert!(!is_unused("calc-series-00ff", now_ms + 1, now_ms), "a clock that was set back");
        assert!(!is_unused("desk", 0, now_ms), "others keep theirs");
    }
}
