//! Stored bytes to logical values, in place: byte order and sign.

/// Swaps the byte order of values of `width` bytes.
pub(crate) fn swap(bytes: &mut [u8], width: usize) {
    if width > 1 {
        bytes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    }
}

/// Flips the sign of floating point values of `width` bytes (little-endian): of every one, or of every second one (the
/// imaginary parts of complex numbers).
pub(crate) fn negate_floats(bytes: &mut [u8], width: usize, imaginary_only: bool) {
    let skip = usize::from(imaginary_only);
    for value in bytes.chunks_exact_mut(width).skip(skip).step_by(1 + skip) {
        value[width - 1] ^= 0x80;
    }
}

/// Negates little-endian integers of `width` bytes, wrapping.
pub(crate) fn negate_integers(bytes: &mut [u8], width: usize) {
    for value in bytes.chunks_exact_mut(width) {
        let mut carry = true;
        for byte in value {
            (*byte, carry) = (!*byte).overflowing_add(carry.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_swapped_and_negated_in_place() {
        let mut bytes = [1, 2, 3, 4];
        swap(&mut bytes, 2);
        assert_eq!(bytes, [2, 1, 4, 3]);
        let mut complex = [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat();
        negate_floats(&mut complex, 4, true);
        assert_eq!(complex, [1f32.to_le_bytes(), (-2f32).to_le_bytes()].concat());
        let mut integers = 5i16.to_le_bytes();
        negate_integers(&mut integers, 2);
        assert_eq!(i16::from_le_bytes(integers), -5);
    }
}
