//! What the catalogue says of an indicator, and how one is made of its parameters.

mod args;

pub(crate) use args::Args;
pub use args::{CatalogError, Param, Range, Value};

use crate::indicator::Kernel;
use crate::series::Column;
use std::sync::Arc;

/// What the catalogue says of an indicator.
#[derive(Debug)]
pub struct Entry {
    /// Name on the wire.
    pub name: &'static str,
    /// Other names under which it is found.
    pub aliases: &'static [&'static str],
    /// One line for people.
    pub summary: &'static str,
    /// Columns it reads.
    pub columns: &'static [Column],
    /// Parameters it takes.
    pub params: &'static [Param],
    /// Names of its outputs, in order.
    pub outputs: &'static [&'static str],
    pub(crate) build: Build,
}

/// Makes the kernel of checked parameters.
pub(crate) type Build = fn(&Args<'_>) -> Result<Arc<dyn Kernel>, CatalogError>;

/// The columns of an indicator of closing prices.
pub(crate) const CLOSE: &[Column] = &[Column::Close];

/// The columns of an indicator of ranges.
pub(crate) const HIGH_LOW_CLOSE: &[Column] = &[Column::High, Column::Low, Column::Close];

/// The output of an indicator that has one.
pub(crate) const SINGLE: &[&str] = &["value"];
