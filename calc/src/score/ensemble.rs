//! How much weight each of several strategies gets. The rule is our own: the platform that asked
//! for it had only planned one.

/// Largest power of a score.
pub const POWER_MAX: f64 = 16.0;

/// A strategy among others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Member<'a> {
    /// Its score, 0 to 1.
    pub score: f64,
    /// Its returns, aligned with the others'; only the second rule looks at them.
    pub returns: &'a [f64],
}

/// How a weight follows from a score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weighting {
    /// In proportion to the score's power.
    Score {
        /// Power, 0 to [`POWER_MAX`]; 0 weighs all the same.
        power: f64,
    },
    /// In proportion to the score over one plus its positive correlations with the others.
    Correlation,
}

/// Writes weights that add up to 1, none above `max_weight` (at least `1 / members`); what is above is
/// shared by the others in proportion. Members without a score share alike when none has one.
/// `weights` is as long as `members`.
pub fn weights(members: &[Member<'_>], rule: Weighting, max_weight: f64, weights: &mut [f64]) {
    for (at, (weight, member)) in weights.iter_mut().zip(members).enumerate() {
        let score = member.score.clamp(0.0, 1.0);
        *weight = match rule {
            // Nothing to the power of nothing would be 1.
            Weighting::Score { .. } if score == 0.0 => 0.0,
            Weighting::Score { power } => score.powf(power),
            Weighting::Correlation => score / (1.0 + together(members, at)),
        };
    }
    if weights.iter().sum::<f64>() <= 0.0 {
        weights.fill(1.0);
    }
    cap(weights, max_weight.max(1.0 / members.len().max(1) as f64));
}

/// Sum of the positive correlations of one member with the others.
fn together(members: &[Member<'_>], at: usize) -> f64 {
    let own = members[at].returns;
    let others = members.iter().enumerate().filter(|(other, _)| *other != at);
    others.map(|(_, other)| correlation(own, other.returns).max(0.0)).sum()
}

/// Correlation of the common beginning, 0 where either does not vary.
fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let count = a.len().min(b.len());
    let mean = |values: &[f64]| values[..count].iter().sum::<f64>() / count as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut product, mut square_a, mut square_b) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean_a, b - mean_b);
        (product, square_a, square_b) = (product + a * b, square_a + a * a, square_b + b * b);
    }
    let scale = square_a.sqrt() * square_b.sqrt();
    let correlation = product / scale;
    if correlation.is_finite() { correlation.clamp(-1.0, 1.0) } else { 0.0 }
}

/// Scales to a sum of 1 with nothing above the cap: each round fixes at least one more member at it.
fn cap(weights: &mut [f64], max: f64) {
    let mut fixed = vec![false; weights.len()];
    for _ in 0..=weights.len() {
        let held = fixed.iter().filter(|fixed| **fixed).count() as f64 * max;
        let free: f64 =
            weights.iter().zip(&fixed).filter(|(_, fixed)| !**fixed).map(|(weight, _)| weight).sum();
        let left = (1.0 - held).max(0.0);
        let open = fixed.iter().filter(|fixed| !**fixed).count() as f64;
        let mut more = false;
        for (weight, fixed) in weights.iter_mut().zip(&mut fixed).filter(|(_, fixed)| !**fixed) {
            // Members without weight take what the capped ones cannot.
            *weight = if free > 0.0 { *weight / free * left } else { left / open };
            if *weight > max * (1.0 + 1e-12) {
                (*weight, *fixed, more) = (max, true, true);
            }
        }
        if !more {
            return;
        }
    }
}

/// How many equally weighted members are as spread out: one over the sum of squares.
#[must_use]
pub fn effective(weights: &[f64]) -> f64 {
    1.0 / weights.iter().map(|weight| weight * weight).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(scores: &[f64], rule: Weighting, max: f64) -> Vec<f64> {
        let members: Vec<_> = scores.iter().map(|&score| Member { score, returns: &[] }).collect();
        let mut out = vec![0.0; scores.len()];
        weights(&members, rule, max, &mut out);
        out
    }

    #[test]
    fn weights_follow_scores_up_to_the_cap() {
        let plain = Weighting::Score { power: 1.0 };
        assert_eq!(of(&[0.5, 0.25, 0.25], plain, 1.0), [0.5, 0.25, 0.25]);
        assert_eq!(of(&[0.8, 0.1, 0.1], plain, 0.4), [0.4, 0.3, 0.3]);
        assert_eq!(of(&[0.0, 0.0], plain, 0.6), [0.5, 0.5]);
        assert_eq!(of(&[0.9, 0.0, 0.0], plain, 0.4), [0.4, 0.3, 0.3]);
        assert_eq!(of(&[0.9, 0.2], plain, 0.1), [0.5, 0.5]);
        assert!(effective(&[0.5, 0.5]) == 2.0);
    }

    #[test]
    fn twins_share_what_a_loner_keeps() {
        let (a, b) = ([0.1, -0.1, 0.2, 0.0], [0.1, 0.2, -0.1, 0.1]);
        let members = [&a[..], &a[..], &b[..]].map(|returns| Member { score: 0.6, returns });
        let mut out = [0.0; 3];
        weights(&members, Weighting::Correlation, 1.0, &mut out);
        assert!((out[0] - 0.25).abs() < 1e-12 && (out[2] - 0.5).abs() < 1e-12, "{out:?}");
    }
}
