//! The stand-in services: data, backtesting, trading bot.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::FutureExt;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_http::{
    Component, HealthSource, Reject, Start, StrictJson, StrictQuery, Tls, serve_listener, serve_secured,
};
use sluice_wire::code::Code;
use sluice_wire::symbol::Symbol;
use uuid::Uuid;

use crate::backtest;
use crate::context::{Context, ORDERS_MAX};
use crate::error::DemoError;
use crate::history::STAND_IN;

/// Most bars one answer holds.
const BARS_MAX: usize = 1_000;
/// The strategy that stands in for names the calculation worker does not know.
const STRATEGY: &str = "ema_crossover";

struct Running;

impl HealthSource for Running {
    fn ready(&self) -> bool {
        true
    }

    fn components(&self) -> BTreeMap<String, Component> {
        BTreeMap::from([("tape".to_owned(), Component::healthy())])
    }
}

/// Serves the three stand-in services until the process is to end: with `tls`, by mutual TLS and by plain HTTP
/// to this machine, so that the edge's hop is encrypted and a direct `curl` still works.
pub async fn serve(start: &Start, context: Arc<Context>, tls: Option<Arc<Tls>>) -> Result<(), DemoError> {
    let routes = Router::new()
        .route("/market/{*symbol}", get(market))
        .route("/symbols", get(symbols))
        .route("/run", post(run_backtest))
        .route("/status", get(status))
        .route("/orders", post(place_order).get(list_orders))
        .route("/orders/{id}", get(show_order).delete(cancel_order))
        .with_state(context);
    let app = sluice_http::wrap(start, routes, Arc::new(Running));
    let addresses = start.doors().addresses();
    let doors = start.doors().take_all();
    let mut serving = Vec::new();
    for (door, listener) in doors {
        let (app, stop, deadline) = (app.clone(), start.stop.clone(), start.config.drain.deadline);
        let served = match &tls {
            Some(tls) => serve_secured(listener, Arc::clone(tls), app, stop, deadline).map(FutureExt::boxed),
            None => serve_listener(listener, app, stop, deadline).map(FutureExt::boxed),
        };
        serving.push(served.map_err(|source| DemoError::Door { door, source })?);
    }
    start.ready(addresses);
    futures_util::future::join_all(serving).await;
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MarketQuery {
    limit: Option<usize>,
}

/// `GET /market/BTC/USDT`: the newest bars of a symbol.
async fn market(
    State(context): State<Arc<Context>>,
    Path(symbol): Path<String>,
    StrictQuery(query): StrictQuery<MarketQuery>,
) -> Result<Json<Value>, Reject> {
    let symbol = Symbol::parse(&symbol).map_err(|error| Reject::new(Code::BadPath, error.to_string()))?;
    let limit = query.limit.unwrap_or(100);
    if !(1..=BARS_MAX).contains(&limit) {
        return Err(Reject::new(Code::BadQuery, format!("limit is 1 to {BARS_MAX}")));
    }
    let missing = || Reject::new(Code::NotFound, "no history is shipped");
    let series = context.series_for(symbol.as_str()).ok_or_else(missing)?;
    let newest = &series.bars[series.bars.len().saturating_sub(limit)..];
    let last = newest.last().ok_or_else(missing)?;
    Ok(Json(json!({
        "symbol": symbol, "timeframe": "1d", "price": last.close, "volume": last.volume, "timestamp": last.time_ms,
        "bars_of": series.symbol,
        "note": (series.symbol != symbol.as_str()).then(|| format!("no history of {symbol} is shipped; these are bars of {STAND_IN}")),
        "candles": newest.iter().map(crate::history::Bar::row).collect::<Vec<_>>(),
    })))
}

async fn symbols(State(context): State<Arc<Context>>) -> Json<Value> {
    let symbols: Vec<_> = context
        .series
        .iter()
        .map(|series| json!({"symbol": series.symbol, "bars": series.bars.len()}))
        .collect();
    Json(json!({"count": symbols.len(), "symbols": symbols}))
}

#[derive(Deserialize)]
struct BacktestRequest {
    symbol: Symbol,
    strategy: String,
}

/// `POST /run`: a backtest over the newest bars of a symbol.
async fn run_backtest(
    State(context): State<Arc<Context>>,
    StrictJson(request): StrictJson<BacktestRequest>,
) -> Result<Json<Value>, Reject> {
    let missing = || Reject::new(Code::NotFound, "no history is shipped");
    let series = context.series_for(request.symbol.as_str()).ok_or_else(missing)?;
    let bars = &series.bars[series.bars.len().saturating_sub(backtest::BARS_MAX)..];
    let known = ["ema_crossover", "rsi", "bb_reversal"].contains(&request.strategy.as_str());
    let strategy = if known { request.strategy.as_str() } else { STRATEGY };
    let result = backtest::run(&context.calc, bars, strategy).await.map_err(|error| {
        tracing::warn!(component = "backtest", error = &error as &dyn std::error::Error, "backtest failed");
        Reject::new(Code::WorkerUnavailable, "the calculation worker did not answer")
    })?;
    Ok(Json(json!({
        "status": "completed", "backtest_id": Uuid::now_v7(), "symbol": request.symbol, "bars_of": series.symbol,
        "strategy": request.strategy, "strategy_used": strategy, "results": result,
    })))
}

async fn status(State(context): State<Arc<Context>>) -> Json<Value> {
    let orders = lock(&context).len();
    Json(json!({"status": "running", "mode": "paper", "orders": orders}))
}

#[derive(Deserialize)]
struct OrderRequest {
    symbol: Symbol,
    side: Side,
    quantity: f64,
    price: Option<f64>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Side {
    Buy,
    Sell,
}

/// `POST /orders`: takes a paper order; nothing is traded.
async fn place_order(
    State(context): State<Arc<Context>>,
    StrictJson(order): StrictJson<OrderRequest>,
) -> Result<Response, Reject> {
    let sane = |value: f64| value.is_finite() && value > 0.0;
    if !sane(order.quantity) || order.price.is_some_and(|price| !sane(price)) {
        return Err(Reject::new(Code::Unprocessable, "quantity and price must be above zero"));
    }
    let id = Uuid::now_v7().to_string();
    let side = match order.side {
        Side::Buy => "buy",
        Side::Sell => "sell",
    };
    let placed = json!({"order_id": id, "status": "accepted", "mode": "paper", "symbol": order.symbol, "side": side,
                        "quantity": order.quantity, "price": order.price});
    let mut orders = lock(&context);
    if orders.len() >= ORDERS_MAX {
        orders.pop_first();
    }
    orders.insert(id, placed.clone());
    Ok((StatusCode::CREATED, Json(placed)).into_response())
}

async fn list_orders(State(context): State<Arc<Context>>) -> Json<Value> {
    let orders: Vec<_> = lock(&context).values().cloned().collect();
    Json(json!({"count": orders.len(), "orders": orders}))
}

async fn show_order(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Reject> {
    lock(&context).get(&id).cloned().map(Json).ok_or_else(|| Reject::new(Code::NotFound, "no such order"))
}

async fn cancel_order(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Reject> {
    let mut orders = lock(&context);
    let order = orders.get_mut(&id).ok_or_else(|| Reject::new(Code::NotFound, "no such order"))?;
    order["status"] = json!("cancelled");
    Ok(Json(order.clone()))
}

fn lock(context: &Context) -> std::sync::MutexGuard<'_, BTreeMap<String, Value>> {
    context.orders.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
