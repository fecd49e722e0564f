//! The limits of positions, against the plain measures.

use proptest::prelude::*;
use sluice_calc::size::{Book, CAPS, Cap, Limits, Side, SizeError, Sized, apply, scale_all};

const SYMBOLS: usize = 3;

fn books() -> impl Strategy<Value = Book> {
    let factors = prop::array::uniform3(-0.05..0.05);
    (prop::array::uniform3(-0.4..0.4), factors, prop::array::uniform3(0.001..0.05)).prop_map(
        |(held, factors, own)| {
            let mut covariance = vec![0.0; SYMBOLS * SYMBOLS];
            for (at, value) in covariance.iter_mut().enumerate() {
                let (row, column) = (at / SYMBOLS, at % SYMBOLS);
                *value =
                    factors[row] * factors[column] + if row == column { own[row] * own[row] } else { 0.0 };
            }
            Book {
                equity: 1_000.0,
                notional: held.map(|share| share * 1_000.0).to_vec(),
                covariance: Some(covariance),
            }
        },
    )
}

fn wants() -> impl Strategy<Value = Cap> {
    (0..SYMBOLS, any::<bool>(), 0.0..50.0, 1.0..100.0, 0.01..20.0).prop_map(
        |(symbol, buys, quantity, price, stop_distance)| {
            let side = if buys { Side::Buy } else { Side::Sell };
            Cap { symbol, side, quantity, price, point_value: 1.0, stop_distance }
        },
    )
}

fn limits() -> impl Strategy<Value = Limits> {
    (0.001..0.1, 0.05..0.6, 0.3..1.5, 0.1..1.0, 0.005..0.1, prop::sample::select(vec![0.0, 0.5, 1.0]))
        .prop_map(|(position_risk, symbol_exposure, gross_leverage, net_leverage, var, lot_size)| Limits {
            position_risk,
            symbol_exposure,
            gross_leverage,
            net_leverage,
            portfolio_var: Some((var, 0.05)),
            lot_size,
            min_quantity: lot_size,
        })
}

/// The portfolio with these positions.
fn after(book: &Book, wants: &[Cap], sized: &[Sized]) -> Book {
    let mut book = book.clone();
    for (want, sized) in wants.iter().zip(sized) {
        book.notional[want.symbol] += sized.quantity * want.price * want.side.sign();
    }
    book
}

/// Gross, net and value at risk, as shares of the equity.
fn measures(book: &Book) -> [f64; 3] {
    let gross: f64 = book.notional.iter().map(|value| value.abs()).sum();
    let net: f64 = book.notional.iter().sum();
    [gross / book.equity, net.abs() / book.equity, book.value_at_risk(0.05)]
}

/// Whether no limit is exceeded that was not exceeded before, and none further than before.
fn within(before: &Book, after: &Book, limits: &Limits) -> bool {
    let allowed =
        [limits.gross_leverage, limits.net_leverage, limits.portfolio_var.map_or(f64::MAX, |(var, _)| var)];
    let (before, after) = (measures(before), measures(after));
    (0..3).all(|at| after[at] <= allowed[at].max(before[at]) * (1.0 + 1e-9) + 1e-12)
}

