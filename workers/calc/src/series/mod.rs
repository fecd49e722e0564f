//! Stored series: candles kept by symbol and timeframe.
//!
//! Knows: files, the journal, what becomes of candles that arrive, who reads them. Must not know: HTTP, but in `api`;
//! what an indicator is, but in `live`.
//!
//! A change goes: [`Store`] → the writer's queue → [`append::plan`] → journal, synced → columns → [`View`] → answer.
//! A file has its rows as of the last checkpoint, the journal what came since; [`recover`] puts them together.

mod api;
pub(crate) mod append;
mod candle;
mod fault;
mod file;
pub(crate) mod gaps;
mod head;
pub(crate) mod incoming;
mod journal;
mod key;
pub(crate) mod live;
mod mapping;
mod medium;
pub(crate) mod query;
mod recover;
pub(crate) mod rows;
pub(crate) mod source;
pub(crate) mod space;
mod store;
mod stream;
mod tail;
#[cfg(test)]
mod tests;
mod view;
mod writer;

pub(crate) use api::routes;
pub(crate) use append::{Append, Applied};
pub(crate) use candle::Candle;
pub(crate) use fault::Fault;
pub use fault::OpenError;
pub(crate) use key::SeriesKey;
pub use medium::{Disk, Medium};
pub(crate) use store::{Counts, Limits, Store};
pub(crate) use view::View;
