//! The report as Markdown, for people and for the README.

use std::fmt::Write as _;

use crate::figures::Spread;
use crate::report::{Figures, Report};
use crate::scenario::{Placing, Scenario};
use crate::threshold::Judgement;
use crate::work::Work;

/// Others using more than this share of a core make the figures doubtful.
const NEIGHBOURS_DOUBTFUL: f64 = 0.1;

/// Renders the whole report.
pub(crate) fn render(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail; the closure keeps the `?` in one place.
    let mut all = || -> std::fmt::Result {
        heading(&mut text, report)?;
        for pace in paces(report) {
            figures(&mut text, report, pace)?;
        }
        sweeps(&mut text, report)?;
        growths(&mut text, report)?;
        ratios(&mut text, report)?;
        subjects(&mut text, report)?;
        if let Some(comparison) = &report.comparison {
            comparison.render(&mut text, &report.machine.cpu)?;
        }
        verdicts(&mut text, report)
    };
    all().expect("writing to a String cannot fail");
    text
}

/// Every pace, in the order of the cells.
pub(crate) fn paces(report: &Report) -> Vec<&str> {
    let mut paces: Vec<&str> = Vec::new();
    for cell in &report.cells {
        if !paces.contains(&cell.pace.as_str()) {
            paces.push(&cell.pace);
        }
    }
    paces
}

fn heading(text: &mut String, report: &Report) -> std::fmt::Result {
    let (scenario, machine) = (&report.scenario, &report.machine);
    let form = if scenario.quick { " (quick: proves that it works, not how fast)" } else { "" };
    writeln!(text, "## {}{form}\n", scenario.name)?;
    writeln!(
        text,
        "{} cores of {}{}, {} MiB, Linux {}. {} interleaved rounds of {} ms after {} ms warm-up, {} keep-alive \
         connections, {}, {}. {} Figures are medians of the rounds, in brackets \
         lowest to highest.",
        machine.cores,
        machine.cpu,
        if machine.hypervisor { " (virtual)" } else { "" },
        machine.memory_mib,
        machine.kernel,
        scenario.repeats,
        scenario.window_ms,
        scenario.warmup_ms,
        scenario.connections,
        scenario.transport.words(),
        question(scenario),
        pinning(report),
    )?;
    if report.interrupted {
        writeln!(text, "\n> Broken off after {:.0} s: figures are of the rounds until then.", report.took_s)?;
    }
    if machine.bench_build == "debug" {
        writeln!(text, "\n> The generator is an unoptimised build: closed-loop figures show its limit.")?;
    }
    match report.neighbours_cores {
        Some(used) if used > NEIGHBOURS_DOUBTFUL => {
            writeln!(
                text,
                "\n> Other processes and the host took {used:.2} cores meanwhile: do not trust latencies."
            )
        }
        Some(used) => writeln!(text, "\nOther processes and the host took {used:.2} cores meanwhile."),
        None => Ok(()),
    }
}

