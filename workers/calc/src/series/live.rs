//! Indicators over a stored series, carried on bar by bar: what is asked for again costs the bars that came since, each
//! in constant time, and the open bar is looked at without being taken.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Json;
use axum::extract::FromRequestParts as _;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sluice_calc::{Compat, IndicatorStream, Outputs};
use sluice_http::{Reject, StrictQuery};
use sluice_wire::code::Code;
use sluice_wire::json;

use super::api::{found, unknown};
use super::space::Space;
use super::tail::Tail;
use super::{Candle, SeriesKey, View};
use crate::api::pooled;
use crate::bounds::{LIVE_TAILS_BYTES_MAX, LIVES_MAX, QUERY_BYTES_MAX, SERIES_LAST_MAX, SMALL_ROWS_MAX};
use crate::context::Context;
use crate::error::Refusal;
use crate::indicators::{Ask, Wish, bounded_asks, compat_named, compute_over, wishes};
use crate::pool::{Lane, Scratch};

/// The indicators of `rsi,ema:21`, or of a list in JSON as in the body of a calculation.
pub(crate) fn named(names: &str, compat: Compat) -> Result<Vec<Wish>, Refusal> {
    if names.len() > QUERY_BYTES_MAX {
        return Err(Refusal::TooMuch(format!("names of more than {QUERY_BYTES_MAX} bytes")));
    }
    let asks: Vec<Ask> = if names.starts_with('[') {
        json::from_slice(names.as_bytes())?
    } else {
        names.split(',').map(ask).collect::<Result<_, _>>()?
    };
    bounded_asks(&asks)?;
    let wishes = wishes(&asks, compat)?;
    if wishes.iter().any(|wish| wish.is_swept) {
        return Err(Refusal::Parameter("a sweep is for a calculation over data".to_owned()));
    }
    if wishes.is_empty() {
        return Err(Refusal::Parameter("names: at least one indicator".to_owned()));
    }
    Ok(wishes)
}

fn ask(text: &str) -> Result<Ask, Refusal> {
    let Some((name, period)) = text.split_once(':') else { return Ok(Ask::Name(text.to_owned())) };
    let period: u32 = period
        .parse()
        .map_err(|_| Refusal::Parameter("a name is like `ema` or, with its period, `ema:21`".to_owned()))?;
    let fields = [("name", json!(name)), ("period", json!(period)), ("id", json!(text))];
    Ok(Ask::Full(fields.map(|(field, value)| (field.to_owned(), value)).into_iter().collect()))
}

/// Indicators over one series, up to some row.
pub(crate) struct Subscription {
    wishes: Vec<Wish>,
    states: Vec<IndicatorStream>,
    /// Which series, and how many of its rows were taken.
    generation: u64,
    rows: usize,
    newest: Vec<Outputs>,
}

impl Subscription {
    /// Before the first bar.
    pub(crate) fn new(wishes: Vec<Wish>) -> Self {
        let mut new = Self { wishes, states: Vec::new(), generation: 0, rows: 0, newest: Vec::new() };
        new.begin(0);
        new
    }

    fn begin(&mut self, generation: u64) {
        let indicators = self.wishes.iter().flat_map(|wish| &wish.points);
        self.states = indicators.map(|point| point.indicator.stream()).collect();
        self.generation = generation;
        self.rows = 0;
        self.newest.clear();
    }

    /// Rows that were taken.
    pub(crate) const fn rows(&self) -> usize {
        self.rows
    }

    /// Takes the rows of a view that it has not taken, and hands the outputs of each to `each`. A series that was
    /// replaced is begun anew; of a view older than the last one nothing is taken.
    pub(crate) fn advance(&mut self, view: &View, mut each: impl FnMut(usize, &[Outputs])) {
        if self.generation != view.generation {
            self.begin(view.generation);
        }
        let from = self.rows.min(view.rows());
        let bars = view.bars(from..view.rows());
        for at in 0..bars.len() {
            let Some(bar) = bars.bar(at) else { break };
            self.newest.clear();
            self.newest.extend(self.states.iter_mut().map(|state| state.push(bar)));
            self.rows += 1;
            each(from + at, &self.newest);
        }
    }

