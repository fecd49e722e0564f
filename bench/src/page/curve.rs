//! Latency by percentile: nines on one axis, time on the other, both logarithmic.

use std::f64::consts::LOG10_2;
use std::fmt::Write as _;

use super::text;
use crate::report::Figures;

/// The drawing's own units.
const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 28.0;
const TOP: f64 = 8.0;
/// Nines at the right end: 99.99 %.
const NINES: f64 = 4.0;
/// Marks below the drawing.
const MARKS: [(f64, &str); 6] =
    [(0.0, "0"), (LOG10_2, "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (NINES, "99.99 %")];
/// Colours that are told apart by who sees few of them, on white and on black; then dashed once more.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f"];
const DASHES: [&str; 3] = ["none", "8 5", "2 4"];

/// The axis of times: from the least to the most that is drawn, in powers of ten of milliseconds.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    fn of(cells: &[&Figures]) -> Option<Self> {
        let times = || cells.iter().flat_map(|cell| &cell.curve_ms).map(|(_, ms)| *ms).filter(|ms| *ms > 0.0);
        let (low, high) = (
            times().fold(f64::INFINITY, f64::min).log10().floor(),
            times().fold(0.0, f64::max).log10().ceil(),
        );
        (low.is_finite() && high.is_finite()).then_some(Self { low, high: high.max(low + 1.0) })
    }

    fn y(&self, ms: f64) -> f64 {
        let share = (ms.max(1e-9).log10() - self.low) / (self.high - self.low);
        TOP + (HEIGHT - BOTTOM - TOP) * (1.0 - share.clamp(0.0, 1.0))
    }
}

fn x(nines: f64) -> f64 {
    LEFT + (WIDTH - LEFT - 8.0) * (nines / NINES).clamp(0.0, 1.0)
}

fn stroke(at: usize) -> String {
    let (colour, dash) = (COLOURS[at % COLOURS.len()], DASHES[at / COLOURS.len() % DASHES.len()]);
    format!("stroke=\"{colour}\" stroke-dasharray=\"{dash}\"")
}

/// Draws a line for each subject and names them below.
pub(super) fn draw(html: &mut String, cells: &[&Figures]) -> std::fmt::Result {
    let Some(axis) = Axis::of(cells) else { return Ok(()) };
    write!(
        html,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Latency by percentile, milliseconds on a \
         logarithmic axis; the figures are in the report's tables\">"
    )?;
    for (nines, word) in MARKS {
        let (at, bottom) = (x(nines), HEIGHT - BOTTOM);
        write!(html, "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>")?;
        let anchor = if nines >= NINES { "end" } else { "middle" };
        write!(html, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{word}</text>", HEIGHT - 8.0)?;
    }
    let mut power = axis.low;
    while power <= axis.high {
        let (ms, right) = (10_f64.powf(power), WIDTH - 8.0);
        let at = axis.y(ms);
        write!(html, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>")?;
        write!(html, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{ms} ms</text>", LEFT - 6.0, at + 4.0)?;
        power += 1.0;
    }
    for (at, cell) in cells.iter().enumerate() {
        let mut path = String::new();
        for (index, (share, ms)) in cell.curve_ms.iter().enumerate() {
            let word = if index == 0 { 'M' } else { 'L' };
            write!(path, "{word}{:.1} {:.1}", x(-(1.0 - share).max(1e-9).log10()), axis.y(*ms))?;
        }
        write!(html, "<path d=\"{path}\" {}><title>{}</title></path>", stroke(at), text(&cell.subject))?;
    }
    write!(html, "</svg><ul class=\"key\">")?;
    for (at, cell) in cells.iter().enumerate() {
        let line = format!(
            "<svg viewBox=\"0 0 32 8\" aria-hidden=\"true\"><path d=\"M0 4L32 4\" {}/></svg>",
            stroke(at)
        );
        write!(html, "<li>{line} {}</li>", text(&cell.subject))?;
    }
    write!(html, "</ul>")
}
