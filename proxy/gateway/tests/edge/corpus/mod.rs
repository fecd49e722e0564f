//! What the edge does with requests that are malformed, ambiguous or too large, and with those that look
//! it and are right: cases as data, driven over raw sockets against an upstream that records every byte.

mod answers;
mod bodies;
mod case;
mod drive;
mod heads;
mod hosts;
mod leaving;
mod mutate;
mod origin;
mod paths;
mod scripts;
mod sizes;
mod strict;
mod targets;
mod wire;

use std::collections::BTreeSet;
use std::time::Instant;

use drive::Course;

fn all() -> Vec<case::Case> {
    [heads::cases(), hosts::cases(), targets::cases(), bodies::cases(), sizes::cases()].concat()
}

#[test]
fn cases_have_names_of_their_own_and_are_many() {
    let cases = all();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "a name is used twice");
    assert!(cases.len() >= 400, "{}", cases.len());
}

#[test]
fn every_case_ends_as_written_and_leaves_nothing_behind() {
    let course = Course::start(sizes::BODY_BYTES);
    let cases = all();
    let begun = Instant::now();
    let faults = course.run(&cases);
    println!("{} cases in {:?}", cases.len(), begun.elapsed());
    assert!(faults.is_empty(), "{} of {} cases fail:\n{}", faults.len(), cases.len(), faults.join("\n"));
}
