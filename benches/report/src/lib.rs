//! What the programs that compare share: samples, the table of results, and what the system says.

mod effort;
mod report;
mod samples;
pub mod system;

pub use effort::Effort;
pub use report::{Report, Row, Target, Unit};
pub use samples::{Samples, timed};
