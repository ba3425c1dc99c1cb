//! Whole lives of VMs on pools where things go wrong: each ends in success, or in one clear error with
//! nothing left on the pool once what was left has been collected.
//!
//! `BIOXEN_LIVES` says how many (1,000), and `BIOXEN_SEED` which. A life that ends otherwise tells its
//! seed and its story: with that seed and `BIOXEN_LIVES=1` it is lived again alone.

#![expect(clippy::unwrap_used, reason = "helpers of tests, as in tests")]
#![cfg(target_os = "linux")]

mod calls;
mod chance;
mod killing;
mod life;
mod story;
mod world;

use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};

use crate::life::{Tally, live};
use crate::story::Story;

/// How many lives are lived at a time.
const AT_ONCE: usize = 32;

/// How long a story takes that is told of.
const SLOW: Duration = Duration::from_mins(1);

/// How a story is lived again alone.
fn alone(story: &Story) -> String {
    format!("BIOXEN_LIVES=1 BIOXEN_SEED={}", story.seed)
}

fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(said) => said.parse().unwrap_or_else(|_| panic!("{variable}=`{said}` is no number")),
        Err(_) => otherwise,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_life_ends_well_or_with_one_clear_error_and_leaves_nothing() {
    let (lives, seed) =
        (number("BIOXEN_LIVES", 1_000), number("BIOXEN_SEED", 0x00b1_0c0d_e5ee_d001));
    let began = Instant::now();
    let stories = (0..lives).map(|life| Story::of(chance::seed_of(seed, life)));
    let ended = stream::iter(stories).map(async |story| {
        let began = Instant::now();
        (live(&story).await, began.elapsed(), story)
    });
    let mut ended = ended.buffer_unordered(AT_ONCE);
    let (mut tally, mut failures) = (Tally::default(), Vec::new());
    while let Some((ended, took, story)) = ended.next().await {
        if took > SLOW {
            eprintln!("it took {took:.1?}: {}", alone(&story));
        }
        match ended {
            Ok(ended) => tally.add(ended),
            Err(error) => {
                let alone = alone(&story);
                eprintln!("{alone}: {error}\n{story:#?}");
                failures.push(format!("{alone}: {error}"));
            }
        }
    }
    println!("{lives} lives of seed {seed} in {:.1?}: {tally:#?}", began.elapsed());
    assert!(failures.is_empty(), "{} of {lives} lives:\n{}", failures.len(), failures.join("\n"));
}
