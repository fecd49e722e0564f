//! The report of the kernels as one page of HTML, drawn as the other scenarios' is.

use std::fmt::Write as _;

use super::report::{Report, Section};
use super::timing::{CRATE, Length, OURS, TALIB, TULIP};
use crate::figures::Spread;
use crate::page::plot::{Line, draw, share};
use crate::page::{bars, document, text};

/// Renders the page.
pub(super) fn render(report: &Report) -> String {
    document(&report.scenario, |html| {
        let form = if report.quick { " (quick: proves that it works, not how fast)" } else { "" };
        write!(html, "<h1>{}{form}</h1><p>", text(&report.scenario))?;
        write!(
            html,
            "One core of {}, Linux {}. {} rounds, in turns of the builds; rivals in one process with the same buffers; \
             medians of the rounds.</p>",
            text(&report.machine.cpu),
            text(&report.machine.kernel),
            report.rounds
        )?;
        report.sections.iter().try_for_each(|section| one(html, section))?;
        checks(html, report)
    })
}

fn one(html: &mut String, section: &Section) -> std::fmt::Result {
    write!(html, "<section><h2>{} bars, {}</h2>", section.bars, text(&section.build))?;
    let rivals = [TALIB, CRATE, TULIP].map(|who| (who, section.times(who)));
    let times: Vec<_> = rivals.iter().filter_map(|(who, times)| Some((*who, alone((*times)?)))).collect();
    bars(html, "Time of another over that of Sluice, geometric mean of the kernels", "×", &times)?;
    for (kernel, figures) in &section.kernels {
        let of = |who: &'static str| Some((who, alone(*figures.get(who)?)));
        let rows: Vec<_> = [OURS, TALIB, CRATE, TULIP].into_iter().filter_map(of).collect();
        bars(html, kernel, "ns a bar", &rows)?;
    }
    lengths(html, section)?;
    write!(html, "</section>")
}

/// Time of a bar by the length of its series.
fn lengths(html: &mut String, section: &Section) -> std::fmt::Result {
    let means = section.lengths();
    let ([first, ..], [.., last]) = (&means[..], &means[..]) else { return Ok(()) };
    if last.bars <= first.bars {
        return Ok(());
    }
    let at = |bars: usize| share(bars as f64, first.bars as f64, last.bars as f64);
    let marks: Vec<_> = means.iter().map(|one| (at(one.bars), one.bars.to_string())).collect();
    let line = |name, lengths: &[Length], figure: fn(&Length) -> Option<f64>| Line {
        name,
        points: lengths.iter().filter_map(|one| Some((at(one.bars), figure(one)?))).collect(),
        mark: None,
    };
    let both = [line("Sluice", &means, |one| Some(one.ours)), line("TA-Lib in C", &means, |one| one.talib)];
    draw(html, "Geometric mean of the kernels by length of the series", "ns a bar", &marks, &both)?;
    let each: Vec<_> =
        section.growth.iter().map(|(name, lengths)| line(name, lengths, |one| Some(one.ours))).collect();
    draw(html, "Each kernel by length of the series", "ns a bar", &marks, &each)
}

fn checks(html: &mut String, report: &Report) -> std::fmt::Result {
    if report.checks.is_empty() {
        return Ok(());
    }
    write!(html, "<section><h2>Checks</h2><ul>")?;
    for check in &report.checks {
        let (class, word) = if check.met { ("good", "met") } else { ("bad", "missed") };
        let (what, figure, goal) = (text(&check.what), check.figure, check.goal);
        write!(html, "<li class=\"{class}\">{word}: {what}: {figure:.2}, goal {goal:.2}</li>")?;
    }
    write!(html, "</ul></section>")
}

fn alone(value: f64) -> Spread {
    Spread { median: value, low: value, high: value }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::kernels::timing::Round;
    use crate::machine::Machine;

    #[test]
    fn the_page_holds_every_kernel_and_its_lengths() {
        let lengths = [(10, 90.0), (1_000, 2.0), (100_000, 1.0)];
        let lengths = lengths.map(|(bars, ours)| Length { bars, ours, talib: Some(ours * 3.0) });
        let round = Round {
            build: "baseline".into(),
            kernels: BTreeMap::from([(
                "sma".to_owned(),
                BTreeMap::from([(OURS.to_owned(), 0.5), (TALIB.to_owned(), 1.5)]),
            )]),
            growth: BTreeMap::from([("sma".to_owned(), lengths.to_vec())]),
            ..Round::default()
        };
        let section = Section::of(100_000, &[round]);
        assert!(section.lengths().iter().map(|one| one.bars).eq([10, 1_000, 100_000]));
        let report = Report {
            schema: "x",
            scenario: "calc".into(),
            quick: true,
            interrupted: false,
            machine: Machine::describe(1),
            others_used: None,
            rounds: 1,
            rivals: BTreeMap::new(),
            sections: vec![section],
            checks: Vec::new(),
            comparison: None,
        };
        let page = render(&report);
        for expected in
            ["<h3>sma</h3>", ">3.00 <small>", "Each kernel by length of the series", ">100000</text>"]
        {
            assert!(page.contains(expected), "lacks `{expected}`:\n{page}");
        }
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }
}
