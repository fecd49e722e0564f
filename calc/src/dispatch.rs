//! For which processor this binary was compiled, and proof that it runs on one.
//!
//! `wide` chooses its instructions when it is compiled, not when it runs. So there are two binaries:
//! the baseline, and one for x86-64-v3. Whoever computes holds a [`Cpu`], which is made only where
//! every instruction compiled in is there.

use std::fmt;

/// Which instructions this binary may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// Those of every processor of the architecture.
    Baseline,
    /// Those of x86-64-v3: AVX2 and its companions.
    V3,
}

impl Build {
    /// The name in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::V3 => "v3",
        }
    }

    /// What this processor could run.
    #[must_use]
    pub fn best() -> Self {
        if V3.iter().all(|feature| (feature.found)()) { Self::V3 } else { Self::Baseline }
    }
}

/// What this binary was compiled for.
pub const BUILD: Build =
    if cfg!(all(target_feature = "avx2", target_feature = "fma", target_feature = "bmi2")) {
        Build::V3
    } else {
        Build::Baseline
    };

/// Proof that this processor has every instruction this binary may use.
#[derive(Clone, Copy, Debug)]
pub struct Cpu(());

impl Cpu {
    /// Looks at the processor; the error names the first instruction set it lacks.
    pub fn proven() -> Result<Self, MissingFeature> {
        let needed: &[Feature] = if BUILD == Build::V3 { &V3 } else { &[] };
        match needed.iter().find(|feature| !(feature.found)()) {
            Some(feature) => Err(MissingFeature { feature: feature.name }),
            None => Ok(Self(())),
        }
    }
}

/// An instruction set that this binary was compiled for and this processor lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingFeature {
    /// Its name.
    pub feature: &'static str,
}

impl fmt::Display for MissingFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this binary needs a processor with {}", self.feature)
    }
}

impl std::error::Error for MissingFeature {}

struct Feature {
    name: &'static str,
    found: fn() -> bool,
}

macro_rules! features {
    ($($name:tt)*) => {[$(Feature {
        name: $name,
        #[cfg(target_arch = "x86_64")]
        found: || std::arch::is_x86_feature_detected!($name),
        #[cfg(not(target_arch = "x86_64"))]
        found: || false,
    }),*]};
}

/// What x86-64-v3 adds to the baseline.
static V3: [Feature; 8] = features!("avx" "avx2" "bmi1" "bmi2" "f16c" "fma" "lzcnt" "movbe");

/// Asks for the cache line of a value before it is needed; a place outside the column costs nothing.
///
/// Rows side by side are more streams than a processor foresees by itself.
#[inline(always)]
#[allow(clippy::inline_always, reason = "one instruction")]
pub(crate) fn foresee(column: &[f64], at: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[allow(unsafe_code, reason = "an instruction that has no safe form")]
        // SAFETY: a prefetch reads nothing and faults nowhere, whatever the address; SSE is in the baseline.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(column.as_ptr().wrapping_add(at).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (column, at);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_runs_what_it_runs() {
        Cpu::proven().unwrap();
        assert!(BUILD == Build::Baseline || Build::best() == Build::V3);
    }
}
