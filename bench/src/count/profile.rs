//! What callgrind writes: the instructions of each function, of all dumps of a process or of one.

use std::collections::{BTreeMap, HashMap};

/// Instructions of each function itself, without what it calls.
pub(super) type Profile = BTreeMap<String, u64>;

/// Reads one file. Lines that say where, not how much, are passed over.
pub(super) fn read(text: &str) -> Profile {
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut costs: HashMap<&str, u64> = HashMap::new();
    let mut function = "";
    // The line behind `calls=` tells of what is called, which counts where it is.
    let mut called = false;
    for line in text.lines() {
        if let Some((key, value)) =
            line.split_once('=').filter(|(key, _)| key.bytes().all(|b| b.is_ascii_alphabetic()))
        {
            match key {
                "fn" => function = name(&mut names, value),
                "cfn" => drop(name(&mut names, value)),
                "calls" => called = true,
                _ => {}
            }
        } else if line.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '*')) {
            let cost = line.split_ascii_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
            let own = if std::mem::take(&mut called) { None } else { cost };
            *costs.entry(function).or_default() += own.unwrap_or(0);
        }
    }
    costs.into_iter().filter(|(_, cost)| *cost > 0).map(|(name, cost)| (name.to_owned(), cost)).collect()
}

/// `(7) name` names a function and its number; `(7)` alone is that function again.
fn name<'a>(names: &mut HashMap<&'a str, &'a str>, value: &'a str) -> &'a str {
    match value.split_once(' ') {
        Some((number, name)) if number.starts_with('(') => {
            names.insert(number, name);
            name
        }
        _ => names.get(value).copied().unwrap_or(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_have_their_own_instructions_and_not_those_of_others() {
        let text = "# callgrind format\npositions: line\nevents: Ir\nsummary: 30\n\nob=(1) /a\nfl=(1) x.rs\nfn=(1) main\n\
                    16 4\ncfn=(2) work::{{closure}}\ncalls=3 20\n16 900\n+2 1\n\nfn=(2)\n20 600\n* 300\n\nfn=(1)\n-3 5\ntotals: 910\n";
        let profile = read(text);
        assert_eq!(profile["main"], 10);
        assert_eq!(profile["work::{{closure}}"], 900);
        assert_eq!(profile.len(), 2);
    }

    #[test]
    fn nonsense_is_no_profile() {
        assert!(read("").is_empty());
        assert!(read("fn=(1) a\nten 4\n12\n12 many\n").is_empty());
    }
}
