//! Who is measured: the scenario's list, cut down by `--peers`. A name that means nothing is the caller's mistake.

use crate::scenario::{Scenario, ScenarioError};
use crate::subject::Subject;
use crate::{RunArgs, forms, peers, sluice, stores, vault};

/// What one run is about.
pub(crate) type Choice = (Scenario, Vec<Box<dyn Subject>>);

/// Loads the scenario and finds its subjects, in its order.
pub(crate) fn made(name: &str, args: &RunArgs) -> Result<Choice, ScenarioError> {
    let load = |quick| Scenario::load(name, quick, args.repeats);
    let mut scenario = load(args.quick)?;
    if let Some(words) = &args.peers {
        // A peer that is named may be one that the quick form leaves out.
        scenario.subjects = load(false)?.subjects;
        let chosen = only(find(&scenario.subjects, args)?, words)?;
        scenario.subjects = chosen.iter().map(|subject| subject.name().to_owned()).collect();
        return Ok((scenario, chosen));
    }
    let chosen = find(&scenario.subjects, args)?;
    Ok((scenario, chosen))
}

fn find(names: &[String], args: &RunArgs) -> Result<Vec<Box<dyn Subject>>, ScenarioError> {
    let ours = sluice::all(args.sluice.as_deref()).into_iter().map(|s| Box::new(s) as Box<dyn Subject>);
    let theirs = peers::all().into_iter().map(|peer| Box::new(peer) as Box<dyn Subject>);
    let stores = stores::all(args.sluice.as_deref()).into_iter();
    let stores = stores.map(|store| Box::new(store) as Box<dyn Subject>);
    let vaults = vault::all(args.sluice.as_deref()).into_iter();
    let vaults = vaults.map(|vault| Box::new(vault) as Box<dyn Subject>);
    let forms = forms::all(args.sluice.as_deref()).into_iter();
    let forms = forms.map(|form| Box::new(form) as Box<dyn Subject>);
    let mut known: Vec<_> = ours.chain(theirs).chain(stores).chain(vaults).chain(forms).collect();
    let take = |name: &String| {
        let at = known.iter().position(|subject| subject.name() == name);
        at.map(|at| known.swap_remove(at))
            .ok_or_else(|| ScenarioError::Range(format!("`subjects`: `{name}` is unknown or named twice")))
    };
    names.iter().map(take).collect()
}

/// Sluice's own, and the peers that one of `words` names.
fn only(subjects: Vec<Box<dyn Subject>>, words: &[String]) -> Result<Vec<Box<dyn Subject>>, ScenarioError> {
    let ours = |subject: &dyn Subject| subject.program() == sluice::PROGRAM;
    let named = |subject: &dyn Subject, word: &String| {
        !ours(subject) && (subject.program() == word || subject.name() == word)
    };
    let useless = words.iter().find(|word| !subjects.iter().any(|subject| named(subject.as_ref(), word)));
    if let Some(word) = useless {
        return Err(ScenarioError::Range(format!("--peers: the scenario has no peer `{word}`")));
    }
    let keep = |subject: &dyn Subject| ours(subject) || words.iter().any(|word| named(subject, word));
    Ok(subjects.into_iter().filter(|subject| keep(subject.as_ref())).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn names(words: &[&str]) -> Result<Vec<String>, ScenarioError> {
        let arguments = ["sluice-bench", "run"].iter().chain(words);
        let crate::Command::Run(args) = crate::Cli::parse_from(arguments).command else { panic!("not run") };
        let (scenario, subjects) = made(&args.scenarios[0], &args)?;
        let names: Vec<_> = subjects.iter().map(|subject| subject.name().to_owned()).collect();
        assert_eq!(names, scenario.subjects);
        Ok(names)
    }

    #[test]
    fn every_shipped_subject_is_known() {
        let proxies_and_stores =
            ["edge", "edge-orders", "routes", "events", "events-publish", "events-batch", "events-fanout"];
        for scenario in proxies_and_stores.into_iter().chain(Scenario::named("vault")) {
            assert!(!names(&[scenario]).unwrap().is_empty());
            assert!(!names(&[scenario, "--quick"]).unwrap().is_empty());
        }
    }

    #[test]
    fn peers_are_chosen_by_program_and_by_name_and_sluice_stays() {
        let chosen = names(&["edge", "--quick", "--peers", "envoy,nginx-bare"]).unwrap();
        assert_eq!(
            chosen,
            ["sluice-bare", "sluice-policy", "nginx-bare", "envoy-bare", "envoy-policy-es256"]
        );
    }

    #[test]
    fn stores_are_chosen_like_peers() {
        let chosen = names(&["events-publish", "--peers", "redis-server"]).unwrap();
        assert_eq!(chosen, ["sluice-events", "sluice-redis-everysec", "redis-always", "redis-everysec"]);
    }

    #[test]
    fn peers_that_choose_nothing_are_mistakes() {
        for (words, expected) in [
            (["edge", "--peers", "apache"], "no peer `apache`"),
            (["edge", "--peers", "sluice"], "no peer `sluice`"),
            (["routes", "--peers", "nginx"], "no peer `nginx`"),
            (["events-batch", "--peers", "nginx"], "no peer `nginx`"),
            (["vault-revoke", "--peers", "openbao"], "no peer `openbao`"),
        ] {
            let error = names(&words).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
