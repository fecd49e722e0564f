//! `POST /calculations/position-size` and `/calculations/portfolio/size`.

use serde::Deserialize;
use serde_json::{Value as Json, json};
use sluice_calc::size::{
    Book, Cap, Limits, Method, Odds, Proposal, Side, SizeError, Sized, apply, scale_all,
};
use sluice_wire::symbol::Symbol;

use crate::bounds::{ID_BYTES_MAX, POSITIONS_MAX};
use crate::error::Refusal;
use crate::pool::Scratch;

/// The symbol of a position that names none.
const NO_SYMBOL: &str = "";
/// The volatility a period that parity aims at.
const TARGET: f64 = 0.005;

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Way {
    Buy,
    Sell,
}

/// What is held: a quantity with sign.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    symbol: Symbol,
    quantity: f64,
    price: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Caps {
    position_risk: Option<f64>,
    symbol_exposure: Option<f64>,
    gross_leverage: Option<f64>,
    net_leverage: Option<f64>,
    portfolio_var: Option<f64>,
    alpha: Option<f64>,
}

/// A request with the fields of a wanted position and its own.
macro_rules! wished {
    ($(#[$doc:meta])* struct $name:ident { $($own:tt)* }) => {
        $(#[$doc])*
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name {
            $($own)*
            side: Way,
            price: f64,
            method: String,
            risk: Option<f64>,
            stop: Option<f64>,
            atr: Option<f64>,
            multiple: Option<f64>,
            point_value: Option<f64>,
            win_rate: Option<f64>,
            avg_win: Option<f64>,
            avg_loss: Option<f64>,
            fraction: Option<f64>,
            volatility: Option<f64>,
            target_volatility: Option<f64>,
            score: Option<f64>,
        }

        impl $name {
            fn wish(&self) -> Wish<'_> {
                Wish {
                    side: self.side,
                    price: self.price,
                    method: &self.method,
                    risk: self.risk,
                    stop: self.stop,
                    atr: self.atr,
                    multiple: self.multiple.unwrap_or(1.5),
                    point_value: self.point_value.unwrap_or(1.0),
                    odds: [self.win_rate, self.avg_win, self.avg_loss, self.fraction],
                    volatility: self.volatility,
                    target: self.target_volatility,
                    score: self.score,
                }
            }
        }
    };
}

wished! {
    /// One position, and the account it is for.
    struct One {
        equity: f64,
        symbol: Option<Symbol>,
        #[serde(default)]
        caps: Caps,
        lot_size: Option<f64>,
        min_quantity: Option<f64>,
        #[serde(default)]
        positions: Vec<Held>,
        /// Rows and columns in the order in which symbols first occur: held ones, then wanted ones.
        covariance: Option<Vec<Vec<f64>>>,
    }
}

wished! {
    /// One of many.
    struct Wanted {
        id: Option<String>,
        symbol: Symbol,
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Many {
    equity: f64,
    positions_wanted: Vec<Wanted>,
    #[serde(default)]
    caps: Caps,
    lot_size: Option<f64>,
    min_quantity: Option<f64>,
    #[serde(default)]
    positions: Vec<Held>,
    covariance: Option<Vec<Vec<f64>>>,
}

/// Sizes one position.
pub(crate) fn one(body: &[u8], _: usize, _: &mut Scratch) -> Result<(Vec<u8>, usize), Refusal> {
    let request: One = sluice_wire::json::from_slice(body)?;
    let symbol = request.symbol.as_ref().map_or(NO_SYMBOL, Symbol::as_str);
    let limits = limits(&request.caps, request.lot_size, request.min_quantity)?;
    let covariance = request.covariance.as_deref();
    let (book, places) = book(request.equity, &request.positions, &[symbol], covariance, &limits)?;
    let (proposal, cap) = propose(request.equity, places[0], &request.wish())?;
    let sized = apply(&book, &cap, &limits).map_err(refusal)?;
    let worth = cap.price * cap.point_value;
    let warnings: Vec<Json> = proposal
        .score_too_low
        .then(|| json!({"metric": "quantity", "reason": "score_too_low", "detail": "the score is below 0.6"}))
        .into_iter()
        .collect();
    let answer = json!({
        "success": true, "quantity": sized.quantity, "notional": sized.quantity * worth,
        "risk_amount": sized.quantity * cap.stop_distance * cap.point_value,
        "stop": proposal.stop, "target": proposal.target, "bound": sized.bound(), "caps": cuts(&sized),
        "warnings": warnings,
    });
    Ok((answer.to_string().into_bytes(), 1))
}

/// Sizes many positions of one portfolio.
pub(crate) fn many(body: &[u8], _: usize, _: &mut Scratch) -> Result<(Vec<u8>, usize), Refusal> {
    let mut request: Many = sluice_wire::json::from_slice(body)?;
    bounded("positions_wanted", request.positions_wanted.len())?;
    for (at, wanted) in request.positions_wanted.iter_mut().enumerate() {
        let id = wanted.id.get_or_insert_with(|| wanted.symbol.as_str().to_owned());
        if id.len() > ID_BYTES_MAX {
            return Err(at_row(at, "its id is longer than 64 bytes"));
        }
    }
    // One order whatever the order of the request.
    request.positions_wanted.sort_by(|a, b| a.id.cmp(&b.id));
    let limits = limits(&request.caps, request.lot_size, request.min_quantity)?;
    let symbols: Vec<&str> = request.positions_wanted.iter().map(|wanted| wanted.symbol.as_str()).collect();
    let covariance = request.covariance.as_deref();
    let (book, places) = book(request.equity, &request.positions, &symbols, covariance, &limits)?;
    let wanted = request.positions_wanted.iter().zip(&places);
    let caps: Vec<Cap> = wanted
        .map(|(wanted, place)| {
            let of_it = propose(request.equity, *place, &wanted.wish());
            of_it.map(|(_, cap)| cap).map_err(|refusal| named(wanted, refusal))
        })
        .collect::<Result<_, _>>()?;
    let (sized, scale) = scale_all(&book, &caps, &limits).map_err(refusal)?;
    let sizes: Vec<Json> = request
        .positions_wanted
        .iter()
        .zip(&sized)
        .map(|(wanted, sized)| {
            json!({"id": wanted.id, "symbol": wanted.symbol, "quantity": sized.quantity,
                "bound": sized.bound(), "caps": cuts(sized)})
        })
        .collect();
    let answer = json!({"success": true, "sizes": sizes, "scale": scale});
    Ok((answer.to_string().into_bytes(), sized.len()))
}

/// The fields that both requests have for a position.
struct Wish<'a> {
    side: Way,
    price: f64,
    method: &'a str,
    risk: Option<f64>,
    stop: Option<f64>,
    atr: Option<f64>,
    multiple: f64,
    point_value: f64,
    odds: [Option<f64>; 4],
    volatility: Option<f64>,
    target: Option<f64>,
    score: Option<f64>,
}

impl Wish<'_> {
    fn method(&self) -> Result<Method, Refusal> {
        let needed =
            |name: &'static str, value: Option<f64>| value.ok_or_else(|| refusal(SizeError::Missing(name)));
        let [win_rate, avg_win, avg_loss, fraction] = self.odds;
        let odds = || {
            Ok::<_, Refusal>(Odds {
                win_rate: needed("win_rate", win_rate)?,
                avg_win: needed("avg_win", avg_win)?,
                avg_loss: needed("avg_loss", avg_loss)?,
                fraction: fraction.unwrap_or(0.25),
            })
        };
        let (risk, target) = (self.risk.unwrap_or(0.01), self.target.unwrap_or(TARGET));
        let volatility = || needed("volatility", self.volatility);
        Ok(match self.method {
            "fixed_fractional" => Method::FixedFractional { risk },
            "atr" => Method::Atr { risk, atr: needed("atr", self.atr)?, multiple: self.multiple },
            "kelly" => Method::Kelly(odds()?),
            "risk_parity" => Method::RiskParity { target, volatility: volatility()? },
            "tradestream" => Method::Blend {
                odds: odds()?,
                target,
                volatility: volatility()?,
                score: needed("score", self.score)?,
            },
            _ => {
                let text = "method is `fixed_fractional`, `atr`, `kelly`, `risk_parity` or `tradestream`";
                return Err(Refusal::Parameter(text.to_owned()));
            }
        })
    }
}

/// What the method proposes, and the distance that the limit of the position's risk needs: to the
/// stop, or some average true ranges. Without either that limit cannot be kept, so nothing is sized.
fn propose(equity: f64, symbol: usize, wish: &Wish<'_>) -> Result<(Proposal, Cap), Refusal> {
    let side = match wish.side {
        Way::Buy => Side::Buy,
        Way::Sell => Side::Sell,
    };
    let point_value = wish.point_value;
    let proposal =
        wish.method()?.propose(equity, wish.price, side, wish.stop, point_value).map_err(refusal)?;
    let to_stop = proposal.stop.map(|stop| (wish.price - stop).abs());
    let distance = to_stop.or_else(|| wish.atr.map(|atr| atr * wish.multiple));
    let stop_distance =
        distance.ok_or_else(|| Refusal::Parameter("stop is needed, or atr, to limit the risk".to_owned()))?;
    let cap =
        Cap { symbol, side, quantity: proposal.quantity, price: wish.price, point_value, stop_distance };
    Ok((proposal, cap))
}

fn limits(caps: &Caps, lot_size: Option<f64>, min_quantity: Option<f64>) -> Result<Limits, Refusal> {
    let usual = Limits::default();
    let limits = Limits {
        position_risk: caps.position_risk.unwrap_or(usual.position_risk),
        symbol_exposure: caps.symbol_exposure.unwrap_or(usual.symbol_exposure),
        gross_leverage: caps.gross_leverage.unwrap_or(usual.gross_leverage),
        net_leverage: caps.net_leverage.unwrap_or(usual.net_leverage),
        portfolio_var: caps.portfolio_var.map(|share| (share, caps.alpha.unwrap_or(0.05))),
        lot_size: lot_size.unwrap_or(0.0),
        min_quantity: min_quantity.unwrap_or(0.0),
    };
    limits.checked().map_err(refusal)
}

/// The portfolio, and the place of every wanted symbol in it.
fn book(
    equity: f64,
    held: &[Held],
    wanted: &[&str],
    covariance: Option<&[Vec<f64>]>,
    limits: &Limits,
) -> Result<(Book, Vec<usize>), Refusal> {
    bounded("positions", held.len())?;
    let mut symbols: Vec<&str> = Vec::new();
    let mut notional = Vec::new();
    let mut place = |symbol| {
        let at = symbols.iter().position(|known| *known == symbol).unwrap_or(symbols.len());
        if at == symbols.len() {
            symbols.push(symbol);
        }
        at
    };
    for (at, position) in held.iter().enumerate() {
        let value = position.quantity * position.price;
        if position.price <= 0.0 || value.is_nan() || value.abs() > 1e30 {
            return Err(at_row(at, "its price is not above zero, or its value is out of range"));
        }
        let symbol = place(position.symbol.as_str());
        notional.resize(notional.len().max(symbol + 1), 0.0);
        notional[symbol] += value;
    }
    let places: Vec<usize> = wanted.iter().map(|symbol| place(symbol)).collect();
    let count = places.iter().map(|place| place + 1).max().unwrap_or(0).max(notional.len());
    notional.resize(count, 0.0);
    if limits.portfolio_var.is_some() && covariance.is_none() {
        return Err(Refusal::Parameter("covariance is needed for the limit portfolio_var".to_owned()));
    }
    let covariance = covariance.map(|rows| matrix(rows, count)).transpose()?;
    Ok((Book { equity, notional, covariance }, places))
}

fn matrix(rows: &[Vec<f64>], count: usize) -> Result<Vec<f64>, Refusal> {
    if rows.len() != count || rows.iter().any(|row| row.len() != count) {
        let text = format!("covariance has {count} rows of {count} values: held symbols, then wanted ones");
        return Err(Refusal::Shape(text));
    }
    let odd = |at: &usize| (0..count).any(|to| rows[*at][to] != rows[to][*at] || rows[*at][to].abs() > 1e6);
    if let Some(at) = (0..count).find(odd) {
        return Err(at_row(at, "covariance is not symmetric there, or out of range"));
    }
    Ok(rows.concat())
}

fn cuts(sized: &Sized) -> Vec<Json> {
    let told = sized.cuts.iter();
    told.map(|cut| json!({"cap": cut.cap, "limit": cut.limit, "before": cut.before, "after": cut.after}))
        .collect()
}

fn bounded(field: &str, count: usize) -> Result<(), Refusal> {
    if count > POSITIONS_MAX {
        return Err(Refusal::TooMuch(format!("{count} {field} are more than the limit of {POSITIONS_MAX}")));
    }
    Ok(())
}

fn refusal(error: SizeError) -> Refusal {
    Refusal::Parameter(error.to_string())
}

fn named(wanted: &Wanted, refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::Parameter(text) => Refusal::Parameter(format!(
            "{}: {text}",
            wanted.id.as_deref().unwrap_or_default().escape_default()
        )),
        other => other,
    }
}

