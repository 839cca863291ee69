//! The only big-number arithmetic that an RSA key in OpenSSH's format needs.

use zeroize::Zeroizing;

/// Returns `number mod modulus`, both big-endian; `None` if the modulus is zero. It shifts and subtracts, so its time
/// depends on the number: it runs once, in a pod of its own, before any connection is made.
pub(super) fn remainder(number: &[u8], modulus: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let first = modulus.iter().position(|byte| *byte != 0)?;
    let modulus = modulus.get(first..)?;
    // One byte longer than the modulus, for the bit that is shifted out before the subtraction.
    let width = modulus.len() + 1;
    let mut wide_modulus = Zeroizing::new(vec![0]);
    wide_modulus.extend_from_slice(modulus);
    let mut rest = Zeroizing::new(vec![0; width]);
    for byte in number {
        for bit in (0..8).rev() {
            let mut carry = (byte >> bit) & 1;
            for digit in rest.iter_mut().rev() {
                let out = *digit >> 7;
                *digit = (*digit << 1) | carry;
                carry = out;
            }
            if rest.as_slice() >= wide_modulus.as_slice() {
                subtract(&mut rest, &wide_modulus);
            }
        }
    }
    Some(Zeroizing::new(rest.split_off(1)))
}

/// Computes `from -= other` for numbers of equal width with `from >= other`.
fn subtract(from: &mut [u8], other: &[u8]) {
    let mut borrow = 0i16;
    for (digit, less) in from.iter_mut().zip(other).rev() {
        let difference = i16::from(*digit) - i16::from(*less) - borrow;
        borrow = i16::from(difference < 0);
        *digit = difference.rem_euclid(256) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::remainder;

    #[test]
    fn remainders_agree_with_those_of_small_numbers() {
        for number in [0u64, 1, 254, 255, 256, 65_537, 123_456_789, u64::MAX] {
            for modulus in [1u64, 2, 3, 255, 256, 257, 65_535, 999_999_937, u64::MAX] {
                let bytes = remainder(&number.to_be_bytes(), &modulus.to_be_bytes()).unwrap();
                let value = bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
                assert_eq!(value, number % modulus, "{number} mod {modulus}");
            }
        }
        assert!(remainder(&[1], &[0, 0]).is_none());
    }
}
