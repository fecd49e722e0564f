//! The instructions that were counted before, and what has grown since.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::profile::Profile;

/// Version of the file's shape.
pub(super) const SCHEMA: &str = "sluice-bench/instructions/1";
/// More than this share above what was counted before is a loss.
const LOSS: f64 = 0.03;
/// The same for what is the difference of two counts, whose noise it has.
const LOSS_OF_DIFFERENCE: f64 = 0.1;
/// Functions kept of each operation, those with the most instructions.
const KEPT: usize = 60;
/// What a whole request takes beyond a bare one.
const DIFFERENCE: &str = "policy chain";
/// Functions named for a loss.
const NAMED: usize = 3;

/// `bench/history/instructions.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct History {
    pub schema: String,
    /// The compiler; another one makes other instructions.
    pub rustc: String,
    pub counts: Vec<Count>,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Count {
    pub name: String,
    /// Instructions of one operation.
    pub instructions: f64,
    /// Of these, what each function takes itself, the most first.
    pub functions: Vec<(String, f64)>,
}

impl Count {
    /// What `profile` shows of so many operations.
    pub(super) fn of(name: &str, profile: &Profile, operations: u32) -> Self {
        let each = |cost: u64| (cost as f64 / f64::from(operations.max(1)) * 10.0).round() / 10.0;
        let mut functions: Vec<(String, f64)> =
            profile.iter().map(|(name, cost)| (name.clone(), each(*cost))).collect();
        functions.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        functions.truncate(KEPT);
        Self { name: name.to_owned(), instructions: each(profile.values().sum()), functions }
    }

    fn is_difference(&self) -> bool {
        self.name == DIFFERENCE
    }

    /// What it takes beyond `other`, function by function.
    pub(super) fn without(&self, other: &Self) -> Self {
        let less: BTreeMap<&str, f64> =
            other.functions.iter().map(|(name, cost)| (name.as_str(), *cost)).collect();
        let rest = |(name, cost): &(String, f64)| {
            (name.clone(), cost - less.get(name.as_str()).copied().unwrap_or(0.0))
        };
        let functions = self.functions.iter().map(rest).filter(|(_, cost)| *cost > 0.0).collect();
        Self { name: DIFFERENCE.to_owned(), instructions: self.instructions - other.instructions, functions }
    }

    /// The functions that take more than before, the most first, in words.
    fn grown(&self, before: &Self) -> String {
        let old: BTreeMap<&str, f64> =
            before.functions.iter().map(|(name, cost)| (name.as_str(), *cost)).collect();
        let mut grown: Vec<(&str, f64)> = self
            .functions
            .iter()
            .map(|(name, cost)| (name.as_str(), cost - old.get(name.as_str()).copied().unwrap_or(0.0)))
            .filter(|(_, more)| *more > 0.0)
            .collect();
        grown.sort_by(|a, b| b.1.total_cmp(&a.1));
        let words: Vec<_> =
            grown.iter().take(NAMED).map(|(name, more)| format!("{name} (+{more:.0})")).collect();
        words.join(", ")
    }
}

/// All counts beside those before; the table, and how many are a loss.
pub(super) fn compare(before: &History, now: &[Count]) -> (String, usize) {
    let mut lines =
        vec!["| operation | instructions | before | change |".to_owned(), "|---|---:|---:|---:|".into()];
    let mut lost = Vec::new();
    for count in now {
        let Some(old) = before.counts.iter().find(|old| old.name == count.name) else {
            lines.push(format!("| {} | {:.0} | – | new |", count.name, count.instructions));
            continue;
        };
        let change = count.instructions / old.instructions - 1.0;
        let (name, percent) = (&count.name, change * 100.0);
        lines.push(format!(
            "| {name} | {:.0} | {:.0} | {percent:+.1} % |",
            count.instructions, old.instructions
        ));
        let bound = if count.is_difference() { LOSS_OF_DIFFERENCE } else { LOSS };
        if change > bound {
            let grown = count.grown(old);
            lost.push(format!("- LOST: {name} takes {percent:.1} % more instructions than before: {grown}"));
        }
    }
    let gone = before.counts.iter().filter(|old| !now.iter().any(|count| count.name == old.name));
    lost.extend(gone.map(|old| format!("- LOST: {} was counted before and is not any more", old.name)));
    let losses = lost.len();
    lines.extend(lost);
    (lines.join("\n") + "\n", losses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(name: &str, functions: &[(&str, u64)]) -> Count {
        let profile = functions.iter().map(|(name, cost)| ((*name).to_owned(), cost * 10)).collect();
        Count::of(name, &profile, 10)
    }

    fn history(counts: Vec<Count>) -> History {
        History { schema: SCHEMA.into(), rustc: "1".into(), counts }
    }

    #[test]
    fn a_loss_names_the_function_that_grew() {
        let before = history(vec![count("request", &[("parse", 500), ("route", 500), ("write", 9000)])]);
        let (text, lost) =
            compare(&before, &[count("request", &[("parse", 500), ("route", 900), ("write", 8990)])]);
        assert_eq!(lost, 1);
        assert!(text.contains("request takes 3.9 % more instructions than before: route (+400)"), "{text}");
        let (text, lost) =
            compare(&before, &[count("request", &[("parse", 500), ("route", 780), ("write", 9000)])]);
        assert_eq!(lost, 0, "{text}");
        assert!(text.contains("| request | 10280 | 10000 | +2.8 % |"), "{text}");
    }

    #[test]
    fn what_is_new_is_no_loss_and_what_is_gone_is_one() {
        let before = history(vec![count("a", &[("f", 10)])]);
        let (text, lost) = compare(&before, &[count("a", &[("g", 1)]), count("b", &[("f", 10)])]);
        assert_eq!(lost, 0, "{text}");
        assert_eq!(compare(&before, &[]).1, 1);
    }

    #[test]
    fn a_difference_is_that_of_its_functions() {
        let (whole, bare) = (count("whole", &[("a", 50), ("b", 30)]), count("bare", &[("a", 40), ("c", 5)]));
        let policy = whole.without(&bare);
        assert_eq!((policy.name.as_str(), policy.instructions), (DIFFERENCE, 35.0));
        assert_eq!(policy.functions, [("a".to_owned(), 10.0), ("b".to_owned(), 30.0)]);
        let before = history(vec![policy.clone()]);
        let more = |by: f64| Count { instructions: policy.instructions * by, ..policy.clone() };
        assert_eq!(compare(&before, &[more(1.09)]).1, 0);
        assert_eq!(compare(&before, &[more(1.11)]).1, 1);
    }

    #[test]
    fn only_the_largest_functions_are_kept() {
        let many: Vec<(String, u64)> = (0..100).map(|n| (format!("f{n:02}"), n)).collect();
        let count = Count::of("x", &many.into_iter().collect(), 1);
        assert_eq!((count.functions.len(), count.functions[0].0.as_str()), (KEPT, "f99"));
        assert!((count.instructions - 4950.0).abs() < f64::EPSILON);
    }
}
