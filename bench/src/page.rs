//! The report as one page of HTML: nothing is loaded from anywhere, and it reads on a phone as on a screen.
//!
//! Curves are SVG, bars are boxes of a width; every figure drawn stands beside it as text.

pub(crate) mod plot;

use std::fmt::Write as _;

use crate::figures::Spread;
use crate::report::{Figures, Ratio, Report};
use crate::table;
use crate::threshold::Judgement;

/// What is drawn as bars, each of the subjects one: a title, the unit, and the figure.
type Bars = (&'static str, &'static str, fn(&Figures) -> Option<Spread>);
const BARS: [Bars; 3] = [
    ("CPU time a request", "µs", |figures| figures.cpu_us),
    ("Answers a second", "/s", |figures| figures.requests_per_s),
    ("Resident memory", "MiB", |figures| {
        figures.rss_bytes.map(|bytes| bytes.times(1.0 / f64::from(1 << 20)))
    }),
];

/// The pace at which CPU times are compared.
const CLOSED: &str = "closed";

/// Renders the page.
pub(crate) fn render(report: &Report) -> String {
    document(&report.scenario.name, |html| {
        heading(html, report)?;
        for pace in table::paces(report) {
            of_pace(html, report, pace)?;
        }
        sweeps(html, report)?;
        growths(html, report)?;
        subjects(html, report)?;
        verdicts(html, report)
    })
}

/// A whole page of this name.
pub(crate) fn document(name: &str, body: impl FnOnce(&mut String) -> std::fmt::Result) -> String {
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{} · sluice-bench</title><style>{}</style><main>",
        text(name),
        include_str!("page/page.css")
    );
    body(&mut html).expect("writing to a String cannot fail");
    html + "</main></html>"
}

fn heading(html: &mut String, report: &Report) -> std::fmt::Result {
    let (scenario, machine) = (&report.scenario, &report.machine);
    let word = match (report.interrupted, report.passed) {
        (true, _) => "broken off",
        (_, true) => "all checks met",
        (_, false) => "checks missed",
    };
    let form = if scenario.quick { " (quick: proves that it works, not how fast)" } else { "" };
    write!(html, "<h1>{}{form}</h1><p class=\"word\">{word}</p><p>", text(&scenario.name))?;
    write!(
        html,
        "{} cores of {}{}, {} MiB, Linux {}. {} interleaved rounds of {} ms after {} ms warm-up, {} connections. \
         Figures are medians of the rounds, in brackets lowest to highest.",
        machine.cores,
        text(&machine.cpu),
        if machine.hypervisor { " (virtual)" } else { "" },
        machine.memory_mib,
        text(&machine.kernel),
        scenario.repeats,
        scenario.window_ms,
        scenario.warmup_ms,
        scenario.connections,
    )?;
    if let Some(used) = report.neighbours_cores {
        write!(html, " Other processes and the host took {used:.2} cores meanwhile.")?;
    }
    write!(html, "</p>")
}

fn of_pace(html: &mut String, report: &Report, pace: &str) -> std::fmt::Result {
    let cells: Vec<&Figures> = report.cells.iter().filter(|cell| cell.pace == pace).collect();
    write!(html, "<section><h2>{}</h2>", text(pace))?;
    plot::percentiles(html, &cells)?;
    plot::over_time(html, &cells, report.scenario.window_ms)?;
    for (title, unit, figure) in BARS {
        let rows: Vec<(&str, Spread)> =
            cells.iter().filter_map(|cell| Some((cell.subject.as_str(), figure(cell)?))).collect();
        bars(html, title, unit, &rows)?;
    }
    let owns = cells.iter().map(|cell| cell.subject.as_str()).filter(|name| name.starts_with("sluice"));
    for own in owns.filter(|_| pace == CLOSED) {
        let of = |ratio: &&Ratio| ratio.pace == pace && ratio.subject == own && ratio.peer != "direct";
        let rows: Vec<(&str, Spread)> =
            report.ratios.iter().filter(of).map(|ratio| (ratio.peer.as_str(), ratio.cpu)).collect();
        bars(html, &format!("CPU time of {own} as a share of that of"), "×", &rows)?;
    }
    failures(html, &cells)?;
    write!(html, "</section>")
}

fn growths(html: &mut String, report: &Report) -> std::fmt::Result {
    let Some(first) = report.growths.first() else { return Ok(()) };
    write!(html, "<section><h2>More and more {}</h2>", first.of.words())?;
    plot::growths(html, "CPU time of each answer", "µs", &report.growths, |step| step.cpu_us)?;
    plot::growths(html, "99th percentile", "ms", &report.growths, |step| step.p99_ms)?;
    plot::growths(html, "Resident memory", "MiB", &report.growths, |step| {
        step.rss_bytes.map(|bytes| bytes.times(1.0 / f64::from(1 << 20)))
    })?;
    write!(html, "</section>")
}

