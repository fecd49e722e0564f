//! Shares of a secret: any `threshold` of them give it back, fewer say nothing about it.
//!
//! Shamir's scheme over GF(2^8) with the polynomial of AES (x^8 + x^4 + x^3 + x + 1), one random polynomial a
//! byte. A share is what Vault and OpenBao hand out: the 32 values, then the place they were taken at. The
//! arithmetic has neither tables nor branches that depend on a secret; places are not secret.
//!
//! Rejected: the crates for it (`sharks` is unmaintained and biased, RUSTSEC-2024-0398; `vsss-rs` before 6 was
//! biased in this field).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::envelope::KEY_BYTES;

/// Bytes of a share: the values and the place.
const SHARE_BYTES: usize = KEY_BYTES + 1;
/// LIMIT: shares of one secret; there are 255 places but zero.
pub(crate) const SHARES_MAX: u8 = 255;

/// A secret that is shared.
pub(crate) type Secret = Zeroizing<[u8; KEY_BYTES]>;

/// One share. No Debug: enough of them are the secret.
#[derive(Clone)]
pub(crate) struct Share(Zeroizing<[u8; SHARE_BYTES]>);

/// How many shares there are and how many it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Split {
    shares: u8,
    threshold: u8,
}

/// Not a number of shares with a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("shares are 1 to {SHARES_MAX}, the threshold 2 to the number of shares (1 where there is one share)")]
pub(crate) struct SplitError;

impl Split {
    /// Checks the two numbers.
    pub(crate) fn new(shares: u64, threshold: u64) -> Result<Self, SplitError> {
        let lowest = if shares == 1 { 1 } else { 2 };
        if shares > u64::from(SHARES_MAX) || !(lowest..=shares).contains(&threshold) {
            return Err(SplitError);
        }
        Ok(Self { shares: shares as u8, threshold: threshold as u8 })
    }

    /// How many there are.
    pub(crate) const fn shares(self) -> u8 {
        self.shares
    }

    /// How many it takes.
    pub(crate) const fn threshold(self) -> u8 {
        self.threshold
    }

    /// Splits a secret. `random` fills what it is given with uniform bytes.
    pub(crate) fn divide(self, secret: &Secret, mut random: impl FnMut(&mut [u8])) -> Vec<Share> {
        let mut shares: Vec<Share> = (1..=self.shares).map(Share::at).collect();
        // Coefficients of one byte's polynomial, the highest first; the secret byte is the last.
        let mut polynomial = Zeroizing::new(vec![0; usize::from(self.threshold)]);
        for (index, byte) in secret.iter().enumerate() {
            let last = polynomial.len() - 1;
            random(&mut polynomial[..last]);
            polynomial[last] = *byte;
            for share in &mut shares {
                let x = share.place();
                share.0[index] = polynomial.iter().fold(0, |y, term| multiply(y, x) ^ term);
            }
        }
        shares
    }
}

impl Share {
    fn at(place: u8) -> Self {
        let mut bytes = [0; SHARE_BYTES];
        bytes[KEY_BYTES] = place;
        Self(Zeroizing::new(bytes))
    }

    fn place(&self) -> u8 {
        self.0[KEY_BYTES]
    }

    /// Whether both were taken at one place: then they are one share, or one of them is damaged.
    pub(crate) fn is_at_place_of(&self, other: &Self) -> bool {
        self.place() == other.place()
    }

    /// Reads a share in hexadecimal (66 digits) or base64 (44 characters); `None`: it is neither.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; SHARE_BYTES]);
        match text.len() {
            66 => decode_hex(text.as_bytes(), &mut *bytes)?,
            44 => (STANDARD.decode_slice(text, &mut *bytes).ok()? == SHARE_BYTES).then_some(())?,
            _ => return None,
        }
        (bytes[KEY_BYTES] != 0).then_some(Self(bytes))
    }

    /// The share as 66 hexadecimal digits.
    pub(crate) fn to_hex(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(2 * SHARE_BYTES));
        for byte in self.0.iter() {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
            }
        }
        text
    }

    /// The share in base64.
    pub(crate) fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(*self.0))
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Share(…)")
    }
}

/// What shares of different places give together. Too few, or one that is damaged, give another secret: only
/// its use shows that.
pub(crate) fn unite(shares: &[Share]) -> Secret {
    let mut secret = Secret::default();
    for share in shares {
        // Lagrange's weight of this place, at zero.
        let mut weight = 1;
        for other in shares.iter().filter(|other| !other.is_at_place_of(share)) {
            let quotient = multiply(other.place(), inverse(other.place() ^ share.place()));
            weight = multiply(weight, quotient);
        }
        for (byte, value) in secret.iter_mut().zip(share.0.iter()) {
            *byte ^= multiply(*value, weight);
        }
    }
    secret
}

/// The product in GF(2^8), in constant time.
const fn multiply(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut product, mut bit) = (a, b, 0_u8, 0);
    while bit < 8 {
        product ^= a & 0_u8.wrapping_sub(b & 1);
        let overflow = 0_u8.wrapping_sub(a >> 7);
        a = (a << 1) ^ (0x1b & overflow);
        b >>= 1;
        bit += 1;
    }
    product
}

