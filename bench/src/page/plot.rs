//! Lines over an axis of powers of ten, as SVG: what is drawn is named below, and what it is read from stands in the
//! report's tables.

use std::f64::consts::LOG10_2;
use std::fmt::Write as _;

use super::{number, text};
use crate::figures::Spread;
use crate::growth::{Grown, Step};
use crate::report::Figures;
use crate::sweep::Climbed;

/// The drawing's own units.
const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 28.0;
const TOP: f64 = 8.0;
/// Nines at the right end: 99.99 %.
const NINES: f64 = 4.0;
/// Marks below the percentiles.
const SHARES: [(f64, &str); 6] =
    [(0.0, "0"), (LOG10_2, "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (NINES, "99.99 %")];
/// Marks below what has no natural ones.
const MARKS: u32 = 5;
/// Colours that are told apart by who sees few of them, on white and on black; then dashed once more.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f"];
const DASHES: [&str; 3] = ["none", "8 5", "2 4"];

/// One line: points whose first number is a share of the width.
pub(crate) struct Line<'a> {
    pub name: &'a str,
    pub points: Vec<(f64, f64)>,
    /// Where something is to be seen, and what.
    pub mark: Option<((f64, f64), String)>,
}

/// The axis of what is measured: from the least to the most that is drawn, in powers of ten.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    fn of(lines: &[Line<'_>]) -> Option<Self> {
        let values = || {
            lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value).filter(|value| *value > 0.0)
        };
        let (low, high) = (
            values().fold(f64::INFINITY, f64::min).log10().floor(),
            values().fold(0.0, f64::max).log10().ceil(),
        );
        (low.is_finite() && high.is_finite()).then_some(Self { low, high: high.max(low + 1.0) })
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value.max(1e-9).log10() - self.low) / (self.high - self.low);
        TOP + (HEIGHT - BOTTOM - TOP) * (1.0 - share.clamp(0.0, 1.0))
    }
}

fn x(share: f64) -> f64 {
    LEFT + (WIDTH - LEFT - 8.0) * share.clamp(0.0, 1.0)
}

/// Where a number lies between others on a logarithmic axis.
pub(crate) fn share(at: f64, low: f64, high: f64) -> f64 {
    (at / low).ln() / (high / low).ln()
}

fn stroke(at: usize) -> String {
    let (colour, dash) = (COLOURS[at % COLOURS.len()], DASHES[at / COLOURS.len() % DASHES.len()]);
    format!("stroke=\"{colour}\" stroke-dasharray=\"{dash}\"")
}

/// Latency by percentile: nines on one axis, time on the other, both logarithmic.
pub(super) fn percentiles(html: &mut String, cells: &[&Figures]) -> std::fmt::Result {
    let nines = |share: f64| -(1.0 - share).max(1e-9).log10() / NINES;
    let line = |cell: &&'_ Figures| cell.curve_ms.iter().map(|(share, ms)| (nines(*share), *ms)).collect();
    let lines: Vec<_> =
        cells.iter().map(|cell| Line { name: &cell.subject, points: line(cell), mark: None }).collect();
    let marks: Vec<_> = SHARES.iter().map(|(at, word)| (at / NINES, (*word).to_owned())).collect();
    draw(html, "Latency by percentile", "ms", &marks, &lines)
}

/// The slowest percent of what was due in each slice of the window.
pub(super) fn over_time(html: &mut String, cells: &[&Figures], window_ms: u64) -> std::fmt::Result {
    let share = |at_ms: f64| at_ms / window_ms.max(1) as f64;
    let line = |cell: &&'_ Figures| -> Vec<(f64, f64)> {
        let told = cell.over_time.iter().filter(|moment| moment.p99_ms > 0.0);
        told.map(|moment| (share(moment.at_ms), moment.p99_ms)).collect()
    };
    let lines: Vec<_> =
        cells.iter().map(|cell| Line { name: &cell.subject, points: line(cell), mark: None }).collect();
    let mark = |at: u32| {
        let share = f64::from(at) / f64::from(MARKS);
        (share, format!("{} s", number(share * window_ms as f64 / 1000.0)))
    };
    let marks: Vec<_> = (0..=MARKS).map(mark).collect();
    draw(html, "99th percentile over the time of the window", "ms", &marks, &lines)
}

