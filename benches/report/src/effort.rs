//! How much to measure.

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Whether a look is enough.
    pub quick: bool,
}

impl Effort {
    /// A number of samples: all of them, or a tenth.
    pub fn of(self, samples: u32) -> u32 {
        if self.quick { (samples / 10).max(3) } else { samples }
    }
}