/// The inverse in GF(2^8), a^254; zero's is zero.
const fn inverse(a: u8) -> u8 {
    let (mut power, mut result, mut step) = (a, 1, 0);
    // 254 = 0b1111_1110: every power of two but the lowest.
    while step < 7 {
        power = multiply(power, power);
        result = multiply(result, power);
        step += 1;
    }
    result
}

#[allow(dead_code, reason = "for the API of the seal")]
fn decode_hex(digits: &[u8], bytes: &mut [u8]) -> Option<()> {
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let nibble = |digit: u8| char::from(digit).to_digit(16);
        *byte = (nibble(pair[0])? * 16 + nibble(pair[1])?) as u8;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::envelope;
    use proptest::prelude::*;

    fn fill(bytes: &mut [u8]) {
        for byte in bytes {
            *byte = envelope::random::<1>()[0];
        }
    }

    #[test]
    fn field_is_the_one_of_aes() {
        assert_eq!(multiply(0x57, 0x83), 0xc1, "the example of FIPS 197, 4.2");
        for a in 1..=255 {
            assert_eq!(multiply(a, inverse(a)), 1, "{a}");
        }
        assert_eq!(inverse(0), 0);
    }

    #[test]
    fn shares_of_another_implementation_unite() {
        // The line 0x2a·x + s of every byte, by hand: s = 0x10; 0x2a·2 = 0x54, 0x2a·5 = 0x82.
        let share = |place: u8, y: u8| {
            let mut bytes = [y; SHARE_BYTES];
            bytes[KEY_BYTES] = place;
            Share(Zeroizing::new(bytes))
        };
        assert_eq!(*unite(&[share(2, 0x10 ^ 0x54), share(5, 0x10 ^ 0x82)]), [0x10; KEY_BYTES]);
    }

    #[test]
    fn numbers_of_shares_are_checked() {
        for (shares, threshold) in [(1, 1), (2, 2), (5, 3), (255, 255)] {
            assert!(Split::new(shares, threshold).is_ok());
        }
        for (shares, threshold) in [(0, 0), (1, 0), (2, 1), (3, 4), (256, 3), (u64::MAX, 2), (5, 0), (0, 1)] {
            assert!(Split::new(shares, threshold).is_err(), "{shares} and {threshold}");
        }
    }

    #[test]
    fn fewer_shares_than_the_threshold_say_nothing() {
        // What two shares of a 3-of-n split show of a byte is the same whatever the byte is: over many splits
        // each of the 256 values comes equally often (χ² with 255 degrees of freedom is below 350 but for one
        // run in 30,000).
        for secret in [0x00, 0xff] {
            let secret = Zeroizing::new([secret; KEY_BYTES]);
            let mut seen = [[0_u32; 256]; 3];
            let rounds = 1_024;
            for _ in 0..rounds {
                let shares = Split::new(3, 3).unwrap().divide(&secret, fill);
                let guess = unite(&shares[..2]);
                for index in 0..KEY_BYTES {
                    seen[0][usize::from(shares[0].0[index])] += 1;
                    seen[1][usize::from(shares[0].0[index] ^ shares[1].0[index])] += 1;
                    seen[2][usize::from(guess[index])] += 1;
                }
            }
            let expected = f64::from(rounds * KEY_BYTES as u32) / 256.0;
            for counts in seen {
                let chi: f64 =
                    counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
                assert!(chi < 350.0, "χ² = {chi}");
            }
        }
    }

    #[test]
    fn text_that_is_no_share_is_refused() {
        let share = &Split::new(2, 2).unwrap().divide(&Secret::default(), fill)[1];
        for text in [share.to_hex(), share.to_base64()] {
            assert_eq!(*Share::parse(&text).unwrap().0, *share.0);
            assert!(Share::parse(&text[1..]).is_none());
            assert!(Share::parse(&format!("!{}", &text[1..])).is_none());
        }
        assert!(Share::parse(&"00".repeat(SHARE_BYTES)).is_none(), "nothing was taken at zero");
        assert!(Share::parse("").is_none() && Share::parse(&"ü".repeat(33)).is_none());
        assert_eq!(format!("{share:?}"), "Share(…)");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_threshold_of_the_shares_give_the_secret(
            secret in any::<[u8; KEY_BYTES]>(),
            shares in 2_u64..12,
            threshold in 2_u64..12,
            order in any::<u64>(),
        ) {
            prop_assume!(threshold <= shares);
            let secret = Zeroizing::new(secret);
            let mut given = Split::new(shares, threshold).unwrap().divide(&secret, fill);
            // Any of them, in any order.
            given.sort_by_key(|share| u64::from(share.place()).wrapping_mul(order | 1) % 257);
            given.truncate(threshold as usize);
            prop_assert_eq!(*unite(&given), *secret);
            let last = given.len() - 1;
            prop_assert_ne!(*unite(&given[..last]), *secret);
            let mut damaged = given.clone();
            damaged[0].0[usize::from(order as u8 % 32)] ^= 1;
            prop_assert_ne!(*unite(&damaged), *secret);
        }
    }
}
