//! Ultimate oscillator: buying pressure as a share of the true range over three windows, the shorter
//! the heavier, 0 to 100.
//!
//! Pressure is the close less the lower of today's low and yesterday's close. The shares weigh 4, 2
//! and 1; the windows are taken in order of length. A window without range adds 0. Lookback: the
//! longest window, for bar 0 has no range.

use crate::entry::{Entry, HIGH_LOW_CLOSE, Param, SINGLE, Value};
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs, true_range};
use crate::lanes::Lanes;
use crate::params::Span;
use crate::series::{Bar, Column};
use crate::window::{Derived, Deriving, Itself, Ratio, Window, Windowed};
use std::sync::Arc;

pub(super) static ULTOSC: Entry = Entry {
    name: "ultosc",
    aliases: &[],
    summary: "ultimate oscillator of buying pressure, 0 to 100",
    columns: HIGH_LOW_CLOSE,
    params: &[
        Param::bars("short", 1, |_| Value::Number(7.0)),
        Param::bars("medium", 1, |_| Value::Number(14.0)),
        Param::bars("long", 1, |_| Value::Number(28.0)),
    ],
    outputs: SINGLE,
    build: |args| {
        let mut windows: [Span; 3] = [args.window("short")?, args.window("medium")?, args.window("long")?];
        windows.sort_unstable();
        Ok(Arc::new(Ultosc { windows }))
    },
};

/// The buying pressure and the true range of a bar.
#[derive(Clone, Copy, Debug)]
struct Pressure;

impl Derived<3, 2> for Pressure {
    const READS: [Column; 3] = [Column::High, Column::Low, Column::Close];
    const LATE: bool = true;

    #[inline(always)]
    fn kept<V: Lanes>([_, _, close]: [V; 3]) -> V {
        close
    }

    #[inline(always)]
    fn of<V: Lanes>([before, close]: [V; 2], [high, low, _]: [V; 3]) -> [V; 2] {
        [close - low.bottom(before), true_range(high, low, before)]
    }
}

type Shares = Windowed<Ratio<Itself>, 2, 3, 1>;

#[derive(Clone, Copy, Debug)]
struct Ultosc {
    /// Shortest first.
    windows: [Span; 3],
}

impl Ultosc {
    fn shares(self) -> [Shares; 3] {
        self.windows.map(|window| Windowed(Ratio::new(window.bars())))
    }
}

/// The shares of the three windows, weighed.
#[inline]
fn weighed([short, medium, long]: [f64; 3]) -> f64 {
    100.0 * ((4.0 * short + 2.0 * medium + long) / 7.0)
}

impl Kernel for Ultosc {
    fn lookback(&self) -> usize {
        self.windows[2].bars()
    }

    fn scratch_columns(&self) -> usize {
        4
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], scratch: &mut [&mut [f64]]) {
        let ([out], [pressure, range, short, medium]) = (outputs(outs), outputs(scratch));
        fill_warm_up(out, self.lookback());
        if rows.len() <= self.lookback() {
            return;
        }
        let len = rows.len() - 1;
        let (pressure, range) = (&mut pressure[..len], &mut range[..len]);
        Pressure::fill(Pressure::READS.map(|column| rows.column(column)), [pressure, range]);
        let terms = [&*pressure, &*range];
        for (share, out) in self.shares().into_iter().zip([&mut short[1..], &mut medium[1..], &mut out[1..]])
        {
            share.run(terms, [out]);
        }
        let shown = self.lookback()..;
        let others = short[shown.clone()].iter().zip(&medium[shown.clone()]);
        for (out, (&short, &medium)) in out[shown].iter_mut().zip(others) {
            *out = weighed([short, medium, *out]);
        }
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(UltoscStream {
            deriving: Deriving::new(),
            shares: self.shares().map(|share| share.running()),
        })
    }
}

#[derive(Clone, Debug)]
struct UltoscStream {
    deriving: Deriving<Pressure, 3, 2>,
    shares: [Window<Ratio<Itself>, 2, 3, 1>; 3],
}

impl Live for UltoscStream {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        let terms = self.deriving.after(bar);
        outs[0] = terms
            .map_or(f64::NAN, |terms| weighed(self.shares.each_mut().map(|share| share.after(terms)[0])));
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        let terms = self.deriving.glance(bar);
        outs[0] = terms
            .map_or(f64::NAN, |terms| weighed(self.shares.each_ref().map(|share| share.glance(terms)[0])));
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(self.clone())
    }
}