fn question(scenario: &Scenario) -> String {
    let (asked, answered) = (&scenario.request, scenario.body_bytes);
    if let Some(words) = &scenario.words {
        return words.clone();
    }
    match scenario.work {
        Work::Forward => {}
        Work::Publish { batch: 1 } => return format!("each request stores an event of {answered} bytes"),
        Work::Publish { batch } => {
            return format!(
                "each request stores {batch} events of {answered} bytes (events/s = {batch} × requests/s)"
            );
        }
        Work::Fanout { batch, subscribers } => {
            return format!(
                "each request stores {batch} events of {answered} bytes for {subscribers} subscribers; a paced rate is \
                 one of requests, and what is counted and timed are the {} deliveries of each",
                scenario.work.deliveries()
            );
        }
        Work::Vault { op } => {
            return format!("each request {}; secrets have {answered} bytes", op.words());
        }
        Work::Revoke => {
            return "each trial revokes a token and takes from then until the edge refuses it".to_owned();
        }
        Work::Calculate { bars } => {
            return format!("each request has four indicators computed of {bars} bars, all values back");
        }
        Work::Replay { events } => {
            return format!(
                "each trial counts the events of one symbol and type among {events} of {answered} bytes, all of them"
            );
        }
        Work::Restart { events } => {
            return format!(
                "each trial kills the process that holds {events} events and takes until the next one acknowledges an event"
            );
        }
        Work::Reload => {
            return "each trial adds a service and takes from the signal to reload until it is routed"
                .to_owned();
        }
        Work::Unseal { secrets } => {
            return format!(
                "each trial opens a vault of {secrets} secrets of {answered} bytes and takes until it serves"
            );
        }
    }
    match asked.body_bytes {
        0 if scenario.tokens > 1 => {
            format!(
                "{} by {} callers, with an answer of {answered} bytes",
                asked.method.word(),
                scenario.tokens
            )
        }
        0 => format!("{} with an answer of {answered} bytes", asked.method.word()),
        sent => {
            let key = if asked.idempotency_key { ", each under a key of its own" } else { "" };
            format!("{} of {sent} bytes{key}, answered by {answered} bytes", asked.method.word())
        }
    }
}

fn pinning(report: &Report) -> String {
    match (&report.cores, &report.pinning_note) {
        (None, _) if report.scenario.cores == Placing::Shared => {
            "Everything on every core, the generator too.".into()
        }
        (Some(cores), _) => {
            let (first, second) = match report.scenario.work {
                Work::Forward | Work::Revoke => ("Proxy", "generator and origin"),
                Work::Reload => ("Proxy", "generator"),
                Work::Calculate { .. } => ("Worker", "generator"),
                Work::Vault { .. } | Work::Unseal { .. } => ("Vault", "generator"),
                Work::Publish { .. } | Work::Fanout { .. } | Work::Replay { .. } | Work::Restart { .. } => {
                    ("Store", "generator")
                }
            };
            format!("{first} on core {}, {second} on core {}.", cores.proxy, cores.load)
        }
        (None, note) => format!("NOT PINNED ({}).", note.as_deref().unwrap_or("unknown")),
    }
}

fn figures(text: &mut String, report: &Report, pace: &str) -> std::fmt::Result {
    let open = pace.starts_with("open");
    let title = if open { "open loop, latency from the intended send time" } else { "closed loop" };
    writeln!(text, "\n### {pace} ({title})\n")?;
    writeln!(
        text,
        "| subject | requests/s | CPU µs a request | switches | core busy | p50 ms | p90 | p99 | p99.9 | max | send lag p99 ms | RSS MiB |"
    )?;
    writeln!(text, "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")?;
    for cell in report.cells.iter().filter(|cell| cell.pace == pace) {
        row(text, cell, open)?;
    }
    for subject in report.subjects.iter().filter(|subject| subject.not_available.is_some()) {
        writeln!(text, "| {} | not available |{}", subject.name, " – |".repeat(10))?;
    }
    let failing: Vec<_> = report.cells.iter().filter(|cell| cell.pace == pace && cell.failed > 0).collect();
    if !failing.is_empty() {
        writeln!(text)?;
    }
    for cell in failing {
        let kinds = cell.failures.kinds().into_iter().map(|(kind, count)| format!("{count} {kind}"));
        let kinds: Vec<_> = kinds.collect();
        writeln!(text, "- {} failed: {} ({})", cell.subject, kinds.join(", "), cell.complaints.join("; "))?;
    }
    Ok(())
}

