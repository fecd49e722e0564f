//! Whether a signal may be acted on.

use super::Action;

/// A reason not to act on a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The series is shorter than the rule's indicators need.
    WarmUp,
    /// A close in the window or a figure is not a finite number.
    NotFinite,
    /// The close did not move over the whole window.
    FlatWindow,
    /// The last signal is more recent than the cool-down allows, or lies in the future.
    CoolDown,
    /// The same action was already signalled for the same bar.
    Duplicate,
}

impl Fault {
    const ALL: [Self; 5] = [Self::WarmUp, Self::NotFinite, Self::FlatWindow, Self::CoolDown, Self::Duplicate];

    /// The code on the wire.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::WarmUp => "warm_up",
            Self::NotFinite => "not_finite",
            Self::FlatWindow => "flat_window",
            Self::CoolDown => "cool_down",
            Self::Duplicate => "duplicate",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults(u8);

impl Faults {
    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `fault` is among them.
    #[must_use]
    pub const fn contains(self, fault: Fault) -> bool {
        self.0 & fault.bit() != 0
    }

    /// The faults, always in the same order.
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.into_iter().filter(move |fault| self.contains(*fault))
    }
}

impl Extend<Fault> for Faults {
    fn extend<T: IntoIterator<Item = Fault>>(&mut self, faults: T) {
        for fault in faults {
            self.0 |= fault.bit();
        }
    }
}

impl FromIterator<Fault> for Faults {
    fn from_iter<T: IntoIterator<Item = Fault>>(faults: T) -> Self {
        let mut set = Self::default();
        set.extend(faults);
        set
    }
}

/// Whether to believe a signal, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validation {
    /// No fault was found.
    pub ok: bool,
    /// What was found.
    pub faults: Faults,
}

impl Validation {
    pub(super) const fn of(faults: Faults) -> Self {
        Self { ok: faults.is_empty(), faults }
    }
}

/// The last BUY or SELL that was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Previous {
    /// What it said.
    pub action: Action,
    /// Time of its bar, Unix milliseconds.
    pub bar_time_ms: i64,
}

/// What speaks against giving out `action` now. A HOLD is never too early.
pub(super) fn timing_faults(action: Action, context: &super::Context) -> Option<Fault> {
    let previous = context.previous.filter(|previous| previous.action != Action::Hold)?;
    if action == Action::Hold {
        return None;
    }
    if previous.bar_time_ms == context.bar_time_ms && previous.action == action {
        return Some(Fault::Duplicate);
    }
    let elapsed_ms = i128::from(context.bar_time_ms) - i128::from(previous.bar_time_ms);
    (elapsed_ms < i128::from(context.cool_down_ms)).then_some(Fault::CoolDown)
}

#[cfg(test)]
mod tests {
    use super::super::Context;
    use super::*;

    fn timing(action: Action, previous: Action, apart_ms: i64, cool_down_ms: u64) -> Option<Fault> {
        let previous = Some(Previous { action: previous, bar_time_ms: 1_000 });
        timing_faults(action, &Context { bar_time_ms: 1_000 + apart_ms, previous, cool_down_ms })
    }

    #[test]
    fn the_same_action_on_the_same_bar_is_a_duplicate() {
        assert_eq!(timing(Action::Buy, Action::Buy, 0, 0), Some(Fault::Duplicate));
        assert_eq!(timing(Action::Buy, Action::Buy, 60, 0), None);
        assert_eq!(timing(Action::Hold, Action::Buy, 0, 0), None);
    }

    #[test]
    fn a_signal_waits_for_the_cool_down() {
        assert_eq!(timing(Action::Buy, Action::Sell, 59, 60), Some(Fault::CoolDown));
        assert_eq!(timing(Action::Buy, Action::Sell, 60, 60), None);
        assert_eq!(timing(Action::Buy, Action::Sell, -1, 0), Some(Fault::CoolDown));
        assert_eq!(timing(Action::Buy, Action::Hold, 0, 60), None);
        assert_eq!(timing(Action::Sell, Action::Buy, i64::MAX - 1_000, u64::MAX), Some(Fault::CoolDown));
    }

    #[test]
    fn faults_keep_their_order() {
        let faults = Faults::from_iter([Fault::Duplicate, Fault::WarmUp]);
        assert_eq!(faults.iter().map(Fault::code).collect::<Vec<_>>(), ["warm_up", "duplicate"]);
    }
}