    /// The outputs of the newest bar that was taken; none before the first.
    pub(crate) fn newest(&self) -> &[Outputs] {
        &self.newest
    }

    /// The outputs that a bar would have as the next one.
    pub(crate) fn peek(&self, open: &Candle) -> Vec<Outputs> {
        self.states.iter().map(|state| state.peek(open.bar())).collect()
    }

    /// Puts columns, those of the newest bars, in the place of the newest values.
    fn tell_columns(&self, told: &mut Value, view: &View, columns: &[Vec<f64>]) {
        let first = view.rows() - columns.first().map_or(0, Vec::len);
        let mut columns = columns.iter();
        let one = |wish: &Wish| {
            let names = wish.points.iter().flat_map(|point| point.indicator.outputs());
            let of_it = names.zip(&mut columns).map(|(name, values)| ((*name).to_owned(), json!(values)));
            (wish.id.clone(), Value::Object(of_it.collect()))
        };
        told["indicators"] = Value::Object(self.wishes.iter().map(one).collect());
        told["count"] = json!(view.rows() - first);
        told["timestamps"] = json!(&view.times()[first..]);
    }

    /// Outputs by id and name; null where there is no value yet.
    pub(crate) fn by_id(&self, outputs: &[Outputs], value: impl Fn(f64) -> Value) -> Value {
        let one = |(wish, outputs): (&Wish, &Outputs)| {
            let names = wish.points.iter().flat_map(|point| point.indicator.outputs());
            let values = names.zip(outputs.as_slice());
            let values: Map<String, Value> =
                values.map(|(name, number)| ((*name).to_owned(), value(*number))).collect();
            (wish.id.clone(), Value::Object(values))
        };
        Value::Object(self.wishes.iter().zip(outputs).map(one).collect())
    }
}

/// What is kept under: a series, the conventions, and the names as they were asked for.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Name {
    key: SeriesKey,
    compat: Option<String>,
    names: String,
}

/// A subscription, and its newest outputs once more than one bar was asked for.
pub(crate) struct Held {
    states: Subscription,
    tail: Option<Tail>,
}

/// `None` while it is begun, and after a panic within.
type Slot = Arc<Mutex<Option<Held>>>;

#[derive(Default)]
struct Kept {
    slots: HashMap<Name, (u64, Slot)>,
    clock: u64,
}

/// Subscriptions that were asked for, the last ones.
pub(crate) struct Live {
    kept: Mutex<Kept>,
    tails: Arc<Space>,
}

impl Default for Live {
    fn default() -> Self {
        Self { kept: Mutex::default(), tails: Space::new(LIVE_TAILS_BYTES_MAX) }
    }
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, name: Name) -> Slot {
        let mut kept = self.lock();
        kept.clock += 1;
        let now = kept.clock;
        if kept.slots.len() >= LIVES_MAX && !kept.slots.contains_key(&name) {
            let oldest = kept.slots.iter().min_by_key(|(_, (used, _))| *used).map(|(name, _)| name.clone());
            oldest.map(|name| kept.slots.remove(&name));
        }
        let (used, slot) = kept.slots.entry(name).or_default();
        *used = now;
        Arc::clone(slot)
    }

    /// Forgets what belongs to a series.
    pub(crate) fn forget(&self, key: &SeriesKey) {
        self.lock().slots.retain(|name, _| name.key != *key);
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    names: String,
    last: Option<usize>,
    compat: Option<String>,
}