fn sweeps(text: &mut String, report: &Report) -> std::fmt::Result {
    let Some(sweep) = &report.scenario.sweep else { return Ok(()) };
    writeln!(
        text,
        "\n### highest rate held (answered as fast as asked, nothing failed, p99 ≤ {} ms)\n",
        sweep.p99_ms_max
    )?;
    writeln!(
        text,
        "| subject | held a second | p50 ms there | p99 ms | CPU µs a request | next rate's p99 ms |"
    )?;
    writeln!(text, "|---|---:|---:|---:|---:|---:|")?;
    for climb in &report.sweeps {
        let knee = climb.knee_per_s.map_or(0.0, |knee| knee.median);
        let at = climb.points.iter().rev().find(|point| f64::from(point.rate_per_s) <= knee);
        let next = climb.points.iter().find(|point| f64::from(point.rate_per_s) > knee);
        let told = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
        };
        let mark = match (climb.generator_late, climb.beyond) {
            (true, _) => " (generator late)",
            (_, true) => " (not lost yet)",
            _ => "",
        };
        writeln!(
            text,
            "| {}{mark} | {} | {} | {} | {} | {} |",
            climb.subject,
            spread(climb.knee_per_s, 1.0, 0),
            told(at.map(|point| point.p50_ms), 2),
            told(at.map(|point| point.p99_ms), 2),
            told(at.and_then(|point| point.cpu_us), 1),
            told(next.map(|point| point.p99_ms), 1),
        )?;
    }
    Ok(())
}

fn row(text: &mut String, cell: &Figures, open: bool) -> std::fmt::Result {
    let mark = if open && !cell.kept_rate { " (saturated)" } else { "" };
    let counted =
        |count: u64, word: &str| if count > 0 { format!(" ({count} {word})") } else { String::new() };
    let failed =
        counted(cell.failed - cell.left_waiting, "failed") + &counted(cell.left_waiting, "left waiting");
    writeln!(
        text,
        "| {}{mark}{failed} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        cell.subject,
        spread(cell.requests_per_s, 1.0, 0),
        spread(cell.cpu_us, 1.0, 1),
        median(cell.switches, 1.0, 2, ""),
        median(cell.core_busy, 100.0, 0, " %"),
        spread(cell.p50_ms, 1.0, 2),
        median(cell.p90_ms, 1.0, 2, ""),
        spread(cell.p99_ms, 1.0, 2),
        spread(cell.p999_ms, 1.0, 2),
        median(cell.max_ms, 1.0, 1, ""),
        spread(cell.send_lag_p99_ms, 1.0, 2),
        median(cell.rss_bytes, 1.0 / 1_048_576.0, 0, ""),
    )
}

fn median(spread: Option<Spread>, unit: f64, digits: usize, suffix: &str) -> String {
    spread.map_or("–".into(), |s| format!("{:.digits$}{suffix}", s.median * unit))
}

fn spread(spread: Option<Spread>, unit: f64, digits: usize) -> String {
    spread.map_or("–".into(), |s| {
        let [middle, low, high] = [s.median, s.low, s.high].map(|value| value * unit);
        format!("{middle:.digits$} ({low:.digits$}–{high:.digits$})")
    })
}

fn growths(text: &mut String, report: &Report) -> std::fmt::Result {
    for grown in &report.growths {
        writeln!(text, "\n### {} with more and more {}\n", grown.subject, grown.of.words())?;
        writeln!(text, "| {} | answers/s | CPU µs each | p50 ms | p99 ms | RSS MiB |", grown.of.words())?;
        writeln!(text, "|---:|---:|---:|---:|---:|---:|")?;
        for step in &grown.points {
            let failed = if step.failed > 0 { format!(" ({} failed)", step.failed) } else { String::new() };
            writeln!(
                text,
                "| {}{failed} | {} | {} | {} | {} | {} |",
                step.at,
                spread(step.per_s, 1.0, 0),
                spread(step.cpu_us, 1.0, 1),
                spread(step.p50_ms, 1.0, 2),
                spread(step.p99_ms, 1.0, 2),
                spread(step.rss_bytes, 1.0 / 1_048_576.0, 0),
            )?;
        }
    }
    Ok(())
}

