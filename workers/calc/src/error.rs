//! What can go wrong in the calculation worker.

use sluice_http::Reject;
use sluice_wire::code::Code;
use sluice_wire::json::JsonError;
use sluice_wire::problem::Problem;

/// The worker cannot run.
#[derive(Debug, thiserror::Error)]
pub enum CalcError {
    /// A computing thread could not be started.
    #[error("a computing thread could not be started")]
    Thread(#[source] std::io::Error),
    /// What jobs left behind cannot be read.
    #[error("the jobs in {path} cannot be read")]
    Jobs {
        /// The folder.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// This binary was compiled for another processor.
    #[error(transparent)]
    Processor(#[from] sluice_calc::dispatch::MissingFeature),
    /// The stored series cannot be opened.
    #[error(transparent)]
    Series(#[from] crate::series::OpenError),
    /// The event worker cannot be called.
    #[error("`calc.events_url` cannot be used")]
    Events(#[from] sluice_client::ClientError),
    /// The id of the stored series cannot be read.
    #[error(transparent)]
    Seat(#[from] crate::feed::SeatError),
    /// The universe cannot be read.
    #[error(transparent)]
    Universe(#[from] crate::universe::UniverseError),
    /// A thread that opens what is stored ended.
    #[error("what is stored could not be opened")]
    Opening(#[from] tokio::task::JoinError),
    /// The doors could not be served.
    #[error("the calculation worker could not serve")]
    Serve(#[from] sluice_http::ServeError),
}

/// A request that cannot be computed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Refusal {
    /// Not JSON, or hostile JSON.
    Json(String),
    /// JSON of another shape.
    Shape(String),
    /// A series that cannot be; the row where it fails.
    Series { row: Option<usize>, text: String },
    /// An unknown indicator or strategy, with the nearest name.
    Unknown { kind: &'static str, name: String, nearest: Option<String> },
    /// A parameter outside its range.
    Parameter(String),
    /// More than the limits allow.
    TooMuch(String),
    /// Known by name, but not there.
    NotAvailable(String),
    /// Answers that others read take all the room.
    Busy,
    /// The client has gone; nobody reads this.
    Left,
}

impl Refusal {
    /// Bounded word for the metric.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Json(_) => "json",
            Self::Shape(_) => "shape",
            Self::Series { .. } => "series",
            Self::Unknown { .. } => "unknown",
            Self::Parameter(_) => "parameter",
            Self::TooMuch(_) => "limit",
            Self::NotAvailable(_) => "not_available",
            Self::Busy => "queue_full",
            Self::Left => "left",
        }
    }
}

impl From<JsonError> for Refusal {
    fn from(error: JsonError) -> Self {
        if !error.shape {
            return Self::Json(error.to_string());
        }
        // Faults of rows are found while parsing; they belong to the series, not to the JSON.
        match error.message.strip_prefix("row ").and_then(|rest| rest.split([':', ' ']).next()?.parse().ok())
        {
            Some(row) => Self::Series { row: Some(row), text: error.message },
            None => Self::Shape(error.to_string()),
        }
    }
}

impl From<Refusal> for Reject {
    fn from(refusal: Refusal) -> Self {
        refusal.problem().into()
    }
}

impl Refusal {
    /// It said of one request among many.
    pub(crate) fn of_request(self, at: usize) -> Self {
        let said = |text: String| format!("request {at}: {text}");
        match self {
            Self::Shape(text) => Self::Shape(said(text)),
            Self::Series { row, text } => Self::Series { row, text: said(text) },
            Self::Parameter(text) => Self::Parameter(said(text)),
            Self::TooMuch(text) => Self::TooMuch(said(text)),
            Self::NotAvailable(text) => Self::NotAvailable(said(text)),
            other => other,
        }
    }

    /// It as the body of an answer.
    pub(crate) fn problem(self) -> Problem {
        match self {
            Self::Json(text) => Problem::new(Code::InvalidJson).detail(text),
            Self::Shape(text) | Self::TooMuch(text) => Problem::new(Code::Unprocessable).detail(text),
            Self::Series { row, text } => {
                let problem = Problem::new(Code::BadSeries).detail(text);
                row.map_or(problem.clone(), |row| problem.index(row))
            }
            Self::Unknown { kind, name, nearest } => {
                let name: String = name.chars().take(64).collect();
                let hint = nearest.map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"));
                Problem::new(Code::UnknownIndicator).detail(format!("there is no {kind} `{name}`{hint}"))
            }
            Self::NotAvailable(text) => Problem::new(Code::NotAvailable).detail(text),
            Self::Parameter(text) => Problem::new(Code::BadParameter).detail(text),
            Self::Busy => Problem::new(Code::QueueFull)
                .detail("answers that are being read take all the room")
                .retry_after_s(1),
            Self::Left => Problem::new(Code::Internal),
        }
    }
}
