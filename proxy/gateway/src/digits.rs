//! Numbers and addresses as text, without the formatter: it costs more than the rest of a line.

use std::io::Write as _;
use std::net::IpAddr;

pub(crate) use sluice_policy::digits::push_number;

/// Appends an address as it is written.
pub(crate) fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (at, number) in address.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                push_number(out, u64::from(number));
            }
        }
        // Writing to memory does not fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn numbers_and_addresses_read_as_the_formatter_writes_them(
            number in prop_oneof![any::<u64>(), 0..1000_u64, Just(u64::MAX), Just(0)],
            address in any::<IpAddr>(),
        ) {
            let mut out = b"x".to_vec();
            push_number(&mut out, number);
            out.push(b' ');
            push_address(&mut out, address);
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("x{number} {address}"));
        }
    }
}
