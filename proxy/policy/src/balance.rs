//! Which instance of a service takes the next request.
//!
//! Purpose: a stable table of instances whose state outlives a configuration change, and the choice
//! among them. [`Table`] and [`Instance`] are shared and hold atomics. A [`Field`] is what can be picked
//! at one moment, with effective weights: it is made anew when something changes, so that a pick looks at
//! candidates alone and allocates nothing. [`Memory`] is what two of the algorithms remember.
//!
//! Who is a candidate, exactly: an instance that no operator holds back, whose probes say healthy and that
//! is not ejected. While fewer than `panic_threshold` of the instances that nobody holds back are such, all of
//! these are used, by their plain weights: sending to a suspect beats overloading the few, and probes that fail
//! for a reason of their own (a wrong path) must not take a service down. With threshold 0 there is no panic;
//! with nothing available there is then nothing to pick. One in maintenance is never picked.
//!
//! What changes a weight, in a calm field: slow start (an instance that becomes available begins with a tenth
//! of its weight, the rest follows evenly over `slow_start`; not at the process's start, when all are new), and
//! the zone (`zone.rs` in here says how much stays near).
//!
//! Instances already tried for this request are avoided while another one can be picked, one of another zone
//! included.
//!
//! | `balance` | picks | cost |
//! |---|---|---|
//! | `round_robin` | smooth weighted round robin: in every run of sum-of-weights picks each comes up `weight` times, as evenly spaced as the weights allow | O(n), one lock |
//! | `weighted` | at random by weight | O(1) |
//! | `least_connections` | least `(in flight + 1) / weight`, ties by chance; streams count while they last | O(n) |
//! | `peak_ewma` | of two drawn by weight the cheaper by latency × `(in flight + 1) / weight` | O(1) |
//! | `hash` | highest random weight of the request's key (rendezvous); no memory, so keys are back as their instance takes up its weight again | O(n) |
//! | `sticky` | the instance its key is bound to, at first that of `hash`; the binding outlives changes of weight, new instances and draining, and moves for good when its instance cannot be picked | O(n), one lock |
//!
//! Cold start: a new instance counts as healthy until its probes say otherwise and starts with no credit, so it
//! gets no burst. n is the number of candidates, at most 1,000.

mod ewma;
mod field;
mod instance;
mod least;
mod rendezvous;
mod round_robin;
mod sticky;
mod table;
mod weighted;
mod zone;

use std::sync::Mutex;

pub use ewma::FAILURE_COST;
pub use field::{Field, SLOW_START_LEAST};
pub use instance::{Flight, Hold, Instance, InstanceState};
pub use rendezvous::Affinity;
pub use sticky::{BINDING_IDLE, BINDINGS_MAX};
pub use table::Table;

/// What is asked for one try of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// Chance.
    pub seed: u64,
    /// What it is placed by, see [`Affinity::key`]; read by `hash` and `sticky` alone.
    pub key: u64,
    /// Ids of the instances tried already.
    pub tried: &'a [u32],
}

/// What `round_robin` and `sticky` remember of one service.
#[derive(Debug, Default)]
pub struct Memory {
    credits: round_robin::Credits,
    bindings: sticky::Bindings,
}

/// [`Memory`] as threads share it.
pub type SharedMemory = Mutex<Memory>;

#[cfg(test)]
mod tests;