/// `GET /series/{symbol}/{timeframe}/indicators`.
pub(super) async fn answer(context: &Context, key: SeriesKey, parts: &mut Parts) -> Result<Response, Reject> {
    let StrictQuery(query) = StrictQuery::<Query>::from_request_parts(parts, &()).await?;
    let last = query.last.unwrap_or(1);
    if !(1..=SERIES_LAST_MAX).contains(&last) {
        return Err(Reject::new(Code::BadQuery, format!("`last` is 1 to {SERIES_LAST_MAX}")));
    }
    let compat = query.compat.as_deref().map_or(Ok(Compat::TaLib), compat_named)?;
    let wishes = named(&query.names, compat)?;
    let rows = found(context, &key)?.rows();
    let slot = context.live.slot(Name { key: key.clone(), compat: query.compat, names: query.names });
    let to_take = slot.try_lock().map_or(rows, |held| to_take(held.as_ref(), rows, last));
    let lane = if to_take <= SMALL_ROWS_MAX { Lane::Small } else { Lane::Large };
    let (store, own, tails) = (Arc::clone(&context.series), key.clone(), Arc::clone(&context.live.tails));
    let compute = move |scratch: &mut Scratch| {
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        // Only now: it is no older than the view that the last request took.
        let Some(view) = store.get(&own) else { return Ok(None) };
        let mut held = slot.take().unwrap_or_else(|| Held::new(wishes));
        held.advance(&view);
        let mut told = told(&own, &view, &held.states);
        let columns = if last > 1 { held.columns(&view, last, &tails, scratch) } else { Ok(Vec::new()) };
        if last > 1
            && let Ok(columns) = &columns
        {
            held.states.tell_columns(&mut told, &view, columns);
        }
        *slot = Some(held);
        columns.map(|_| Some(told))
    };
    let told = pooled(context, "series", lane, compute).await?;
    told.map(|told| Json(told).into_response()).ok_or_else(|| unknown(&key))
}

/// Rows that are to be passed over.
fn to_take(held: Option<&Held>, rows: usize, last: usize) -> usize {
    let Some(Held { states, tail }) = held else { return rows };
    let is_kept = last == 1 || tail.as_ref().is_some_and(|tail| tail.rows() >= last.min(states.rows()));
    if is_kept { rows.saturating_sub(states.rows()) } else { rows }
}

impl Held {
    pub(crate) fn new(wishes: Vec<Wish>) -> Self {
        Self { states: Subscription::new(wishes), tail: None }
    }

    /// Takes the rows that came since.
    pub(crate) fn advance(&mut self, view: &View) {
        if self.states.generation != view.generation {
            self.tail = None;
        }
        let tail = &mut self.tail;
        self.states.advance(view, |_, outputs| {
            if let Some(tail) = tail {
                tail.push(outputs.iter().flat_map(Outputs::as_slice).copied());
            }
        });
    }

    /// The newest values of each output, computed over the whole series where they are not kept.
    pub(crate) fn columns(
        &mut self,
        view: &View,
        last: usize,
        tails: &Arc<Space>,
        scratch: &mut Scratch,
    ) -> Result<Vec<Vec<f64>>, Refusal> {
        let rows = last.min(view.rows());
        if let Some(tail) = self.tail.as_ref().filter(|tail| tail.rows() >= rows) {
            return Ok(tail.columns(rows));
        }
        let columns = computed(view, &self.states.wishes, rows, scratch)?;
        // A smaller one gives its room back first.
        self.tail = None;
        self.tail = Tail::of(&columns, last, tails);
        Ok(columns)
    }
}

fn told(key: &SeriesKey, view: &View, held: &Subscription) -> Value {
    let time = view.times().last();
    let open = view.open().map(|open| {
        let values = held.by_id(&held.peek(&open), |number| json!(number));
        json!({"timestamp": open.time_ms, "values": values})
    });
    json!({
        "symbol": key.symbol,
        "timeframe": key.timeframe,
        "rows": view.rows(),
        "count": view.rows().min(1),
        "timestamps": time.as_slice(),
        "indicators": held.by_id(held.newest(), |number| json!([number])),
        "open": open,
    })
}

/// The newest values of each output, computed over the whole series.
fn computed(
    view: &View,
    wishes: &[Wish],
    rows: usize,
    scratch: &mut Scratch,
) -> Result<Vec<Vec<f64>>, Refusal> {
    let (bars, first) = (view.bars(0..view.rows()), view.rows() - rows);
    let mut columns = Vec::new();
    for point in wishes.iter().flat_map(|wish| &wish.points) {
        if scratch.is_left() {
            return Err(Refusal::Left);
        }
        compute_over(&point.indicator, &bars, scratch, |_, values| columns.push(values[first..].to_vec()))?;
    }
    Ok(columns)
}
