//! `POST /calculations/strategies/discover`: which parameters a discovery platform's strategies would have earned with.
//!
//! Requests come as that platform writes them (proto3 JSON, both spellings), one or many, with the data beside them or
//! out of the stored series. Each is a genetic algorithm over the usual values of a rule; all together are one job. What
//! was found stays in the job's file and has an id of its own, `disc-<job>-<request>-<rank>`.

mod asked;
mod publish;
mod request;

use std::sync::Arc;

use serde_json::{Value as Json, json};
use sluice_calc::risk::Figure;
use sluice_calc::search::{Found, Genetic, Rank, Rule, Space, Task, Terms, Trials};
use sluice_calc::{Bars, Cpu, Workspace};
use sluice_wire::event::parse_time;

pub(crate) use asked::Asked;
pub(crate) use publish::Publisher;
pub(crate) use request::plan;

use crate::data::Series;
use crate::jobs::{Leader, Pace, Stopped, Work};
use crate::search::{deflated, metrics, parameters, refused, tried};
use crate::series::View;

/// The kind of such jobs.
pub(crate) const KIND: &str = "discover";
/// What ids of discovered strategies begin with.
const PREFIX: &str = "disc-";

/// Prices of some requests.
#[derive(Debug)]
pub(crate) enum Prices {
    /// Sent beside them.
    Given(Box<Series>),
    /// Stored, as they were when the job was taken.
    Stored(Arc<View>),
    /// Nobody has them.
    None,
}

/// One request, checked.
#[derive(Debug)]
pub(crate) struct Ask {
    rule: &'static Rule,
    symbol: String,
    prices: Arc<Prices>,
    rows: std::ops::Range<usize>,
    from_ms: Option<i64>,
    to_ms: Option<i64>,
    top: usize,
    how: Genetic,
    periods_per_year: f64,
}

/// Requests that can be served.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Id of the job, which ids of strategies begin with.
    pub(crate) job: String,
    pub(crate) asks: Vec<Ask>,
    /// Combinations asked for in all.
    pub(crate) total: u64,
    /// Bytes of prices that were sent.
    pub(crate) bytes: usize,
}

impl Plan {
    /// The strategy of all requests, or that they have several.
    pub(crate) fn strategy(&self) -> &'static str {
        let mut names = self.asks.iter().map(|ask| ask.rule.name);
        let first = names.next().unwrap_or_default();
        if names.all(|name| name == first) { first } else { "several" }
    }

    /// Rows of the longest window.
    pub(crate) fn rows(&self) -> usize {
        self.asks.iter().map(|ask| ask.rows.len()).max().unwrap_or(0)
    }
}

impl Work for Plan {
    fn run(&mut self, cpu: Cpu, pace: &mut Pace<'_>) -> Result<String, Stopped> {
        let mut results = Vec::with_capacity(self.asks.len());
        for (at, ask) in self.asks.iter().enumerate() {
            results.push(ask.serve(&format!("{PREFIX}{}-{at}", self.job), cpu, pace)?);
        }
        Ok(json!({"results": results}).to_string())
    }

    fn is_published(&self) -> bool {
        true
    }
}

impl Ask {
    fn serve(&self, id: &str, cpu: Cpu, pace: &mut Pace<'_>) -> Result<Json, Stopped> {
        let all = tried(&self.how);
        if self.rows.len() < 2 {
            return if pace.go(all, || None) {
                Ok(self.without("INSUFFICIENT_DATA", None))
            } else {
                Err(Stopped::Cancelled)
            };
        }
        let space = Space::new(self.rule, &[])
            .map_err(|error| Stopped::of_refusal(crate::error::Refusal::Parameter(error.to_string())))?;
        let terms = Terms { short: false, cost: 0.0, periods_per_year: self.periods_per_year };
        let bars = self.bars().map_err(Stopped::of_refusal)?;
        // One window that has no returns is its own failure, not that of thousands beside it.
        let task = match Task::new(&space, bars, terms, Rank::Score, self.top) {
            Ok(task) => task,
            Err(error) if pace.go(all, || None) => {
                return Ok(self.without("FAILED", refused(&error).problem().detail));
            }
            Err(_) => return Err(Stopped::Cancelled),
        };
        let leader = |found: &Found| Leader {
            parameters: parameters(&space, found.number),
            score: Some(found.figures.score()),
        };
        let mut told = 0;
        let mut watch = |count: u64, best: &[Found]| {
            told += count;
            pace.go(count, || best.first().map(leader))
        };
        let mut trials = Trials::new(&task, Workspace::new(cpu));
        let (best, _) = trials.genetic(&self.how, 0..task.rows(), &mut watch)?;
        let deflated = deflated(&mut trials, &best, 0..task.rows(), pace)?;
        pace.go(all - told.min(all), || None);
        let found = deflated.iter().enumerate();
        let top: Vec<Json> =
            found.map(|(rank, found)| self.told(&space, found, &format!("{id}-{rank}"))).collect();
        Ok(json!({"status": "DONE", "seed": self.how.seed, "rows": task.rows(), "topStrategies": top}))
    }

    fn bars(&self) -> Result<Bars<'_>, crate::error::Refusal> {
        match &*self.prices {
            Prices::Given(series) => series.slice(self.rows.clone()),
            Prices::Stored(view) => Ok(view.bars(self.rows.clone())),
            Prices::None => Ok(Bars::from_close(&[])),
        }
    }

    fn without(&self, status: &str, detail: Option<String>) -> Json {
        json!({
            "status": status, "detail": detail, "symbol": self.symbol, "strategyName": self.rule.name,
            "rows": self.rows.len(), "topStrategies": [],
        })
    }

    fn told(&self, space: &Space, (found, deflated): &(Found, Figure), id: &str) -> Json {
        let mut report = metrics(&found.figures);
        report.add("dsr", *deflated);
        json!({
            "id": id,
            "strategy": {"strategyName": self.rule.name, "parameters": parameters(space, found.number)},
            "score": found.figures.score(), "symbol": self.symbol,
            "startTime": time(self.from_ms), "endTime": time(self.to_ms),
            "metrics": report.metrics,
        })
    }
}

/// As the platform writes times.
fn time(ms: Option<i64>) -> Option<String> {
    parse_time(&ms?.to_string()).map(|time| time.to_string())
}

/// The job, request and rank of a discovered strategy.
pub(crate) fn place(id: &str) -> Option<(&str, usize, usize)> {
    let (rest, rank) = id.strip_prefix(PREFIX)?.rsplit_once('-')?;
    let (job, request) = rest.rsplit_once('-')?;
    Some((job, request.parse().ok()?, rank.parse().ok()?))
}

/// One of the strategies in the result of a job.
pub(crate) fn pick(result: &str, request: usize, rank: usize) -> Option<Json> {
    let mut result: Json = serde_json::from_str(result).ok()?;
    let top = result["results"].get_mut(request)?["topStrategies"].get_mut(rank)?;
    Some(top.take())
}

#[cfg(test)]
mod tests;
