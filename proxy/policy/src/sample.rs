//! Which lines of the access log are kept.
//!
//! Purpose: a busy edge may keep a share of the lines about requests that went well. Errors, refusals and
//! everything unusual are always kept.
//!
//! Exact rule: a line is kept when its status is none of 200 to 399, when the answer was cut short, or when
//! the hash of its request id falls into the share. The hash (FNV-1a, finished by SplitMix64's mixer) is the
//! same in every process and version, so all processes that see a request id agree about it. Its price: a
//! client that chooses its own ids can choose ids whose good requests are not kept.

/// Whether a line is kept. `share` is 0 (none) to 1 (all).
pub fn keeps(request_id: &str, status: u16, cut_short: bool, share: f64) -> bool {
    let went_well = (200..400).contains(&status) && !cut_short;
    !went_well || share >= 1.0 || place(request_id) < share
}

/// A place from 0 to 1 that depends on the id alone.
fn place(id: &str) -> f64 {
    let fnv = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_refusals_are_always_kept() {
        for status in [101, 199, 400, 401, 429, 499, 500, 503] {
            assert!(keeps("request-1", status, false, 0.0), "{status}");
        }
        assert!(keeps("request-1", 200, true, 0.0), "cut short");
        assert!(!keeps("request-1", 200, false, 0.0) && keeps("request-1", 304, false, 1.0));
    }

    #[test]
    fn the_share_is_kept_and_a_larger_share_keeps_the_same_lines_too() {
        let ids: Vec<String> = (0..20_000).map(|n| format!("018f3e5a-7c1e-7b5a-8c1e-{n:012x}")).collect();
        for share in [0.01, 0.1, 0.5, 0.9] {
            let kept = ids.iter().filter(|id| keeps(id, 200, false, share)).count() as f64;
            assert!((kept / 20_000.0 - share).abs() < 0.015, "{share}: {kept}");
        }
        assert!(ids.iter().all(|id| !keeps(id, 200, false, 0.1) || keeps(id, 200, false, 0.2)));
    }

    #[test]
    fn the_choice_never_changes() {
        assert_eq!((place("018f3e5a-7c1e-7b5a-8c1e-7b5a8c1e7b5a") * 1e6) as u64, PINNED);
    }

    /// Computed once; another value means that processes of two versions disagree.
    const PINNED: u64 = 831_598;
}
