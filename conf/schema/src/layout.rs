//! The canonical layout of a file: comments, order and spelling stay, spacing becomes one.
//!
//! One space around `=`, none at the start of a line, two before a comment behind a value; one blank
//! line before a header and the comments that belong to it, never two. A list or table that its author
//! spread over lines stays spread: one item a line, four spaces in, a comma behind each. Strings,
//! numbers and quoted keys stay as they are written.
//!
//! It works on the parser's own events, not on values, so that nothing is lost that is no value.

use toml::de::DeTable;
use toml_parser::Source;
use toml_parser::parser::{Event, EventKind, parse_document};

use crate::code::Code;
use crate::report::{Diagnostic, Document, Place, Report};

/// The text of a document in its canonical layout. It means the same, and its own layout is itself.
///
/// # Errors
/// The syntax errors of a text that is no TOML.
pub fn fmt(document: &Document) -> Result<String, Report> {
    // This parser bounds the depth of nesting, too.
    let (_, errors) = DeTable::parse_recoverable(&document.text);
    if !errors.is_empty() {
        let found = errors.iter().map(|error| {
            let place = Place { document: 0, span: error.span().unwrap_or_default() };
            Diagnostic::new(Code::Syntax, error.message()).at(place)
        });
        return Err(Report::new(found.collect(), std::slice::from_ref(document)));
    }
    let tokens = Source::new(&document.text).lex().into_vec();
    let mut events: Vec<Event> = Vec::new();
    parse_document(&tokens, &mut |event| events.push(event), &mut ());
    Ok(lay_out(Cursor { text: &document.text, events: &events }.lines()))
}

/// One line, or a value spread over several.
#[derive(Debug)]
struct Line {
    kind: Kind,
    text: String,
    /// The comment behind it.
    comment: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Blank,
    Comment,
    Header,
    Pair,
}

/// What stands in a list or an inline table.
enum Entry {
    Blank,
    Comment(String),
    Item { text: String, comment: Option<String> },
}

/// The events not yet taken.
struct Cursor<'t> {
    text: &'t str,
    events: &'t [Event],
}

impl<'t> Cursor<'t> {
    fn next(&mut self) -> Option<(EventKind, &'t str)> {
        let (first, rest) = self.events.split_first()?;
        self.events = rest;
        let span = first.span();
        Some((first.kind(), self.text.get(span.start()..span.end()).unwrap_or_default()))
    }