fn sweeps(html: &mut String, report: &Report) -> std::fmt::Result {
    let Some(sweep) = &report.scenario.sweep else { return Ok(()) };
    write!(html, "<section><h2>Faster and faster</h2>")?;
    plot::knees(html, &report.sweeps)?;
    let held = format!("Highest rate held, with a 99th percentile of at most {} ms", sweep.p99_ms_max);
    let rows: Vec<(&str, Spread)> =
        report.sweeps.iter().filter_map(|climb| Some((climb.subject.as_str(), climb.knee_per_s?))).collect();
    bars(html, &held, "/s", &rows)?;
    for climb in report.sweeps.iter().filter(|climb| climb.generator_late) {
        let name = text(&climb.subject);
        write!(html, "<p class=\"bad\">{name}: the generator was late: the knee is its own</p>")?;
    }
    write!(html, "</section>")
}

/// A bar for each row; the line on it reaches from the lowest round to the highest.
pub(crate) fn bars(html: &mut String, title: &str, unit: &str, rows: &[(&str, Spread)]) -> std::fmt::Result {
    let most = rows.iter().map(|(_, spread)| spread.high).fold(0.0, f64::max);
    if rows.is_empty() || most <= 0.0 {
        return Ok(());
    }
    write!(html, "<h3>{}</h3><dl>", text(title))?;
    for (name, Spread { median, low, high }) in rows {
        let share = |value: f64| value / most * 100.0;
        let class = if name.starts_with("sluice") { " class=\"own\"" } else { "" };
        write!(
            html,
            "<dt{class}>{}</dt><dd{class}><b style=\"width:{:.2}%\"></b><i style=\"left:{:.2}%;width:{:.2}%\"></i>\
             <span>{} <small>({}–{}) {unit}</small></span></dd>",
            text(name),
            share(*median),
            share(*low),
            share(high - low),
            number(*median),
            number(*low),
            number(*high),
        )?;
    }
    write!(html, "</dl>")
}

fn failures(html: &mut String, cells: &[&Figures]) -> std::fmt::Result {
    for cell in cells.iter().filter(|cell| cell.failed > 0 || !cell.kept_rate) {
        let rate = if cell.kept_rate { "" } else { ", did not keep the rate" };
        let kinds: Vec<_> =
            cell.failures.kinds().into_iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let kinds = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
        write!(html, "<p class=\"bad\">{}: {} failed{kinds}{rate}", text(&cell.subject), cell.failed)?;
        for complaint in &cell.complaints {
            write!(html, "; {}", text(complaint))?;
        }
        write!(html, "</p>")?;
    }
    Ok(())
}

fn subjects(html: &mut String, report: &Report) -> std::fmt::Result {
    write!(
        html,
        "<section><h2>Subjects</h2><div class=\"wide\"><table><tr><th>name<th>what it does<th>version</tr>"
    )?;
    for subject in &report.subjects {
        let version = subject.not_available.as_ref().or(subject.version.as_ref());
        let version = version.map_or("", String::as_str);
        write!(
            html,
            "<tr><td>{}<td>{}<td>{}</tr>",
            text(&subject.name),
            text(&subject.policies),
            text(version)
        )?;
    }
    write!(html, "</table></div></section>")
}

fn verdicts(html: &mut String, report: &Report) -> std::fmt::Result {
    if report.verdicts.is_empty() {
        return Ok(());
    }
    write!(html, "<section><h2>Checks</h2><ul>")?;
    for verdict in &report.verdicts {
        let (class, word) = match verdict.result {
            Judgement::Missed => ("bad", "missed"),
            Judgement::Met => ("good", "met"),
            Judgement::NotMeasured => ("", "not measured"),
        };
        write!(html, "<li class=\"{class}\">{word}: {}</li>", text(&verdict.told()))?;
    }
    write!(html, "</ul></section>")
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Text as HTML has it, also within quotes.
pub(crate) fn text(plain: &str) -> String {
    let mut html = String::with_capacity(plain.len());
    for letter in plain.chars() {
        match letter {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            letter => html.push(letter),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn the_page_loads_nothing_and_holds_what_the_report_does() {
        let page = render(&sample());
        for expected in [
            "<title>edge · sluice-bench</title>",
            "<h2>open 1000/s</h2>",
            "<h3>99th percentile by rate</h3>",
            ">900/s</text>",
            "<p class=\"bad\">sluice-policy: 0 failed, did not keep the rate",
            "CPU time of sluice-policy as a share of that of",
            "<td>nginx-bare<td>some<td>no `nginx` in PATH</tr>",
            "missed: sluice-policy open 1000/s: the subject keeps the rate",
            "checks missed",
        ] {
            assert!(page.contains(expected), "lacks `{expected}`:\n{page}");
        }
        for loads in ["http:", "https:", "src=", "href=", "url(", "<script"] {
            assert!(!page.contains(loads), "{loads}");
        }
        assert_eq!(page.matches("<section>").count(), page.matches("</section>").count());
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }

    #[test]
    fn names_cannot_become_markup() {
        let mut report = sample();
        report.subjects[0].policies = "<script>\"&".into();
        let page = render(&report);
        assert!(page.contains("&lt;script&gt;&quot;&amp;") && !page.contains("<script>"));
    }

    #[test]
    fn a_run_without_figures_is_a_page_too() {
        let report = Report { interrupted: true, cells: Vec::new(), ratios: Vec::new(), ..sample() };
        assert!(render(&report).contains("broken off"));
    }
}
