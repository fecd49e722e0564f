//! Findings and how they are shown: as text in the manner of a compiler, or as JSON.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

use crate::code::Code;
use crate::mask::mask;

/// LIMIT: findings kept; the rest is counted.
pub(crate) const FINDINGS_MAX: usize = 1000;
/// LIMIT: a line longer than this is located but not quoted.
const QUOTED_LINE_BYTES: usize = 400;

/// One text of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Where it came from, as it is shown.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

impl Document {
    /// A text and where it came from.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration is taken; `--strict` refuses it.
    Warning,
}

/// Bytes of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) document: usize,
    pub(crate) span: Range<usize>,
}

/// One finding, before it is placed in its line.
#[derive(Clone, Debug)]
pub(crate) struct Diagnostic {
    pub(crate) code: Code,
    pub(crate) severity: Severity,
    pub(crate) message: String,
    pub(crate) label: Option<String>,
    pub(crate) place: Option<Place>,
    /// Another line that takes part, with what it says.
    pub(crate) related: Option<(Place, String)>,
    pub(crate) help: Option<String>,
}

impl Diagnostic {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        let severity = if code.is_warning() { Severity::Warning } else { Severity::Error };
        Self { code, severity, message: message.into(), label: None, place: None, related: None, help: None }
    }

    pub(crate) fn at(mut self, place: impl Into<Option<Place>>) -> Self {
        self.place = place.into();
        self
    }

    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn related(mut self, place: impl Into<Option<Place>>, label: impl Into<String>) -> Self {
        self.related = place.into().map(|place| (place, label.into()));
        self
    }
}

/// One finding with its line, for programs. Columns count characters from 1; `end_column` is past the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable number, such as `E0101`.
    pub code: &'static str,
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub message: String,
    /// The file; `environment` for a variable; absent where no text is to blame.
    pub file: Option<String>,
    /// Line, from 1.
    pub line: Option<usize>,
    /// First column.
    pub column: Option<usize>,
    /// Column past the end, in the same line.
    pub end_column: Option<usize>,
    /// What to do.
    pub help: Option<String>,
}

/// All findings of one check. It holds the texts with their secrets masked, so it can be shown to anybody.
#[derive(Clone, Debug, Default)]
pub struct Report {
    diagnostics: Vec<Diagnostic>,
    documents: Vec<Document>,
}

impl Report {
    /// Sorts by place and masks the texts; only those that are quoted are kept.
    pub(crate) fn new(mut diagnostics: Vec<Diagnostic>, documents: &[Document]) -> Self {
        diagnostics.sort_by_key(|finding| {
            finding.place.as_ref().map_or((usize::MAX, 0), |place| (place.document, place.span.start))
        });
        // The TOML parser can say one thing twice.
        diagnostics.dedup_by(|one, other| {
            one.code == Code::Syntax && one.message == other.message && one.place == other.place
        });
        let quoted = |index: usize| {
            diagnostics.iter().any(|finding| {
                let places = finding.place.iter().chain(finding.related.iter().map(|(place, _)| place));
                places.into_iter().any(|place| place.document == index)
            })
        };
        let documents = documents
            .iter()
            .enumerate()
            .map(|(index, document)| Document {
                path: document.path.clone(),
                text: if quoted(index) { mask(&document.text) } else { String::new() },
            })
            .collect();
        Self { diagnostics, documents }
    }

    /// Errors among the findings.
    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|finding| finding.severity == Severity::Error).count()
    }

    /// Warnings among the findings.
    pub fn warnings(&self) -> usize {
        self.diagnostics.len() - self.errors()
    }

    /// True where nothing was found.
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// The findings with their lines, for programs: what `--format json` prints as an array.
    pub fn findings(&self) -> Vec<Finding> {
        self.diagnostics.iter().map(|diagnostic| self.finding(diagnostic)).collect()
    }

    /// The findings as compiler-like text, coloured for a terminal when asked.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for diagnostic in &self.diagnostics {
            text.push_str(&renderer.render(&[self.group(diagnostic)]));
            text.push_str("\n\n");
        }
        text
    }

    fn finding(&self, diagnostic: &Diagnostic) -> Finding {
        let line = diagnostic.place.as_ref().map(|place| self.line(place));
        let columns = line.as_ref().map(|line| {
            let column = line.text[..line.span.start].chars().count() + 1;
            (column, column + line.text[line.span.clone()].chars().count())
        });
        Finding {
            code: diagnostic.code.number(),
            severity: diagnostic.severity,
            message: diagnostic.message.clone(),
            file: line.as_ref().map(|line| line.path.display().to_string()),
            line: line.as_ref().map(|line| line.number),
            column: columns.map(|columns| columns.0),
            end_column: columns.map(|columns| columns.1),
            help: diagnostic.help.clone(),
        }
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic) -> Group<'a> {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group =
            Group::with_title(level.primary_title(diagnostic.message.as_str()).id(diagnostic.code.number()));
        if let Some(place) = &diagnostic.place {
            let label = diagnostic.label.as_deref();
            group = self.quote(group, place, AnnotationKind::Primary, label);
        }
        if let Some((place, label)) = &diagnostic.related {
            group = self.quote(group, place, AnnotationKind::Context, Some(label));
        }
        match &diagnostic.help {
            Some(help) => group.element(Level::HELP.message(help.as_str())),
            None => group,
        }
    }

    fn quote<'a>(
        &'a self,
        group: Group<'a>,
        place: &Place,
        kind: AnnotationKind,
        label: Option<&'a str>,
    ) -> Group<'a> {
        let line = self.line(place);
        let path = line.path.display().to_string();
        if line.text.len() > QUOTED_LINE_BYTES {
            let column = line.text[..line.span.start].chars().count() + 1;
            let origin = annotate_snippets::Origin::path(path).line(line.number).char_column(column);
            return group.element(origin);
        }
        let annotation = kind.span(line.span).label(label);
        group.element(Snippet::source(line.text).line_start(line.number).path(path).annotation(annotation))
    }

    /// The first line of a place; the span is cut to it and never empty where the line is not.
    fn line(&self, place: &Place) -> Line<'_> {
        let document = &self.documents[place.document];
        let text = document.text.as_str();
        let start = floor_boundary(text, place.span.start);
        let end = floor_boundary(text, place.span.end).max(start);
        let first = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let last = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line = text[first..last].trim_end_matches('\r');
        let from = (start - first).min(line.len());
        let to = (end.min(last) - first).clamp(from, line.len());
        Line {
            path: &document.path,
            number: text[..first].matches('\n').count() + 1,
            text: line,
            span: from..to,
        }
    }
}

/// One line of a document and the bytes of it that are meant.
struct Line<'a> {
    path: &'a Path,
    number: usize,
    text: &'a str,
    span: Range<usize>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// `at`, or the nearest character border before it.
fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A path for a message: whole, escaped, in backquotes.
pub(crate) fn quote_path(path: &Path) -> String {
    format!("`{}`", path.display().to_string().escape_debug())
}

/// User text for a message: one line, escaped, at most 60 characters, in backquotes.
pub(crate) fn quote(text: &str) -> String {
    let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}