/// CPU a request of each subject over each other one, closed loop.
fn ratios(text: &mut String, report: &Report) -> std::fmt::Result {
    let measured: Vec<&str> = report
        .cells
        .iter()
        .filter(|c| c.pace == "closed" && c.subject != "direct")
        .map(|c| c.subject.as_str())
        .collect();
    if measured.is_empty() || report.ratios.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n### CPU a request, row ÷ column (closed loop, paired by round)\n")?;
    writeln!(text, "| | {} |", measured.join(" | "))?;
    writeln!(text, "|---|{}", "---:|".repeat(measured.len()))?;
    for own in &measured {
        write!(text, "| {own} |")?;
        for peer in &measured {
            let found =
                report.ratios.iter().find(|r| r.pace == "closed" && r.subject == *own && r.peer == *peer);
            match found {
                Some(ratio) => write!(text, " {:.2} |", ratio.cpu.median)?,
                None => write!(text, " – |")?,
            }
        }
        writeln!(text)?;
    }
    Ok(())
}

fn subjects(text: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(text, "\n| subject | version | SHA-256 | does |\n|---|---|---|---|")?;
    for subject in &report.subjects {
        let missing = || format!("not available: {}", subject.not_available.as_deref().unwrap_or("unknown"));
        let version = subject.version.clone().unwrap_or_else(missing);
        let hash = subject.sha256.as_ref().map_or("–", |hash| &hash[..hash.len().min(12)]);
        writeln!(
            text,
            "| {} | {} | {hash} | {} |",
            subject.name,
            version.replace('|', "/"),
            subject.policies
        )?;
    }
    Ok(())
}

fn verdicts(text: &mut String, report: &Report) -> std::fmt::Result {
    let noted = report.verdicts.iter().filter(|verdict| verdict.result != Judgement::Met);
    let met = report.verdicts.iter().filter(|verdict| verdict.result == Judgement::Met).count();
    writeln!(text, "\n{met} of {} checks met.", report.verdicts.len())?;
    for verdict in noted {
        let word = if verdict.result == Judgement::Missed { "MISSED" } else { "not measured" };
        writeln!(text, "- {word}: {}", verdict.told())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn tables_name_every_subject_the_missing_one_and_the_missed_check() {
        let text = render(&sample());
        for expected in [
            "## edge (quick",
            "Proxy on core 0, generator and origin on core 1.",
            "Other processes and the host took 0.40 cores meanwhile: do not trust latencies",
            "### open 1000/s (open loop, latency from the intended send time)",
            "| sluice-policy (saturated) | 900 (900–1000) |",
            "| haproxy-bare | 1000 (1000–1000) | 20.0 (18.0–22.0) | 0.50 | 50 % |",
            "| nginx-bare | not available |",
            "| sluice-policy | – | 2.00 |",
            "| nginx-bare | not available: no `nginx` in PATH | – |",
            "| haproxy-bare | HAProxy 2.6 | 0123456789ab | some |",
            "GET with an answer of 1024 bytes",
            "- MISSED: sluice-policy open 1000/s: the subject keeps the rate, found 900.000: answered 900 of 1000",
        ] {
            assert!(text.contains(expected), "lacks `{expected}`:\n{text}");
        }
    }

    #[test]
    fn every_row_of_a_table_has_as_many_cells_as_its_head() {
        let text = render(&sample());
        let mut width = 0;
        for line in text.lines() {
            let cells = line.matches('|').count();
            assert!(width == 0 || cells == 0 || cells == width, "{line}");
            width = cells;
        }
    }

    #[test]
    fn broken_off_runs_say_so() {
        let report = Report { interrupted: true, cells: Vec::new(), ..sample() };
        assert!(render(&report).contains("> Broken off after 12 s"));
        assert!(!render(&sample()).contains("Broken off"));
    }

    #[test]
    fn unpinned_runs_say_so() {
        let report = Report { cores: None, pinning_note: Some("one core only".into()), ..sample() };
        assert!(render(&report).contains("NOT PINNED (one core only)."));
    }
}
