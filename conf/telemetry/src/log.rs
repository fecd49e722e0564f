//! Log lines: one JSON object each, on standard error, through a bounded queue that never blocks.
//!
//! Members: `timestamp`, `level`, `service`, `component`, `request_id`, `message`, then the other
//! fields. Values that came from users are only ever fields and are escaped as JSON, so that no
//! line can be forged. When the writer is behind, lines are dropped and counted.

use std::fmt::Write as _;
use std::io::Write as _;
use std::str::FromStr as _;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry};

/// Most lines that wait for the writer.
pub const QUEUE_LINES: usize = 8_192;
/// Longest field value, bytes; more is cut.
pub const VALUE_BYTES_MAX: usize = 2_048;

/// Keeps the writer alive; dropped at exit it flushes what waits.
pub struct LogGuard {
    _writer: WorkerGuard,
    dropped: ErrorCounter,
    level: LogLevel,
}

impl LogGuard {
    /// Lines dropped so far.
    pub fn dropped(&self) -> Dropped {
        Dropped(self.dropped.clone())
    }

    /// The handle that changes the level at run time.
    pub fn level(&self) -> LogLevel {
        self.level.clone()
    }
}

/// Counts the lines that were dropped.
#[derive(Clone, Debug)]
pub struct Dropped(ErrorCounter);

impl Dropped {
    /// Lines dropped so far.
    pub fn lines(&self) -> u64 {
        self.0.dropped_lines() as u64
    }
}

/// Changes the level of a running process.
#[derive(Clone)]
pub struct LogLevel(Arc<dyn Fn(LevelFilter) + Send + Sync>);

impl LogLevel {
    /// Sets the level; libraries stay at `warn` or quieter.
    pub fn set(&self, level: LevelFilter) {
        (self.0)(level);
    }

    /// A handle that changes nothing, for tests.
    pub fn fixed() -> Self {
        Self(Arc::new(|_| ()))
    }
}

/// Starts logging for this process. `level` is a word like `info`; unknown words mean `info`.
/// A second call in one process keeps the first subscriber (tests start several roles).
pub fn init(service: &'static str, level: &str) -> LogGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(QUEUE_LINES)
        .thread_name("log")
        .finish(std::io::stderr());
    let dropped = writer.error_counter();
    let level = LevelFilter::from_str(&level.to_ascii_lowercase()).unwrap_or(LevelFilter::INFO);
    let (filter, handle) = reload::Layer::<EnvFilter, Registry>::new(filter(level));
    let _already_set =
        tracing_subscriber::registry().with(filter).with(JsonLines { service, writer }).try_init();
    let level = LogLevel(Arc::new(move |level| {
        let _subscriber_gone = handle.reload(self::filter(level));
    }));
    LogGuard { _writer: guard, dropped, level }
}

/// Our own crates at the wished level, libraries at `warn` at most: a proxy library that prints
/// request bytes at `info` must not be able to put a token into a log.
fn filter(level: LevelFilter) -> EnvFilter {
    let libraries = level.min(LevelFilter::WARN);
    let mut directives = libraries.to_string();
    let _never_fails = write!(directives, ",sluice={level}");
    // Pingora logs raw request heads when parsing fails; heads hold credentials.
    directives.push_str(",pingora_core=off,pingora_proxy=off,pingora_http=off");
    EnvFilter::builder().parse_lossy(directives)
}

struct JsonLines {
    service: &'static str,
    writer: NonBlocking,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JsonLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = fields.line(self.service, event.metadata().level().as_str(), Timestamp::now());
        let _dropped_lines_are_counted = self.writer.clone().write_all(line.as_bytes());
    }
}

#[derive(Default)]
struct Fields {
    component: Option<String>,
    request_id: Option<String>,
    message: String,
    rest: Map<String, Value>,
}

impl Fields {
    fn line(self, service: &str, level: &str, now: Timestamp) -> String {
        let mut line = String::with_capacity(256);
        let _never_fails =
            write!(line, "{{\"timestamp\":\"{now:.6}\",\"level\":\"{level}\",\"service\":\"{service}\"");
        let component = self.component.unwrap_or_else(|| service.to_owned());
        push(&mut line, "component", &Value::String(component));
        if let Some(id) = self.request_id {
            push(&mut line, "request_id", &Value::String(id));
        }
        push(&mut line, "message", &Value::String(self.message));
        for (name, value) in &self.rest {
            push(&mut line, name, value);
        }
        line.push_str("}\n");
        line
    }

    fn text(&mut self, name: &str, mut text: String) {
        if text.len() > VALUE_BYTES_MAX {
            let cut = (0..=VALUE_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(cut);
        }
        match name {
            "message" => self.message = text,
            "component" => self.component = Some(text),
            "request_id" => self.request_id = Some(text),
            // The `log` bridge adds these to every line of a library.
            name if name.starts_with("log.") => {}
            _ => self.put(name, Value::String(text)),
        }
    }

    /// A field may not repeat a fixed member: parsers take the last one, and a line could be forged.
    fn put(&mut self, name: &str, value: Value) {
        let own = matches!(name, "timestamp" | "level" | "service");
        let name = if own { format!("{name}_name") } else { name.to_owned() };
        self.rest.insert(name, value);
    }
}

fn push(line: &mut String, name: &str, value: &Value) {
    let _never_fails = write!(line, ",{}:{value}", Value::from(name));
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.text(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            let _never_fails = write!(text, ": {error}");
            cause = error.source();
        }
        self.text(field.name(), text);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(fields: &[(&str, &str)]) -> Value {
        let mut visited = Fields::default();
        for (name, text) in fields {
            visited.text(name, (*text).to_owned());
        }
        let line = visited.line("edge", "INFO", Timestamp::UNIX_EPOCH);
        assert_eq!(line.matches('\n').count(), 1);
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn a_line_has_the_agreed_members() {
        let line = line(&[
            ("message", "routed"),
            ("component", "gateway"),
            ("request_id", "r-1"),
            ("route", "data"),
        ]);
        assert_eq!(line["timestamp"], "1970-01-01T00:00:00.000000Z");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["service"], "edge");
        assert_eq!(line["component"], "gateway");
        assert_eq!(line["request_id"], "r-1");
        assert_eq!(line["route"], "data");
    }

    #[test]
    fn no_value_can_forge_a_line() {
        let line = line(&[
            ("message", "x"),
            ("service", "forged"),
            ("path", "a\n{\"level\":\"ERROR\"}\u{1b}[31m\""),
        ]);
        assert_eq!(line["path"], "a\n{\"level\":\"ERROR\"}\u{1b}[31m\"");
        assert_eq!(line["level"], "INFO");
        assert_eq!((line["service"].as_str(), line["service_name"].as_str()), (Some("edge"), Some("forged")));
    }

    #[test]
    fn long_values_are_cut_at_a_character() {
        let line = line(&[("message", "x"), ("body", &"é".repeat(5_000))]);
        assert_eq!(line["body"].as_str().unwrap().len(), VALUE_BYTES_MAX);
    }
}
