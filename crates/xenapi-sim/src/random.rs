//! A small generator of random numbers, so that a seed decides all of a pool's uuids and addresses.

use uuid::{Builder, Uuid};

/// A stream of numbers that a seed decides (the generator `SplitMix64`).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream of this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A seed that differs from one start to the next.
    pub(crate) fn fresh_seed() -> u64 {
        use std::hash::{BuildHasher, Hasher};
        std::collections::hash_map::RandomState::new().build_hasher().finish()
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to 1, without 1.
    pub(crate) fn unit(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are what a float has room for")]
        let share = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        share
    }

    /// A random uuid.
    pub(crate) fn uuid(&mut self) -> Uuid {
        let (high, low) = (u128::from(self.next()), u128::from(self.next()));
        Builder::from_random_bytes((high << 64 | low).to_be_bytes()).into_uuid()
    }
}

/// A number that `text` decides.
pub(crate) fn hash_text(text: &str) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    Random::new(hash).next()
}

/// The hardware address that a seed and a device number decide: unicast, locally administered.
pub(crate) fn mac_address(seed: &str, device: &str) -> String {
    let hash = hash_text(&format!("{seed}-{device}")).to_be_bytes();
    let first = hash[0] & 0xfc | 0x02;
    let rest: Vec<String> = hash[1..6].iter().map(|byte| format!(":{byte:02x}")).collect();
    format!("{first:02x}{}", rest.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_stream() {
        assert_eq!(Random::new(1).uuid(), Random::new(1).uuid());
        assert_ne!(Random::new(1).uuid(), Random::new(2).uuid());
        assert_eq!(mac_address("seed", "0"), mac_address("seed", "0"));
        assert_ne!(mac_address("seed", "0"), mac_address("seed", "1"));
    }
}