fn at_row(row: usize, text: &str) -> Refusal {
    Refusal::Series { row: Some(row), text: format!("row {row}: {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Call = fn(&[u8], usize, &mut Scratch) -> Result<(Vec<u8>, usize), Refusal>;

    fn ask(call: Call, body: &Json) -> Result<Json, Refusal> {
        let mut scratch = Scratch::new(sluice_calc::Cpu::proven().unwrap(), std::sync::Arc::default());
        Ok(serde_json::from_slice(&call(body.to_string().as_bytes(), 100, &mut scratch)?.0).unwrap())
    }

    fn with(more: Json) -> Json {
        let mut body = json!({"equity": 10_000, "price": 50, "side": "buy", "symbol": "X", "stop": 45,
            "method": "fixed_fractional"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    }

    #[test]
    fn the_cap_that_bound_is_named() {
        let free = ask(one, &with(json!({"risk": 0.005}))).unwrap();
        assert_eq!((&free["quantity"], &free["bound"]), (&json!(10.0), &Json::Null));
        assert_eq!((&free["notional"], &free["risk_amount"]), (&json!(500.0), &json!(50.0)));
        let risky = ask(one, &with(json!({"risk": 0.05, "caps": {"symbol_exposure": 1}}))).unwrap();
        assert_eq!((&risky["quantity"], &risky["bound"]), (&json!(40.0), &json!("position_risk")));
        let held = json!({"risk": 0.02, "positions": [{"symbol": "X", "quantity": 20, "price": 50}]});
        let held = ask(one, &with(held)).unwrap();
        assert_eq!((&held["quantity"], &held["bound"]), (&json!(20.0), &json!("symbol_exposure")));
        let lots = ask(one, &with(json!({"risk": 0.005, "lot_size": 4}))).unwrap();
        assert_eq!((&lots["quantity"], &lots["bound"]), (&json!(8.0), &json!("lot")));
        let names: Vec<&str> =
            lots["caps"].as_array().unwrap().iter().map(|cut| cut["cap"].as_str().unwrap()).collect();
        assert_eq!(names, ["position_risk", "symbol_exposure", "gross_leverage", "net_leverage", "lot"]);
        let var = json!({"risk": 0.02, "caps": {"portfolio_var": 0.001}, "covariance": [[0.0004]]});
        assert_eq!(ask(one, &with(var)).unwrap()["bound"], "portfolio_var");
    }

    #[test]
    fn every_method_is_reached() {
        let bet =
            json!({"win_rate": 0.6, "avg_win": 2, "avg_loss": 1, "volatility": 0.25, "score": 0.5, "atr": 2});
        for method in ["fixed_fractional", "atr", "kelly", "risk_parity", "tradestream"] {
            let mut body = with(bet.clone());
            body["method"] = json!(method);
            let answer = ask(one, &body).unwrap();
            let low = method == "tradestream";
            assert_eq!(answer["quantity"].as_f64().unwrap() == 0.0, low, "{answer}");
            assert_eq!(answer["warnings"].as_array().unwrap().len(), usize::from(low));
        }
    }

    #[test]
    fn many_share_a_symbol_and_one_scale() {
        let wanted = |id: &str, symbol: &str| json!({"id": id, "symbol": symbol, "side": "buy", "price": 50, "stop": 49, "method": "fixed_fractional"});
        let body = json!({"equity": 10_000, "positions_wanted": [wanted("b", "X"), wanted("a", "X"), wanted("c", "Y")],
            "caps": {"symbol_exposure": 0.4, "gross_leverage": 0.4}});
        let answer = ask(many, &body).unwrap();
        assert_eq!(answer["sizes"][0]["id"], "a");
        assert!((answer["scale"].as_f64().unwrap() - 0.5).abs() < 1e-9, "{answer}");
        let quantity = |at: usize| answer["sizes"][at]["quantity"].as_f64().unwrap();
        assert!((quantity(0) - 20.0).abs() < 1e-6 && (quantity(2) - 40.0).abs() < 1e-6, "{answer}");
    }

    #[test]
    fn requests_that_cannot_be_are_refused() {
        let parameter = |more: Json| match ask(one, &with(more)) {
            Err(Refusal::Parameter(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(parameter(json!({"stop": null})), "stop is needed");
        assert!(
            parameter(json!({"stop": null, "method": "risk_parity", "volatility": 0.1}))
                .contains("stop is needed, or atr")
        );
        assert!(parameter(json!({"stop": 55})).contains("below the price"));
        assert!(parameter(json!({"equity": -1})).contains("equity must be"));
        assert!(parameter(json!({"method": "guess"})).contains("tradestream"));
        assert!(parameter(json!({"caps": {"portfolio_var": 0.1}})).contains("covariance"));
        assert!(parameter(json!({"caps": {"gross_leverage": -1}})).contains("gross_leverage"));
        assert!(matches!(ask(one, &with(json!({"caps": {"luck": 1}}))), Err(Refusal::Shape(_))));
        let held = json!({"positions": [{"symbol": "Y", "quantity": 1, "price": 0}]});
        assert!(matches!(ask(one, &with(held)), Err(Refusal::Series { row: Some(0), .. })));
        let odd = json!({"positions": [{"symbol": "Y", "quantity": 1, "price": 1}], "covariance": [[1, 0], [0.5, 1]]});
        assert!(matches!(ask(one, &with(odd)), Err(Refusal::Series { row: Some(0), .. })));
    }
}
