//! A shuffle that takes no memory.
//!
//! A Feistel network over the next power of four above the length is a permutation whatever its round function; numbers
//! that fall outside are sent through again until they fall inside ("cycle walking"), which keeps it one. Source: Black
//! and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002, methods 2 and 3. The round function is the
//! finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). Not cryptography: it must mix well, not resist.

/// Rounds of the network. Four make a pseudorandom permutation of good round functions (Luby and Rackoff); two more cost
/// nothing that shows.
const ROUNDS: u64 = 6;

/// A keyed permutation of `0..len`: the order of an epoch as a function of seed, epoch and position.
///
/// ```
/// use pt_loader::Permutation;
/// let order = Permutation::new(10, 42, 0);
/// let mut seen: Vec<usize> = (0..10).map(|position| order.at(position)).collect();
/// seen.sort();
/// assert_eq!(seen, (0..10).collect::<Vec<_>>());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    len: u64,
    half_bits: u32,
    key: u64,
}

impl Permutation {
    /// Makes the permutation of `0..len` for a seed and an epoch.
    pub fn new(len: usize, seed: u64, epoch: u64) -> Self {
        let bits = u64::BITS - (len as u64).saturating_sub(1).leading_zeros();
        let key = mix(seed ^ mix(epoch.wrapping_add(0x9E37_79B9_7F4A_7C15)));
        Self { len: len as u64, half_bits: bits.div_ceil(2).max(1), key }
    }

    /// Returns which number stands at a position.
    ///
    /// # Panics
    /// When `position` is not below the length.
    pub fn at(&self, position: usize) -> usize {
        assert!((position as u64) < self.len, "position {position} of a permutation of {}", self.len);
        let mut number = position as u64;
        loop {
            number = self.network(number);
            // The domain is less than four times the length, so this ends soon.
            if number < self.len {
                return number as usize;
            }
        }
    }

    fn network(&self, number: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (number >> self.half_bits, number & mask);
        for round in 0..ROUNDS {
            let mixed = mix(right ^ self.key.wrapping_add(round.wrapping_mul(0xD6E8_FEB8_6659_FD93)));
            (left, right) = (right, left ^ (mixed & mask));
        }
        left << self.half_bits | right
    }
}

/// SplitMix64's finalizer.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_permuted() {
        for len in (0..70).chain([255, 256, 257, 1000, 4096, 4097]) {
            let order = Permutation::new(len, 7, 3);
            let mut seen = vec![false; len];
            for position in 0..len {
                assert!(!std::mem::replace(&mut seen[order.at(position)], true), "len {len}");
            }
        }
    }

    #[test]
    fn seeds_and_epochs_give_other_orders() {
        let order = |seed, epoch| -> Vec<usize> {
            let permutation = Permutation::new(100, seed, epoch);
            (0..100).map(|position| permutation.at(position)).collect()
        };
        assert_eq!(order(1, 0), order(1, 0));
        assert_ne!(order(1, 0), order(2, 0));
        assert_ne!(order(1, 0), order(1, 1));
        // Neighbours are torn apart: on average as far as random places are, a third of the length.
        let order = order(1, 0);
        let distance: usize = order.windows(2).map(|pair| pair[0].abs_diff(pair[1])).sum();
        assert!((25..42).contains(&(distance / 99)), "mean distance {}", distance / 99);
    }

    #[test]
    fn each_position_takes_every_value() {
        // Over many seeds the first position is uniform: chi-squared over 16 values, 99.9 % quantile 37.7.
        let mut counts = [0f64; 16];
        for seed in 0..16_000 {
            counts[Permutation::new(16, seed, 0).at(0)] += 1.0;
        }
        let chi_squared: f64 = counts.iter().map(|count| (count - 1000.0) * (count - 1000.0) / 1000.0).sum();
        assert!(chi_squared < 37.7, "chi-squared {chi_squared}");
    }
}
