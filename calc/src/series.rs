//! A view of bars: one slice a column, all of one length, oldest bar first.

use std::fmt;

/// One price bar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bar {
    /// First price.
    pub open: f64,
    /// Highest price.
    pub high: f64,
    /// Lowest price.
    pub low: f64,
    /// Last price.
    pub close: f64,
    /// Traded volume.
    pub volume: f64,
}

impl Bar {
    /// The value of a column.
    #[inline]
    #[must_use]
    pub const fn value(&self, column: Column) -> f64 {
        match column {
            Column::Open => self.open,
            Column::High => self.high,
            Column::Low => self.low,
            Column::Close => self.close,
            Column::Volume => self.volume,
        }
    }
}

/// A column of a bar series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Column {
    /// First price.
    Open,
    /// Highest price.
    High,
    /// Lowest price.
    Low,
    /// Last price.
    Close,
    /// Traded volume.
    Volume,
}

impl Column {
    /// Every column, in the customary order.
    pub const ALL: [Self; 5] = [Self::Open, Self::High, Self::Low, Self::Close, Self::Volume];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::High => "high",
            Self::Low => "low",
            Self::Close => "close",
            Self::Volume => "volume",
        }
    }
}

/// The columns of a series before their lengths are compared; only `close` must be there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Columns<'a> {
    /// First prices.
    pub open: Option<&'a [f64]>,
    /// Highest prices.
    pub high: Option<&'a [f64]>,
    /// Lowest prices.
    pub low: Option<&'a [f64]>,
    /// Last prices; they give the series its length.
    pub close: &'a [f64],
    /// Traded volumes.
    pub volume: Option<&'a [f64]>,
}

/// Columns of one length, oldest bar first. Copying copies the view, not the bars.
#[derive(Clone, Copy, Debug)]
pub struct Bars<'a> {
    columns: Columns<'a>,
}

impl<'a> Bars<'a> {
    /// Checks that every column is as long as `close`.
    pub fn new(columns: Columns<'a>) -> Result<Self, ShapeError> {
        let bars = Self { columns };
        for column in Column::ALL {
            if let Some(values) = bars.column(column) {
                same_length(column.name(), values.len(), columns.close.len())?;
            }
        }
        Ok(bars)
    }

    /// All five columns.
    pub fn ohlcv(
        open: &'a [f64],
        high: &'a [f64],
        low: &'a [f64],
        close: &'a [f64],
        volume: &'a [f64],
    ) -> Result<Self, ShapeError> {
        Self::new(Columns { open: Some(open), high: Some(high), low: Some(low), close, volume: Some(volume) })
    }

    /// Closing prices alone.
    #[must_use]
    pub fn from_close(close: &'a [f64]) -> Self {
        Self { columns: Columns { close, ..Columns::default() } }
    }

    /// Number of bars.
    #[must_use]
    pub fn len(&self) -> usize {
        self.columns.close.len()
    }

    /// Whether there is no bar.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.columns.close.is_empty()
    }

    /// Closing prices.
    #[must_use]
    pub fn close(&self) -> &'a [f64] {
        self.columns.close
    }

    /// The values of a column, if the series has it.
    #[must_use]
    pub fn column(&self, column: Column) -> Option<&'a [f64]> {
        match column {
            Column::Open => self.columns.open,
            Column::High => self.columns.high,
            Column::Low => self.columns.low,
            Column::Close => Some(self.columns.close),
            Column::Volume => self.columns.volume,
        }
    }

    /// Bar `row`, `NaN` where the series lacks the column; `None` past the end.
    #[must_use]
    pub fn bar(&self, row: usize) -> Option<Bar> {
        let close = *self.columns.close.get(row)?;
        let value = |values: Option<&[f64]>| values.map_or(f64::NAN, |values| values[row]);
        Some(Bar {
            open: value(self.columns.open),
            high: value(self.columns.high),
            low: value(self.columns.low),
            close,
            volume: value(self.columns.volume),
        })
    }

    /// The first `rows` bars, or all when there are fewer.
    #[must_use]
    pub fn head(&self, rows: usize) -> Self {
        let rows = rows.min(self.len());
        let cut = |values: Option<&'a [f64]>| values.map(|values| &values[..rows]);
        let c = &self.columns;
        Self {
            columns: Columns {
                open: cut(c.open),
                high: cut(c.high),
                low: cut(c.low),
                close: &c.close[..rows],
                volume: cut(c.volume),
            },
        }
    }

    /// The first bar no indicator can be trusted on: a value that is not finite, a high below its
    /// low, a negative volume. `None` when every bar is sound.
    #[must_use]
    pub fn first_fault(&self) -> Option<RowFault> {
        let not_finite = Column::ALL.into_iter().filter_map(|column| {
            let row = self.column(column)?.iter().position(|value| !value.is_finite())?;
            Some(RowFault { row, kind: RowFaultKind::NotFinite(column) })
        });
        let crossed = self.columns.high.zip(self.columns.low).and_then(|(high, low)| {
            let row = high.iter().zip(low).position(|(high, low)| high < low)?;
            Some(RowFault { row, kind: RowFaultKind::HighBelowLow })
        });
        let negative = self.columns.volume.and_then(|volume| {
            let row = volume.iter().position(|&volume| volume < 0.0)?;
            Some(RowFault { row, kind: RowFaultKind::NegativeVolume })
        });
        not_finite.chain(crossed).chain(negative).min_by_key(|fault| fault.row)
    }
}

