//! The rivals that are written in C, called from their shared libraries with our buffers.

#![allow(unsafe_code, reason = "functions of C libraries; each call says why it may")]

use std::path::Path;

use anyhow::{Context as _, ensure};
use libloading::{Library, Symbol};

use super::table::{Columns, TaLib, Tulip};

/// TA-Lib of the Python wheel: `libta-lib`.
pub(super) struct TaLibC(Library);

/// Tulip Indicators, compiled of its one file.
pub(super) struct TulipC(Library);

type Begin = *mut i32;
type In = *const f64;
type Out = *mut f64;
type Closes = unsafe extern "C" fn(i32, i32, In, i32, Begin, Begin, Out) -> i32;
type Scaled = unsafe extern "C" fn(i32, i32, In, i32, f64, Begin, Begin, Out) -> i32;
type Bars = unsafe extern "C" fn(i32, i32, In, In, In, i32, Begin, Begin, Out) -> i32;
type Macd = unsafe extern "C" fn(i32, i32, In, i32, i32, i32, Begin, Begin, Out, Out, Out) -> i32;
type Bands = unsafe extern "C" fn(i32, i32, In, i32, f64, f64, i32, Begin, Begin, Out, Out, Out) -> i32;
type Stoch =
    unsafe extern "C" fn(i32, i32, In, In, In, i32, i32, i32, i32, i32, Begin, Begin, Out, Out) -> i32;
type Volume = unsafe extern "C" fn(i32, i32, In, In, Begin, Begin, Out) -> i32;
type Flow = unsafe extern "C" fn(i32, i32, In, In, In, In, i32, Begin, Begin, Out) -> i32;
type TulipFn = unsafe extern "C" fn(i32, *const In, In, *const Out) -> i32;

impl TaLibC {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        // SAFETY: initialisers of this library set up its own tables alone.
        let library = unsafe { Library::new(path) }.with_context(|| format!("open {}", path.display()))?;
        {
            // SAFETY: `TA_RetCode TA_Initialize(void)` in ta_common.h.
            let initialize: Symbol<'_, unsafe extern "C" fn() -> i32> =
                unsafe { library.get(b"TA_Initialize")? };
            // SAFETY: called once, before any other function and from one thread.
            ensure!(unsafe { initialize() } == 0, "TA_Initialize failed");
        }
        Ok(Self(library))
    }

    /// Computes into `outs`, each as long as the columns; where the values begin, and how many there are.
    pub(super) fn compute(
        &self,
        call: &TaLib,
        columns: &Columns,
        outs: &mut [Vec<f64>],
    ) -> anyhow::Result<(usize, usize)> {
        let [_, high, low, close, volume] = columns;
        let rows = close.len();
        ensure!(
            columns.iter().chain(outs.iter()).all(|column| column.len() == rows),
            "columns of other lengths"
        );
        let last = i32::try_from(rows)? - 1;
        let [first, second, third, ..] = outs else { anyhow::bail!("three outputs") };
        let (first, second, third) = (first.as_mut_ptr(), second.as_mut_ptr(), third.as_mut_ptr());
        let [high, low, close, volume] = [high, low, close, volume].map(Vec::as_ptr);
        let (mut begin, mut count) = (0, 0);
        let (b, n) = (&raw mut begin, &raw mut count);
        // SAFETY: the types are those of ta_func.h; inputs have the rows that are asked for, outputs as many, and
        // TA-Lib writes no more than `endIdx - startIdx + 1` values.
        let code = unsafe {
            match *call {
                TaLib::Closes(name, period) => self.get::<Closes>(name)?(0, last, close, period, b, n, first),
                TaLib::Scaled(name, period, by) => {
                    self.get::<Scaled>(name)?(0, last, close, period, by, b, n, first)
                }
                TaLib::Bars(name, period) => {
                    self.get::<Bars>(name)?(0, last, high, low, close, period, b, n, first)
                }
                TaLib::Macd(fast, slow, signal) => self.get::<Macd>("TA_MACD")?(
                    0, last, close, fast, slow, signal, b, n, first, second, third,
                ),
                TaLib::Bands(period, by) => self.get::<Bands>("TA_BBANDS")?(
                    0, last, close, period, by, by, 0, b, n, first, second, third,
                ),
                TaLib::Stochastic(k, slow_k, slow_d) => self.get::<Stoch>("TA_STOCH")?(
                    0, last, high, low, close, k, slow_k, 0, slow_d, 0, b, n, first, second,
                ),
                TaLib::Volume(name) => self.get::<Volume>(name)?(0, last, close, volume, b, n, first),
                TaLib::Flow(name, period) => {
                    self.get::<Flow>(name)?(0, last, high, low, close, volume, period, b, n, first)
                }
            }
        };
        ensure!(code == 0, "TA-Lib answers {code}");
        Ok((usize::try_from(begin)?, usize::try_from(count)?))
    }

    /// A function of the library.
    ///
    /// # Safety
    /// `F` is its type.
    unsafe fn get<F: Copy>(&self, name: &str) -> anyhow::Result<F> {
        // SAFETY: as the caller promises; the copy is not used after the library is closed.
        Ok(*unsafe { self.0.get::<F>(name.as_bytes()) }?)
    }
}

impl TulipC {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        // SAFETY: the library has no initialisers.
        Ok(Self(unsafe { Library::new(path) }.with_context(|| format!("open {}", path.display()))?))
    }

    /// Computes into `outs`, each as long as the columns.
    pub(super) fn compute(
        &self,
        call: &Tulip,
        columns: &Columns,
        outs: &mut [Vec<f64>],
    ) -> anyhow::Result<()> {
        let rows = columns[0].len();
        ensure!(
            columns.iter().chain(outs.iter()).all(|column| column.len() == rows),
            "columns of other lengths"
        );
        ensure!(call.outputs <= outs.len(), "too few outputs");
        let inputs: Vec<In> = call.columns.iter().map(|&column| columns[column].as_ptr()).collect();
        let outputs: Vec<Out> = outs.iter_mut().map(Vec::as_mut_ptr).collect();
        // SAFETY: the type is that of indicators.h for every indicator.
        let function: Symbol<'_, TulipFn> = unsafe { self.0.get(call.name.as_bytes())? };
        // SAFETY: as many inputs, options and outputs as the header says; inputs have the rows, outputs as many.
        let code = unsafe {
            function(i32::try_from(rows)?, inputs.as_ptr(), call.options.as_ptr(), outputs.as_ptr())
        };
        ensure!(code == 0, "Tulip answers {code}");
        Ok(())
    }
}