    fn lines(mut self) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        let mut fresh = true;
        while let Some((event, text)) = self.next() {
            let line = match event {
                EventKind::Newline if fresh => Line::new(Kind::Blank, String::new()),
                EventKind::Newline => {
                    fresh = true;
                    continue;
                }
                EventKind::Comment if !fresh => {
                    if let Some(last) = lines.last_mut() {
                        last.comment = Some(text.trim_end().to_owned());
                    }
                    continue;
                }
                EventKind::Comment => Line::new(Kind::Comment, text.trim_end().to_owned()),
                EventKind::StdTableOpen | EventKind::ArrayTableOpen => {
                    Line::new(Kind::Header, self.header(text))
                }
                EventKind::SimpleKey => Line::new(Kind::Pair, self.pair(text, 0)),
                _ => continue,
            };
            fresh = line.kind == Kind::Blank;
            lines.push(line);
        }
        lines
    }

    /// A header from behind its opening brackets.
    fn header(&mut self, open: &str) -> String {
        let mut header = open.to_owned();
        while let Some((event, text)) = self.next() {
            match event {
                EventKind::SimpleKey | EventKind::KeySep => header.push_str(text),
                EventKind::StdTableClose | EventKind::ArrayTableClose => {
                    header.push_str(text);
                    break;
                }
                _ => {}
            }
        }
        header
    }

    /// A key and its value from behind the key's first word; lines of the value after its first stand
    /// `indent` spaces in.
    fn pair(&mut self, first: &str, indent: usize) -> String {
        let mut pair = first.to_owned();
        while let Some((event, text)) = self.next() {
            match event {
                EventKind::SimpleKey | EventKind::KeySep => pair.push_str(text),
                EventKind::KeyValSep => break,
                _ => {}
            }
        }
        pair.push_str(" = ");
        while let Some((event, text)) = self.next() {
            if let Some(value) = self.value(event, text, indent) {
                pair.push_str(&value);
                break;
            }
        }
        pair
    }

    /// The value that an event begins; `None` where it begins none.
    fn value(&mut self, event: EventKind, text: &str, indent: usize) -> Option<String> {
        match event {
            EventKind::Scalar => Some(text.to_owned()),
            EventKind::ArrayOpen => Some(self.container(["[", "]"], "", indent)),
            EventKind::InlineTableOpen => Some(self.container(["{", "}"], " ", indent)),
            _ => None,
        }
    }

    /// A list or inline table from behind its opening bracket.
    fn container(&mut self, [open, close]: [&str; 2], pad: &str, indent: usize) -> String {
        let (entries, spread) = self.entries(indent);
        if entries.is_empty() {
            return format!("{open}{close}");
        }
        if spread {
            return spread_out(&entries, [open, close], indent);
        }
        let items: Vec<&str> = entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Item { text, .. } => Some(text.as_str()),
                Entry::Blank | Entry::Comment(_) => None,
            })
            .collect();
        format!("{open}{pad}{}{pad}{close}", items.join(", "))
    }

    /// What stands up to the closing bracket, and whether it is spread over lines.
    fn entries(&mut self, indent: usize) -> (Vec<Entry>, bool) {
        let spread = self.is_spread();
        let inner = if spread { indent + INDENT } else { indent };
        let mut entries: Vec<Entry> = Vec::new();
        let mut newlines = 0;
        while let Some((event, text)) = self.next() {
            let entry = match event {
                EventKind::ArrayClose | EventKind::InlineTableClose => break,
                EventKind::Newline => {
                    newlines += 1;
                    continue;
                }
                EventKind::Comment => {
                    let text = text.trim_end().to_owned();
                    if let (0, Some(Entry::Item { comment, .. })) = (newlines, entries.last_mut()) {
                        *comment = Some(text);
                        continue;
                    }
                    Entry::Comment(text)
                }
                EventKind::SimpleKey => Entry::Item { text: self.pair(text, inner), comment: None },
                _ => match self.value(event, text, inner) {
                    Some(text) => Entry::Item { text, comment: None },
                    None => continue,
                },
            };
            if newlines > 1 && !entries.is_empty() {
                entries.push(Entry::Blank);
            }
            entries.push(entry);
            newlines = 0;
        }
        (entries, spread)
    }

    /// Whether a line ends between here and the closing bracket, outside the values within.
    fn is_spread(&self) -> bool {
        let mut depth = 0_usize;
        for event in self.events {
            match event.kind() {
                EventKind::ArrayOpen | EventKind::InlineTableOpen => depth += 1,
                EventKind::ArrayClose | EventKind::InlineTableClose if depth == 0 => return false,
                EventKind::ArrayClose | EventKind::InlineTableClose => depth -= 1,
                EventKind::Newline if depth == 0 => return true,
                _ => {}
            }
        }
        false
    }
}

/// Spaces one level further in.
const INDENT: usize = 4;

fn spread_out(entries: &[Entry], [open, close]: [&str; 2], indent: usize) -> String {
    let mut out = format!("{open}\n");
    for entry in entries {
        let line = match entry {
            Entry::Blank => String::new(),
            Entry::Comment(text) => format!("{:1$}{text}", "", indent + INDENT),
            Entry::Item { text, comment } => {
                let comment = comment.as_ref().map(|comment| format!("  {comment}")).unwrap_or_default();
                format!("{:1$}{text},{comment}", "", indent + INDENT)
            }
        };
        out.push_str(&line);
        out.push('\n');
    }
    out.push_str(&" ".repeat(indent));
    out.push_str(close);
    out
}

impl Line {
    fn new(kind: Kind, text: String) -> Self {
        Self { kind, text, comment: None }
    }
}

/// Puts blank lines where they belong.
fn lay_out(lines: Vec<Line>) -> String {
    let mut laid: Vec<Line> = Vec::with_capacity(lines.len());
    let mut blank = false;
    for line in lines {
        if line.kind == Kind::Blank {
            blank = true;
            continue;
        }
        let wanted = laid.last().is_some_and(|last| last.kind != Kind::Header);
        if std::mem::take(&mut blank) && wanted {
            laid.push(Line::new(Kind::Blank, String::new()));
        }
        if line.kind == Kind::Header {
            // The comments right above a header belong to it.
            let own = laid.iter().rposition(|above| above.kind != Kind::Comment);
            if let Some(above) = own.filter(|above| laid[*above].kind != Kind::Blank) {
                laid.insert(above + 1, Line::new(Kind::Blank, String::new()));
            }
        }
        laid.push(line);
    }
    let mut out = String::new();
    for line in laid {
        out.push_str(&line.text);
        if let Some(comment) = line.comment {
            out.push_str("  ");
            out.push_str(&comment);
        }
        out.push('\n');
    }
    out
}
