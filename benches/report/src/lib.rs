//! What the programs that compare share: samples, the table of results, and what the system says.

pub mod conversation;
mod effort;
mod report;
mod samples;
pub mod system;

pub use conversation::Conversation;
pub use effort::Effort;
pub use report::{Report, Row, Target, Unit};
pub use samples::{Samples, timed};
