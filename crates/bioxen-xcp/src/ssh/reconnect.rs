//! When to try again after a connection was lost or could not be made.
//!
//! Nothing here waits or connects: callers report what happened and are told what to do next.
//!
//! ```text
//! Connected ──lost──▶ Waiting(first delay) ──failed──▶ Waiting(twice as long) ─ ⋯ ──too long──▶ GivenUp
//!     ▲                    └───connected────────────────────┘                                      ▲
//!     └────────────────────────────┘                     └───a failure that will not pass──────────┘
//! ```

use std::time::Duration;

use super::SshError;

/// How patiently to reconnect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReconnectPolicy {
    /// The wait before the first attempt.
    pub first_delay: Duration,
    /// The longest wait between two attempts.
    pub longest_delay: Duration,
    /// How long after the loss to give up.
    pub give_up_after: Duration,
}

impl Default for ReconnectPolicy {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(200),
            longest_delay: Duration::from_secs(10),
            give_up_after: Duration::from_mins(3),
        }
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait this long, then try.
    TryAfter(Duration),
    /// Try no more.
    GiveUp,
}

/// Where reconnecting stands.
#[derive(Clone, Debug)]
pub struct Reconnect {
    policy: ReconnectPolicy,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connected,
    Waiting { lost_at: Duration, delay: Duration },
    GivenUp,
}

impl Reconnect {
    /// For a connection that stands.
    pub fn new(policy: ReconnectPolicy) -> Self {
        Self { policy, state: State::Connected }
    }

    /// The connection was lost. Times are counted from any one instant.
    pub fn lost(&mut self, now: Duration) -> Next {
        match self.state {
            State::Connected => {
                let delay = self.policy.first_delay.min(self.policy.longest_delay);
                self.wait(now, now, delay)
            }
            State::Waiting { lost_at, delay } => self.wait(now, lost_at, delay),
            State::GivenUp => Next::GiveUp,
        }
    }

    /// An attempt has failed.
    pub fn failed(&mut self, now: Duration, error: &SshError) -> Next {
        match self.state {
            State::Connected => {
                self.lost(now);
                self.failed(now, error)
            }
            State::Waiting { lost_at, delay } if error.may_pass() => {
                let delay = delay.saturating_mul(2).min(self.policy.longest_delay);
                self.wait(now, lost_at, delay)
            }
            State::Waiting { .. } | State::GivenUp => {
                self.state = State::GivenUp;
                Next::GiveUp
            }
        }
    }

    /// An attempt has succeeded; the next loss starts afresh.
    pub fn connected(&mut self) {
        self.state = State::Connected;
    }

    fn wait(&mut self, now: Duration, lost_at: Duration, delay: Duration) -> Next {
        let left = (lost_at + self.policy.give_up_after).saturating_sub(now);
        if left.is_zero() {
            self.state = State::GivenUp;
            return Next::GiveUp;
        }
        self.state = State::Waiting { lost_at, delay };
        // The last attempt is made when time is up, not before it and not after it.
        Next::TryAfter(delay.min(left))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: ReconnectPolicy = ReconnectPolicy {
        first_delay: Duration::from_secs(1),
        longest_delay: Duration::from_secs(5),
        give_up_after: Duration::from_secs(20),
    };

    fn lost() -> SshError {
        SshError::Lost { address: "a:22".into(), reason: "test".into() }
    }

    fn after(seconds: u64) -> Next {
        Next::TryAfter(Duration::from_secs(seconds))
    }

    #[test]
    fn waits_grow_up_to_the_longest_and_end_when_time_is_up() {
        let mut reconnect = Reconnect::new(POLICY);
        let mut now = Duration::from_secs(100);
        let mut waits = vec![reconnect.lost(now)];
        while let Some(Next::TryAfter(wait)) = waits.last() {
            now += *wait;
            waits.push(reconnect.failed(now, &lost()));
        }
        assert_eq!(
            waits,
            [after(1), after(2), after(4), after(5), after(5), after(3), Next::GiveUp]
        );
        assert_eq!(now, Duration::from_mins(2));
    }

    #[test]
    fn what_will_not_pass_ends_it_at_once() {
        let mut reconnect = Reconnect::new(POLICY);
        reconnect.lost(Duration::ZERO);
        let refused = SshError::Agent { reason: "test".into() };
        assert_eq!(reconnect.failed(Duration::ZERO, &refused), Next::GiveUp);
        assert_eq!(reconnect.lost(Duration::ZERO), Next::GiveUp);
    }

    #[test]
    fn a_success_starts_the_waits_afresh() {
        let mut reconnect = Reconnect::new(POLICY);
        reconnect.lost(Duration::ZERO);
        reconnect.failed(Duration::from_secs(1), &lost());
        reconnect.connected();
        assert_eq!(reconnect.lost(Duration::from_secs(1000)), after(1));
    }

    #[test]
    fn a_second_loss_while_waiting_does_not_move_the_end() {
        let mut reconnect = Reconnect::new(POLICY);
        assert_eq!(reconnect.lost(Duration::ZERO), after(1));
        assert_eq!(reconnect.lost(Duration::from_secs(19)), after(1));
        assert_eq!(reconnect.lost(Duration::from_secs(20)), Next::GiveUp);
    }

    proptest! {
        #[test]
        fn no_course_of_failures_waits_longer_than_allowed(costs in prop::collection::vec(0_u64..4000, 0..200)) {
            let mut reconnect = Reconnect::new(POLICY);
            let mut now = Duration::ZERO;
            let mut next = reconnect.lost(now);
            for cost in costs {
                let Next::TryAfter(wait) = next else { break };
                prop_assert!(wait <= POLICY.longest_delay && now + wait <= POLICY.give_up_after);
                now += wait + Duration::from_millis(cost);
                next = reconnect.failed(now, &lost());
            }
        }
    }
}
