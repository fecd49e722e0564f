//! The limits, each of which only cuts.
//!
//! A portfolio is a list of notional values a symbol, signed. Cutting a position towards zero may
//! raise a net exposure or a value at risk where it hedges others. A portfolio that exceeds a limit
//! already may still be given what brings it nearer to it, and nothing that takes it further. Lots come
//! last: where whole lots of a hedge are fewer, a limit may be exceeded by what a lot is worth.

use super::{AMOUNT_MAX, AMOUNT_MIN, Side, SizeError, check};
use crate::risk::normal;

/// Steps of a bisection: more digits than a quantity has.
const STEPS: usize = 60;
/// Largest notional value of a symbol: the product of the largest price and quantity.
const NOTIONAL_MAX: f64 = AMOUNT_MAX * AMOUNT_MAX;
/// Slack of a comparison: what rounding alone may exceed a limit by.
const SLACK: f64 = 1e-12;

/// The limits, in the order in which they are applied.
pub const CAPS: [&str; 6] =
    ["position_risk", "symbol_exposure", GROSS_LEVERAGE, NET_LEVERAGE, PORTFOLIO_VAR, "lot"];
const GROSS_LEVERAGE: &str = "gross_leverage";
const NET_LEVERAGE: &str = "net_leverage";
const PORTFOLIO_VAR: &str = "portfolio_var";

/// What may be held, as shares of the equity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Lost at the stop of one position.
    pub position_risk: f64,
    /// Notional of one symbol, held and new.
    pub symbol_exposure: f64,
    /// Sum of the notionals without sign.
    pub gross_leverage: f64,
    /// Sum of the notionals.
    pub net_leverage: f64,
    /// Value at risk of the portfolio, with its tail; needs the covariance of the symbols.
    pub portfolio_var: Option<(f64, f64)>,
    /// Quantities are whole multiples of it; 0 for any quantity.
    pub lot_size: f64,
    /// Smaller quantities are none.
    pub min_quantity: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            position_risk: 0.02,
            symbol_exposure: 0.2,
            gross_leverage: 1.0,
            net_leverage: 1.0,
            portfolio_var: None,
            lot_size: 0.0,
            min_quantity: 0.0,
        }
    }
}

impl Limits {
    /// Every limit within its range.
    pub fn checked(self) -> Result<Self, SizeError> {
        check("position_risk", self.position_risk, 0.0, 1.0)?;
        check("symbol_exposure", self.symbol_exposure, 0.0, 1_000.0)?;
        check("gross_leverage", self.gross_leverage, 0.0, 1_000.0)?;
        check("net_leverage", self.net_leverage, 0.0, 1_000.0)?;
        check("lot_size", self.lot_size, 0.0, AMOUNT_MAX)?;
        check("min_quantity", self.min_quantity, 0.0, AMOUNT_MAX)?;
        if let Some((share, alpha)) = self.portfolio_var {
            check("portfolio_var", share, 0.0, 1_000.0)?;
            check("alpha", alpha, 1e-6, 0.5)?;
        }
        Ok(self)
    }
}

/// What is held, by symbol: notional values with sign, and the covariance of their returns, row by
/// row, when a value at risk is limited.
#[derive(Clone, Debug, PartialEq)]
pub struct Book {
    /// Equity.
    pub equity: f64,
    /// Notional value of every symbol.
    pub notional: Vec<f64>,
    /// As many rows as symbols, each as long.
    pub covariance: Option<Vec<f64>>,
}

impl Book {
    fn checked(&self, limits: &Limits) -> Result<(), SizeError> {
        limits.checked()?;
        check("equity", self.equity, AMOUNT_MIN, AMOUNT_MAX)?;
        for held in &self.notional {
            check("positions", *held, -NOTIONAL_MAX, NOTIONAL_MAX)?;
        }
        let Some(covariance) = &self.covariance else {
            return if limits.portfolio_var.is_some() {
                Err(SizeError::Missing("covariance"))
            } else {
                Ok(())
            };
        };
        if covariance.len() != self.notional.len() * self.notional.len() {
            return Err(SizeError::Missing("covariance"));
        }
        covariance.iter().try_for_each(|value| check("covariance", *value, -1e6, 1e6).map(|_| ()))
    }

    /// Value at risk of the normal distribution without a mean, as a share of the equity; 0 without a
    /// covariance.
    #[must_use]
    pub fn value_at_risk(&self, alpha: f64) -> f64 {
        self.at_risk(alpha, self.covariance_of(&self.notional, &self.notional))
    }

    fn at_risk(&self, alpha: f64, variance: f64) -> f64 {
        -normal::quantile(alpha) * variance.max(0.0).sqrt() / self.equity
    }

