//! Limits that edges share, in a book that hears of every request at once.

use std::collections::BTreeMap;

use sluice_policy::Nanos;
use sluice_policy::limit::Terms;
use sluice_policy::limit::lease::{Outcome, SHARE};
use sluice_policy::limit::leases::Name;

use super::Oracle;

/// Every bucket.
#[derive(Debug, Default)]
pub(crate) struct Joint {
    buckets: BTreeMap<Name, Bucket>,
}

/// Requests of one caller that were admitted on credit, or granted and not given back. With `n` their number and `t` the
/// moment, `n × per - requests × t` exceeds its least value by what is in use.
#[derive(Debug, Default)]
struct Bucket {
    taken: i128,
    /// The same, and what was given back.
    ever: i128,
    least: Option<i128>,
    /// Somebody did not wait for the store.
    loose: bool,
    edges: BTreeMap<usize, Known>,
}

/// What one edge has taken, and cannot know of.
#[derive(Debug, Default)]
struct Known {
    /// Admitted on credit: not in a call yet, in the one under way.
    owes: i128,
    flies: i128,
    /// Granted and not used: at hand, in the answer under way.
    holds: i128,
    comes: i128,
    /// Lapsed: not in a call yet, in the one under way.
    gives: i128,
    returns: i128,
    /// What others took since the store counted for its last answer, and for the one under way.
    unknown: i128,
    since: i128,
}

impl Known {
    fn uncounted(&self) -> i128 {
        self.owes + self.flies
    }
}

impl Bucket {
    /// What is in use, in the time that a request costs.
    fn used(&mut self, terms: &Terms, now: Nanos) -> i128 {
        let place = self.taken * per(terms) - i128::from(terms.requests) * i128::from(now.0);
        let least = self.least.map_or(place, |least| least.min(place));
        self.least = Some(least);
        place - least
    }

    /// What an edge has to do with it. One that comes now knows of nobody.
    fn known(&mut self, edge: usize) -> &mut Known {
        let unknown = self.ever;
        self.edges.entry(edge).or_insert_with(|| Known { unknown, since: unknown, ..Known::default() })
    }

    fn others(&mut self, edge: usize) -> impl Iterator<Item = &mut Known> {
        self.edges.iter_mut().filter(move |(at, _)| **at != edge).map(|(_, known)| known)
    }
}

/// A period, in the unit of [`Bucket::used`].
fn per(terms: &Terms) -> i128 {
    i128::from(terms.per_us) * 1_000
}

/// Whether more is in use than so many requests, but for what the edges round.
fn exceeds(used: i128, most: i128, terms: &Terms) -> bool {
    used > most * per(terms) + per(terms) / 100
}

impl Oracle {
    /// An edge let a request pass by its lease. On credit it knows all but what others took since it was told: more
    /// than that is never taken beyond the bucket. And nobody takes more than its credit before it is told, so all
    /// together never more than that each beyond the bucket.
    pub(crate) fn lent(&mut self, now: Nanos, edge: usize, name: Name, terms: &Terms, outcome: Outcome) {
        let bucket = self.joint.buckets.entry(name).or_default();
        let known = bucket.known(edge);
        match outcome {
            Outcome::Refused(_) | Outcome::Waits => return,
            Outcome::Leased => {
                known.holds -= 1;
                if known.holds < 0 {
                    self.fail(now, format!("edge {edge} used more of {name:?} than it was granted"));
                }
                return;
            }
            Outcome::OnCredit | Outcome::Late | Outcome::Crowded => {}
        }
        // Who takes on credit holds nothing any more: that has lapsed.
        let lapsed = std::mem::take(&mut known.holds);
        (known.gives, known.owes) = (known.gives + lapsed, known.owes + 1);
        let credit = known.uncounted() - known.gives - known.returns;
        let unknown = known.unknown;
        bucket.taken -= lapsed;
        let used = bucket.used(terms, now) + per(terms);
        (bucket.taken, bucket.ever) = (bucket.taken + 1, bucket.ever + 1);
        for other in bucket.others(edge) {
            (other.unknown, other.since) = (other.unknown + 1, other.since + 1);
        }
        bucket.loose |= outcome != Outcome::OnCredit;
        let (capacity, loose) = (i128::from(terms.capacity), bucket.loose);
        let (share, edges) = (i128::from(terms.capacity / SHARE), bucket.edges.len() as i128);
        let of = used as f64 / per(terms) as f64;
        if outcome == Outcome::OnCredit && exceeds(used, capacity + unknown, terms) {
            let what =
                format!("{name:?}: edge {edge} takes {of:.3} of {capacity}, and knew of all but {unknown}");
            self.fail(now, what);
        } else if outcome == Outcome::OnCredit && !loose && credit > share {
            self.fail(now, format!("{name:?}: edge {edge} takes {credit} of {capacity} before it is told"));
        } else if !loose && exceeds(used, capacity + edges * share, terms) {
            self.fail(now, format!("{name:?}: {edges} edges take {of:.3} of {capacity}"));
        }
    }

    /// A request that was admitted did not pass: what it took is held until the next call.
    pub(crate) fn lease_returns(&mut self, edge: usize, name: Name) {
        self.joint.buckets.entry(name).or_default().known(edge).holds += 1;
    }

    /// A call was made up: what it counts, less what it gives back.
    pub(crate) fn lease_asks(&mut self, now: Nanos, edge: usize, name: Name, owed: i64) {
        let bucket = self.joint.buckets.entry(name).or_default();
        let known = bucket.known(edge);
        let given = known.owes - i128::from(owed);
        let lapsed = given - known.gives;
        known.holds -= lapsed;
        let faulty = lapsed < 0 || known.holds < 0;
        known.flies = std::mem::take(&mut known.owes);
        (known.gives, known.returns) = (0, given);
        bucket.taken -= lapsed;
        if faulty {
            self.fail(now, format!("{name:?}: edge {edge} tells of {owed} requests"));
        }
    }

    /// The store counted a call and granted some: no more than there are, but for what it was not told.
    pub(crate) fn lease_counts(&mut self, now: Nanos, edge: usize, name: Name, terms: &Terms, granted: u64) {
        let granted = i128::from(granted);
        let bucket = self.joint.buckets.entry(name).or_default();
        let mut of_others = 0;
        for other in bucket.others(edge) {
            of_others += other.uncounted();
            (other.unknown, other.since) = (other.unknown + granted, other.since + granted);
        }
        let used = bucket.used(terms, now) + granted * per(terms);
        (bucket.taken, bucket.ever) = (bucket.taken + granted, bucket.ever + granted);
        let known = bucket.known(edge);
        (known.flies, known.returns, known.comes) = (0, 0, granted);
        (known.unknown, known.since) = (known.unknown + granted, of_others);
        let most = i128::from(terms.capacity) + of_others + known.owes;
        if granted > 0 && exceeds(used, most, terms) {
            self.fail(now, format!("{name:?}: edge {edge} was granted {granted} that are not there"));
        }
    }

    /// It hears of that.
    pub(crate) fn lease_told(&mut self, edge: usize, name: Name) {
        let bucket = self.joint.buckets.entry(name).or_default();
        let known = bucket.known(edge);
        known.holds += std::mem::take(&mut known.comes);
        known.unknown = known.since;
    }
}
