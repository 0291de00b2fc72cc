//! Numbers that a seed decides, for the simulations: the same seed, the same numbers on every machine.

/// splitmix64 (Steele, Lea and Flood 2014), from this seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// From 0 to below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    pub(crate) fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    /// An index below `limit`.
    pub(crate) fn pick(&mut self, limit: usize) -> usize {
        self.below(limit as u64) as usize
    }
}