    /// Covariance of the gains of two lists of notional values; 0 where none is known.
    fn covariance_of(&self, ones: &[f64], others: &[f64]) -> f64 {
        let Some(covariance) = &self.covariance else { return 0.0 };
        let rows = covariance.chunks_exact(ones.len().max(1)).zip(ones);
        rows.map(|(row, own)| own * row.iter().zip(others).map(|(c, other)| c * other).sum::<f64>()).sum()
    }
}

/// One limit's cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cut {
    /// Name of the limit, one of [`CAPS`].
    pub cap: &'static str,
    /// What it allows: a share of the equity, or a lot.
    pub limit: f64,
    /// Quantity before it.
    pub before: f64,
    /// Quantity after it, never more.
    pub after: f64,
}

/// A wanted position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cap {
    /// Index of its symbol in the book.
    pub symbol: usize,
    /// Which way.
    pub side: Side,
    /// How much before any limit.
    pub quantity: f64,
    /// Price.
    pub price: f64,
    /// Money a point of the price is worth.
    pub point_value: f64,
    /// Distance to the stop, a price; the limit of the position's risk needs it.
    pub stop_distance: f64,
}

/// A position after the limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Sized {
    /// How much.
    pub quantity: f64,
    /// Every limit in its order.
    pub cuts: Vec<Cut>,
}

impl Sized {
    /// The last limit that cut.
    #[must_use]
    pub fn bound(&self) -> Option<&'static str> {
        self.cuts.iter().rev().find(|cut| cut.after < cut.before).map(|cut| cut.cap)
    }
}

impl Cap {
    fn unit(&self) -> f64 {
        self.price * self.point_value * self.side.sign()
    }

    fn checked(&self, symbols: usize) -> Result<(), SizeError> {
        if self.symbol >= symbols {
            return Err(SizeError::Missing("symbol"));
        }
        check("price", self.price, AMOUNT_MIN, AMOUNT_MAX)?;
        check("point_value", self.point_value, AMOUNT_MIN, AMOUNT_MAX)?;
        check("stop", self.stop_distance, AMOUNT_MIN, AMOUNT_MAX)?;
        // The proposal may be astronomically large where the stop is near; it is cut at once.
        check("quantity", self.quantity, 0.0, f64::MAX).map(|_| ())
    }
}

/// Cuts one wanted position by every limit in turn.
pub fn apply(book: &Book, want: &Cap, limits: &Limits) -> Result<Sized, SizeError> {
    book.checked(limits)?;
    let (mut quantity, mut cuts) = own_limits(book, want, limits)?;
    for (cap, limit) in shared(limits) {
        let after = quantity * largest_scale(book, &[(*want, quantity)], cap, limit, limits);
        cuts.push(Cut { cap, limit, before: quantity, after });
        quantity = after;
    }
    let after = whole_lots(quantity, limits);
    cuts.push(Cut { cap: CAPS[5], limit: limits.lot_size, before: quantity, after });
    Ok(Sized { quantity: after, cuts })
}

/// Cuts many wanted positions: each by its own risk and its symbol's exposure, pro rata where several
/// want the same symbol; then all by one scale that the portfolio's limits allow; then to lots.
/// Returns the positions in the order of `wants`, and that scale.
pub fn scale_all(book: &Book, wants: &[Cap], limits: &Limits) -> Result<(Vec<Sized>, f64), SizeError> {
    book.checked(limits)?;
    let mut sized = Vec::with_capacity(wants.len());
    for want in wants {
        let (quantity, cuts) = own_limits(book, want, limits)?;
        sized.push(Sized { quantity, cuts });
    }
    share_symbols(book, wants, limits, &mut sized);
    let mut common = 1.0;
    for (cap, limit) in shared(limits) {
        let wanted: Vec<(Cap, f64)> =
            wants.iter().zip(&sized).map(|(want, sized)| (*want, sized.quantity)).collect();
        let scale = largest_scale(book, &wanted, cap, limit, limits);
        common *= scale;
        for sized in &mut sized {
            let (before, after) = (sized.quantity, sized.quantity * scale);
            sized.cuts.push(Cut { cap, limit, before, after });
            sized.quantity = after;
        }
    }
    for sized in &mut sized {
        let (before, after) = (sized.quantity, whole_lots(sized.quantity, limits));
        sized.cuts.push(Cut { cap: CAPS[5], limit: limits.lot_size, before, after });
        sized.quantity = after;
    }
    Ok((sized, common))
}

/// Risk of the position, then exposure to its symbol.
fn own_limits(book: &Book, want: &Cap, limits: &Limits) -> Result<(f64, Vec<Cut>), SizeError> {
    want.checked(book.notional.len())?;
    let mut cuts = Vec::with_capacity(CAPS.len());
    let at_stop = limits.position_risk * book.equity / (want.stop_distance * want.point_value);
    let after = want.quantity.min(at_stop);
    cuts.push(Cut { cap: CAPS[0], limit: limits.position_risk, before: want.quantity, after });
    let (before, room) = (after, room(book, want, limits));
    let after = before.min(room / want.unit().abs());
    cuts.push(Cut { cap: CAPS[1], limit: limits.symbol_exposure, before, after });
    Ok((after, cuts))
}