/// Rate against the 99th percentile, with the highest rate that was held.
pub(super) fn knees(html: &mut String, climbs: &[Climbed]) -> std::fmt::Result {
    let rates = || climbs.iter().flat_map(|climb| &climb.points).map(|point| f64::from(point.rate_per_s));
    let (low, high) = (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max));
    if high <= low {
        return Ok(());
    }
    let share = |rate: f64| share(rate, low, high);
    let line = |climb: &'_ Climbed| {
        let points: Vec<_> =
            climb.points.iter().map(|point| (share(point.rate_per_s.into()), point.p99_ms)).collect();
        let knee = climb.knee_per_s.map_or(0.0, |knee| knee.median);
        let held = climb.points.iter().rev().find(|point| f64::from(point.rate_per_s) <= knee);
        held.map(|point| ((share(knee), point.p99_ms), format!("{knee:.0}/s")))
            .map_or_else(|| (points.clone(), None), |mark| (points.clone(), Some(mark)))
    };
    let lines: Vec<_> = climbs
        .iter()
        .map(|climb| {
            let (points, mark) = line(climb);
            Line { name: &climb.subject, points, mark }
        })
        .collect();
    let mark = |at: u32| {
        let share = f64::from(at) / f64::from(MARKS);
        (share, format!("{}/s", number(low * (high / low).powf(share))))
    };
    let marks: Vec<_> = (0..=MARKS).map(mark).collect();
    draw(html, "99th percentile by rate", "ms", &marks, &lines)
}

/// A figure by how much there is of something.
pub(super) fn growths(
    html: &mut String,
    title: &str,
    unit: &str,
    grown: &[Grown],
    figure: impl Fn(&Step) -> Option<Spread>,
) -> std::fmt::Result {
    let steps = || grown.iter().flat_map(|grown| &grown.points).map(|step| step.at as f64);
    let (low, high) = (steps().fold(f64::INFINITY, f64::min), steps().fold(0.0, f64::max));
    if high <= low {
        return Ok(());
    }
    let share = |at: f64| share(at, low, high);
    let line = |grown: &'_ Grown| -> Vec<(f64, f64)> {
        let found =
            grown.points.iter().filter_map(|step| Some((share(step.at as f64), figure(step)?.median)));
        found.collect()
    };
    let lines: Vec<_> =
        grown.iter().map(|grown| Line { name: &grown.subject, points: line(grown), mark: None }).collect();
    let marks: Vec<_> =
        grown[0].points.iter().map(|step| (share(step.at as f64), step.at.to_string())).collect();
    draw(html, title, unit, &marks, &lines)
}

/// Draws the lines and names them below.
pub(crate) fn draw(
    html: &mut String,
    title: &str,
    unit: &str,
    marks: &[(f64, String)],
    lines: &[Line<'_>],
) -> std::fmt::Result {
    let Some(axis) = Axis::of(lines) else { return Ok(()) };
    write!(
        html,
        "<h3>{title}</h3><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}, {unit} on a \
         logarithmic axis; the figures are in the report\">"
    )?;
    grid(html, &axis, unit, marks)?;
    for (at, line) in lines.iter().enumerate() {
        let mut path = String::new();
        for (index, (share, value)) in line.points.iter().enumerate() {
            let word = if index == 0 { 'M' } else { 'L' };
            write!(path, "{word}{:.1} {:.1}", x(*share), axis.y(*value))?;
        }
        let name = text(line.name);
        write!(html, "<path d=\"{path}\" {}><title>{name}</title></path>", stroke(at))?;
        if let Some(((share, value), words)) = &line.mark {
            let (left, top) = (x(*share), axis.y(*value));
            write!(html, "<circle cx=\"{left:.1}\" cy=\"{top:.1}\" r=\"5\" {}/>", stroke(at))?;
            write!(html, "<text x=\"{left:.1}\" y=\"{:.1}\" text-anchor=\"end\">{words}</text>", top - 9.0)?;
        }
    }
    write!(html, "</svg><ul class=\"key\">")?;
    for (at, line) in lines.iter().enumerate() {
        let sample = format!(
            "<svg viewBox=\"0 0 32 8\" aria-hidden=\"true\"><path d=\"M0 4L32 4\" {}/></svg>",
            stroke(at)
        );
        write!(html, "<li>{sample} {}</li>", text(line.name))?;
    }
    write!(html, "</ul>")
}

fn grid(html: &mut String, axis: &Axis, unit: &str, marks: &[(f64, String)]) -> std::fmt::Result {
    for (share, word) in marks {
        let (at, bottom) = (x(*share), HEIGHT - BOTTOM);
        write!(html, "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>")?;
        let anchor = if *share >= 1.0 { "end" } else { "middle" };
        write!(html, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{word}</text>", HEIGHT - 8.0)?;
    }
    let mut power = axis.low;
    while power <= axis.high {
        let (value, right) = (10_f64.powf(power), WIDTH - 8.0);
        let at = axis.y(value);
        write!(html, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>")?;
        write!(
            html,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value} {unit}</text>",
            LEFT - 6.0,
            at + 4.0
        )?;
        power += 1.0;
    }
    Ok(())
}