/// A bar that cannot be computed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowFault {
    /// Zero-based row of the bar.
    pub row: usize,
    /// What is wrong with it.
    pub kind: RowFaultKind,
}

/// What is wrong with a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowFaultKind {
    /// The value of this column is `NaN` or infinite.
    NotFinite(Column),
    /// The high is below the low.
    HighBelowLow,
    /// The volume is negative.
    NegativeVolume,
}

impl fmt::Display for RowFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.row;
        match self.kind {
            RowFaultKind::NotFinite(column) => write!(f, "row {row}: {} is not finite", column.name()),
            RowFaultKind::HighBelowLow => write!(f, "row {row}: high is below low"),
            RowFaultKind::NegativeVolume => write!(f, "row {row}: volume is negative"),
        }
    }
}

/// Slices of unequal lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapeError {
    /// Name of the slice that differs.
    pub slice: &'static str,
    /// Its length.
    pub found: usize,
    /// The length it should have.
    pub expected: usize,
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has {} values where {} are needed", self.slice, self.found, self.expected)
    }
}

impl std::error::Error for ShapeError {}

/// Fails unless the slice called `slice` is as long as expected.
pub(crate) fn same_length(slice: &'static str, found: usize, expected: usize) -> Result<(), ShapeError> {
    if found == expected { Ok(()) } else { Err(ShapeError { slice, found, expected }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_unequal_length_are_refused_by_name() {
        let columns = Columns { close: &[1.0, 2.0], low: Some(&[1.0]), ..Columns::default() };
        let error = Bars::new(columns).unwrap_err();
        assert_eq!(error.to_string(), "low has 1 values where 2 are needed");
    }

    #[test]
    fn the_earliest_fault_is_reported() {
        let ones = [1.0; 4];
        let low = [1.0, 1.0, 1.5, 1.0];
        let volume = [0.0, 0.0, 0.0, f64::NAN];
        let bars = Bars::ohlcv(&ones, &ones, &low, &ones, &volume).unwrap();
        assert_eq!(bars.first_fault().unwrap().to_string(), "row 2: high is below low");
        let volume = [0.0, -1.0, 0.0, 0.0];
        let bars = Bars::ohlcv(&ones, &ones, &low, &ones, &volume).unwrap();
        assert_eq!(bars.first_fault().unwrap(), RowFault { row: 1, kind: RowFaultKind::NegativeVolume });
        let open = [f64::INFINITY, 1.0, 1.0, 1.0];
        let bars = Bars::ohlcv(&open, &ones, &low, &ones, &volume).unwrap();
        assert_eq!(bars.first_fault().unwrap().to_string(), "row 0: open is not finite");
        assert_eq!(Bars::from_close(&ones).first_fault(), None);
    }

    #[test]
    fn a_bar_lacks_what_its_series_lacks() {
        let bars = Bars::from_close(&[1.0, 2.0]);
        let bar = bars.bar(1).unwrap();
        assert_eq!(bar.close, 2.0);
        assert!(bar.high.is_nan() && bar.volume.is_nan());
        assert_eq!(bars.bar(2), None);
        assert_eq!(bars.head(1).close(), [1.0]);
        assert_eq!(bars.head(9).len(), 2);
    }
}
