//! One bar of a stored series.

use sluice_calc::Bar;

/// Bytes of a candle in files: the time and five numbers, little-endian.
pub(crate) const CANDLE_BYTES: usize = 48;

/// A bar and when it began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candle {
    /// Begin of the bar, milliseconds since 1970.
    pub(crate) time_ms: i64,
    pub(crate) open: f64,
    pub(crate) high: f64,
    pub(crate) low: f64,
    pub(crate) close: f64,
    pub(crate) volume: f64,
}

impl Candle {
    /// Its five numbers in the order of the columns.
    pub(crate) const fn numbers(&self) -> [f64; 5] {
        [self.open, self.high, self.low, self.close, self.volume]
    }

    pub(crate) const fn of(time_ms: i64, [open, high, low, close, volume]: [f64; 5]) -> Self {
        Self { time_ms, open, high, low, close, volume }
    }

    /// What indicators take.
    pub(crate) const fn bar(&self) -> Bar {
        Bar { open: self.open, high: self.high, low: self.low, close: self.close, volume: self.volume }
    }

    pub(crate) fn encode(&self) -> [u8; CANDLE_BYTES] {
        let mut bytes = [0; CANDLE_BYTES];
        let (eights, _) = bytes.as_chunks_mut::<8>();
        eights[0] = self.time_ms.to_le_bytes();
        for (place, number) in eights[1..].iter_mut().zip(self.numbers()) {
            *place = number.to_le_bytes();
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; CANDLE_BYTES]) -> Self {
        let (eights, _) = bytes.as_chunks::<8>();
        let number = |at: usize| f64::from_le_bytes(eights[at]);
        Self::of(i64::from_le_bytes(eights[0]), [1, 2, 3, 4, 5].map(number))
    }
}
