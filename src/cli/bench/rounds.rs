//! Contenders take turns, so that a machine whose speed drifts is as kind to one as to another.

use std::time::{Duration, Instant};

use crate::cli::Result;
use crate::cli::progress::Bar;
use pt_index::Progress;

const ROUNDS_MIN: usize = 3;
const ROUNDS_MAX: usize = 101;

/// One way to do the work of a group.
pub(crate) struct Contender<'a> {
    pub(crate) name: String,
    /// Files or samples that one run is about: what a person cares for is the time for one.
    pub(crate) units: usize,
    /// Bytes that one run hands over; 0 where it hands over none.
    pub(crate) bytes: u64,
    /// Does the work once and says how long it took, or why it cannot.
    pub(crate) run: Box<dyn FnMut() -> Result<Duration> + 'a>,
}

/// What a contender needed.
pub(crate) struct Timed {
    pub(crate) name: String,
    pub(crate) units: usize,
    pub(crate) bytes: u64,
    /// Sorted times; or what went wrong.
    pub(crate) times: Result<Vec<Duration>, String>,
}

impl Timed {
    pub(crate) fn median(&self) -> Option<Duration> {
        let times = self.times.as_ref().ok()?;
        times.get(times.len() / 2).copied()
    }
}

/// Contenders that do the same work, timed in turns.
pub(crate) struct Group {
    /// What the work is, and of how much.
    pub(crate) title: String,
    /// What `units` of the contenders are.
    pub(crate) unit: &'static str,
    pub(crate) timed: Vec<Timed>,
}

/// How long contenders take turns.
#[derive(Clone, Copy)]
pub(crate) struct Rounds {
    time: Duration,
}

impl Rounds {
    pub(crate) fn new(time: Duration) -> Self {
        Self { time }
    }

    /// Runs every contender once to warm up, then in turns until the time is up. One that fails drops out; its reason is kept.
    pub(crate) fn run(self, title: String, unit: &'static str, mut contenders: Vec<Contender<'_>>) -> Group {
        let mut timed: Vec<Timed> = contenders
            .iter()
            .map(|contender| Timed {
                name: contender.name.clone(),
                units: contender.units,
                bytes: contender.bytes,
                times: Ok(Vec::new()),
            })
            .collect();
        let bar = Bar::counting("measuring", "rounds");
        let begun = Instant::now();
        let mut round = 0;
        while round < ROUNDS_MIN || begun.elapsed() < self.time && round < ROUNDS_MAX {
            for (contender, timed) in contenders.iter_mut().zip(&mut timed) {
                let Ok(times) = &mut timed.times else { continue };
                match (contender.run)() {
                    // The first round warms up, unless that alone has taken the time.
                    Ok(_) if round == 0 && begun.elapsed() < self.time => {}
                    Ok(time) => times.push(time),
                    Err(error) => timed.times = Err(error.to_string()),
                }
            }
            round += 1;
            let share = begun.elapsed().as_secs_f64() / self.time.as_secs_f64();
            let files_total =
                (round as f64 / share).ceil().clamp(ROUNDS_MIN as f64, ROUNDS_MAX as f64) as usize;
            bar.show(Progress { files: round, files_total, bytes: 0 });
            // One round longer than all the time there is says enough.
            if begun.elapsed() > 3 * self.time
                && timed.iter().all(|timed| timed.median().is_some() || timed.times.is_err())
            {
                break;
            }
        }
        bar.finish();
        for timed in &mut timed {
            if let Ok(times) = &mut timed.times {
                times.sort_unstable();
            }
        }
        Group { title, unit, timed }
    }
}

/// Runs something and says how long it took.
pub(crate) fn timed<T>(run: impl FnOnce() -> Result<T>) -> Result<Duration> {
    let begun = Instant::now();
    std::hint::black_box(run()?);
    Ok(begun.elapsed())
}