proptest! {
    #[test]
    fn no_limit_is_exceeded_and_nothing_grows(book in books(), want in wants(), limits in limits()) {
        // Lots cut once more, which may take a hedge away: the limits are looked at before them.
        let limits = Limits { lot_size: 0.0, min_quantity: 0.0, ..limits };
        let sized = apply(&book, &want, &limits).unwrap();
        prop_assert!(sized.quantity >= 0.0 && sized.quantity <= want.quantity);
        prop_assert!(sized.quantity * want.stop_distance <= limits.position_risk * book.equity * (1.0 + 1e-12));
        let end = after(&book, &[want], std::slice::from_ref(&sized));
        prop_assert!(within(&book, &end, &limits) || sized.quantity == 0.0, "{sized:?}");
        let exposure = end.notional[want.symbol] * want.side.sign();
        prop_assert!(exposure <= (limits.symbol_exposure * book.equity).max(book.notional[want.symbol] * want.side.sign()) + 1e-9);
        // The cuts are a chain in the one order.
        prop_assert_eq!(sized.cuts.iter().map(|cut| cut.cap).collect::<Vec<_>>(), CAPS);
        prop_assert!(sized.cuts.iter().all(|cut| cut.after <= cut.before));
        prop_assert!(sized.cuts.windows(2).all(|pair| pair[0].after == pair[1].before));
        prop_assert_eq!(sized.bound().is_some(), sized.quantity < want.quantity);
    }

    #[test]
    fn a_little_more_would_exceed_a_limit(book in books(), want in wants(), limits in limits()) {
        let limits = Limits { lot_size: 0.0, min_quantity: 0.0, ..limits };
        let sized = apply(&book, &want, &limits).unwrap();
        if sized.quantity > 1e-6 && sized.quantity < want.quantity * (1.0 - 1e-6) {
            let more = Sized { quantity: sized.quantity * (1.0 + 1e-5), cuts: Vec::new() };
            let end = after(&book, &[want], std::slice::from_ref(&more));
            let risk = more.quantity * want.stop_distance <= limits.position_risk * book.equity;
            let exposure = end.notional[want.symbol] * want.side.sign() <= limits.symbol_exposure * book.equity;
            let [gross, net, var] = measures(&end);
            let shared = gross <= limits.gross_leverage
                && net <= limits.net_leverage
                && var <= limits.portfolio_var.map_or(f64::MAX, |(var, _)| var);
            prop_assert!(!(risk && exposure && shared), "{sized:?}");
        }
    }

    #[test]
    fn many_positions_are_cut_together(
        book in books(),
        wants in prop::collection::vec(wants(), 0..6),
        limits in limits(),
    ) {
        let (sized, scale) = scale_all(&book, &wants, &limits).unwrap();
        prop_assert_eq!(sized.len(), wants.len());
        prop_assert!((0.0..=1.0).contains(&scale));
        for (want, sized) in wants.iter().zip(&sized) {
            prop_assert!(sized.quantity >= 0.0 && sized.quantity <= want.quantity);
            prop_assert!(limits.lot_size == 0.0 || (sized.quantity / limits.lot_size).fract() == 0.0);
            prop_assert!(sized.quantity == 0.0 || sized.quantity >= limits.min_quantity);
            prop_assert!(sized.cuts.iter().all(|cut| cut.after <= cut.before * (1.0 + 1e-12)));
            prop_assert!(sized.quantity * want.stop_distance <= limits.position_risk * book.equity * (1.0 + 1e-12));
        }
        // As with one position: before lots.
        let limits = Limits { lot_size: 0.0, min_quantity: 0.0, ..limits };
        let (sized, _) = scale_all(&book, &wants, &limits).unwrap();
        let end = after(&book, &wants, &sized);
        prop_assert!(within(&book, &end, &limits), "{sized:?}");
        for (held, end) in book.notional.iter().zip(&end.notional) {
            prop_assert!(end.abs() <= (limits.symbol_exposure * book.equity).max(held.abs()) + 1e-9);
        }
    }

    #[test]
    fn a_portfolio_over_a_limit_may_come_nearer_to_it(book in books(), want in wants(), gross in 0.01..1.0_f64) {
        let limits = Limits {
            position_risk: 1.0,
            symbol_exposure: 1_000.0,
            gross_leverage: gross,
            net_leverage: 1_000.0,
            ..Limits::default()
        };
        let sized = apply(&book, &want, &limits).unwrap();
        let most = want.quantity.min(book.equity / want.stop_distance);
        let at = |quantity: f64| measures(&after(&book, &[want], &[Sized { quantity, cuts: Vec::new() }]))[0];
        // By trial: the furthest that is within, or else the furthest of those that are lowest.
        let steps = 2_000;
        let tried: Vec<f64> = (0..=steps).map(|step| most * f64::from(step) / f64::from(steps)).collect();
        let least = tried.iter().map(|&quantity| at(quantity)).fold(f64::MAX, f64::min);
        let allowed = gross.max(least) + 1e-12;
        let best = tried.iter().rev().copied().find(|&quantity| at(quantity) <= allowed).unwrap();
        prop_assert!((sized.quantity - best).abs() <= most / f64::from(steps) * 1.01 + 1e-9, "{sized:?} {best}");
        prop_assert!(at(sized.quantity) <= gross.max(at(0.0)) + 1e-9);
    }
}

#[test]
fn an_order_that_closes_is_given_beyond_the_limit() {
    let book = Book { equity: 1_000.0, notional: vec![900.0, 900.0], covariance: None };
    let limits = Limits { symbol_exposure: 2.0, position_risk: 1.0, ..Limits::default() };
    let want =
        |side, quantity| Cap { symbol: 0, side, quantity, price: 10.0, point_value: 1.0, stop_distance: 1.0 };
    let given = |side, quantity| apply(&book, &want(side, quantity), &limits).unwrap().quantity;
    assert_eq!(given(Side::Sell, 30.0), 30.0);
    assert_eq!(given(Side::Buy, 30.0), 0.0);
    // Past 90 it is short; with 100 the gross limit still holds, with more it does not.
    assert!((given(Side::Sell, 150.0) - 100.0).abs() < 1e-9);
}

#[test]
fn a_book_that_does_not_fit_is_refused() {
    let book = Book { equity: 1_000.0, notional: vec![0.0], covariance: Some(vec![0.1, 0.2]) };
    let want =
        Cap { symbol: 0, side: Side::Buy, quantity: 1.0, price: 1.0, point_value: 1.0, stop_distance: 1.0 };
    let refused = |book: &Book, want: &Cap, limits: &Limits| apply(book, want, limits).unwrap_err();
    assert_eq!(refused(&book, &want, &Limits::default()), SizeError::Missing("covariance"));
    let bare = Book { covariance: None, ..book };
    let var = Limits { portfolio_var: Some((0.05, 0.05)), ..Limits::default() };
    assert_eq!(refused(&bare, &want, &var), SizeError::Missing("covariance"));
    let other = Cap { symbol: 1, ..want };
    assert_eq!(refused(&bare, &other, &Limits::default()), SizeError::Missing("symbol"));
}
