//! How good a strategy is, how much weight it gets beside others, and when it is replaced.

mod ensemble;
mod rotation;
mod strategy;

pub use ensemble::{Member, POWER_MAX, Weighting, effective, weights};
pub use rotation::{Candidate, Change, Policy, Rotation, Why, rotate};
pub use strategy::{Parts, confidence, normalised, score};