/// Notional that may still be added to the symbol on the side of the position.
fn room(book: &Book, want: &Cap, limits: &Limits) -> f64 {
    let held = book.notional.get(want.symbol).copied().unwrap_or(0.0) * want.side.sign();
    (limits.symbol_exposure * book.equity - held).max(0.0)
}

/// Several positions in one symbol share its room by what they want.
fn share_symbols(book: &Book, wants: &[Cap], limits: &Limits, sized: &mut [Sized]) {
    for (side, symbol) in [Side::Buy, Side::Sell]
        .into_iter()
        .flat_map(|side| (0..book.notional.len()).map(move |at| (side, at)))
    {
        let of_it: Vec<usize> =
            (0..wants.len()).filter(|at| wants[*at].symbol == symbol && wants[*at].side == side).collect();
        let wanted: f64 = of_it.iter().map(|at| sized[*at].quantity * wants[*at].unit().abs()).sum();
        let Some(first) = of_it.first() else { continue };
        let share = room(book, &wants[*first], limits) / wanted;
        for at in of_it {
            if share < 1.0 {
                sized[at].quantity *= share;
                if let Some(cut) = sized[at].cuts.last_mut() {
                    cut.after = sized[at].quantity;
                }
            }
        }
    }
}

/// The limits of the whole portfolio.
fn shared(limits: &Limits) -> impl Iterator<Item = (&'static str, f64)> + use<> {
    let var = limits.portfolio_var.map(|(share, _)| (PORTFOLIO_VAR, share));
    [(GROSS_LEVERAGE, limits.gross_leverage), (NET_LEVERAGE, limits.net_leverage)].into_iter().chain(var)
}

/// The largest share of the wanted quantities, at most 1, with which a limit holds. A portfolio that is
/// over the limit already gets the part that brings it nearer: up to the far end of what holds, or, when
/// nothing holds, up to where the measure is least; 0 when the positions only take it further.
fn largest_scale(book: &Book, wanted: &[(Cap, f64)], cap: &str, limit: f64, limits: &Limits) -> f64 {
    let held = &book.notional;
    let mut more = vec![0.0; held.len()];
    for (want, quantity) in wanted {
        more[want.symbol] += quantity * want.unit();
    }
    let alpha = limits.portfolio_var.map_or(0.05, |(_, alpha)| alpha);
    // The variance is a square of the scale, so its products are worked out once.
    let [still, cross, moved] = [(held, held), (held, &more), (&more, &more)]
        .map(|(ones, others)| if cap == PORTFOLIO_VAR { book.covariance_of(ones, others) } else { 0.0 });
    let used = |scale: f64| {
        let after = held.iter().zip(&more).map(|(held, more)| held + scale * more);
        match cap {
            GROSS_LEVERAGE => after.map(f64::abs).sum::<f64>() / book.equity,
            NET_LEVERAGE => after.sum::<f64>().abs() / book.equity,
            _ => book.at_risk(alpha, still + scale * (2.0 * cross + scale * moved)),
        }
    };
    let holds = |scale: f64| used(scale) <= limit * (1.0 + SLACK);
    if holds(1.0) {
        return 1.0;
    }
    // The measures are convex in the scale: one lowest place, and what holds is one interval around it.
    let mut low = 0.0;
    if !holds(low) {
        low = lowest(&used);
        if !holds(low) {
            return low;
        }
    }
    let mut high = 1.0;
    for _ in 0..STEPS {
        let middle = f64::midpoint(low, high);
        if holds(middle) { low = middle } else { high = middle }
    }
    low
}

/// Where in 0..=1 a convex measure is least, the furthest such place; 0 when it is nowhere less.
fn lowest(used: &impl Fn(f64) -> f64) -> f64 {
    let start = used(0.0);
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..2 * STEPS {
        let third = (high - low) / 3.0;
        if used(high - third) <= used(low + third) { low += third } else { high -= third }
    }
    // Rounding alone is no improvement.
    let at = if used(1.0) <= used(low) { 1.0 } else { low };
    if used(at) < start * (1.0 - SLACK) || used(1.0) <= start { at } else { 0.0 }
}

fn whole_lots(quantity: f64, limits: &Limits) -> f64 {
    let lots = if limits.lot_size > 0.0 {
        // A quantity that is a whole number of lots but for rounding is that number.
        (quantity / limits.lot_size * (1.0 + SLACK)).floor() * limits.lot_size
    } else {
        quantity
    };
    let lots = lots.min(quantity);
    if lots < limits.min_quantity { 0.0 } else { lots }
}
