//! What the demo's parts share.

use std::collections::BTreeMap;
use std::sync::Mutex;

use prometheus::IntCounterVec;
use serde_json::Value;
use sluice_client::Client;
use sluice_http::Start;
use sluice_telemetry::metric::{self, Name};
use sluice_wire::role::Role;

use crate::config::Settings;
use crate::error::DemoError;
use crate::history::{self, STAND_IN, Series};

/// Most orders the stand-in trading bot remembers; the oldest goes.
pub const ORDERS_MAX: usize = 1_000;

/// State of the demo.
pub struct Context {
    /// Settings.
    pub settings: Settings,
    /// The shipped history.
    pub series: Vec<Series>,
    /// The event worker.
    pub events: Client,
    /// The calculation worker.
    pub calc: Client,
    /// Events published, by type.
    pub published: IntCounterVec,
    /// Orders the stand-in trading bot took, by id.
    pub orders: Mutex<BTreeMap<String, Value>>,
}

impl Context {
    /// The state at start.
    pub fn new(start: &Start, settings: Settings) -> Result<Self, DemoError> {
        let client = |role: Role| {
            let socket = start.sockets.get(&role).cloned().ok_or(DemoError::NoDoor(role))?;
            Ok::<_, DemoError>(Client::internal(socket, start.keys.own()))
        };
        Ok(Self {
            settings,
            series: history::load()?,
            events: client(Role::Events)?,
            calc: client(Role::Calc)?,
            published: metric::counters(&start.registry, Name::DemoEvents),
            orders: Mutex::new(BTreeMap::new()),
        })
    }

    /// The bars of a symbol, or those that stand in for it.
    pub fn series_for(&self, symbol: &str) -> Option<&Series> {
        let known = self.series.iter().find(|series| series.symbol == symbol);
        known.or_else(|| self.series.iter().find(|series| series.symbol == STAND_IN))
    }
}
