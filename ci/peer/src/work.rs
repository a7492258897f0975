//! Doing the same thing many times, several at a time, and counting.

use std::fmt;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    bytes: u64,
    took: Duration,
    /// Sorted.
    latencies: Vec<Duration>,
    first_error: Option<String>,
}

/// Runs `task` until it was started `parallel * each` times, on `parallel` threads. It is given its number, and says
/// how many bytes it moved.
pub(crate) fn run(each: u64, parallel: u64, task: impl Fn(u64) -> io::Result<u64> + Sync) -> Summary {
    many(each.saturating_mul(parallel), parallel, || (), |(), n| task(n))
}

/// Runs `task` `total` times on `parallel` threads, each of which keeps a state of its own (a connection).
pub(crate) fn many<S>(
    total: u64,
    parallel: u64,
    state: impl Fn() -> S + Sync,
    task: impl Fn(&mut S, u64) -> io::Result<u64> + Sync,
) -> Summary {
    let summary = Mutex::new(Summary::default());
    let next = AtomicU64::new(0);
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..parallel.clamp(1, 1024) {
            scope.spawn(|| {
                let mut own = Summary::default();
                let mut state = state();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= total {
                        break;
                    }
                    let start = Instant::now();
                    match task(&mut state, n) {
                        Ok(bytes) => {
                            own.ok += 1;
                            own.bytes += bytes;
                            own.latencies.push(start.elapsed());
                        }
                        Err(error) => {
                            own.failed += 1;
                            own.first_error.get_or_insert_with(|| format!("number {n}: {error}"));
                        }
                    }
                }
                if let Ok(mut summary) = summary.lock() {
                    summary.add(own);
                }
            });
        }
    });
    let mut summary = summary.into_inner().unwrap_or_default();
    summary.took = began.elapsed();
    summary.latencies.sort_unstable();
    summary
}

impl Summary {
    fn add(&mut self, other: Self) {
        self.ok += other.ok;
        self.failed += other.failed;
        self.bytes += other.bytes;
        self.latencies.extend(other.latencies);
        self.first_error = self.first_error.take().or(other.first_error);
    }

    /// The latency that `percent` of all stayed within, in microseconds.
    fn percentile(&self, percent: usize) -> u128 {
        let at = self.latencies.len().saturating_sub(1) * percent / 100;
        self.latencies.get(at).map_or(0, Duration::as_micros)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // All values are numbers, except the error, whose quotes and control characters are taken out.
        let error: String = self
            .first_error
            .as_deref()
            .unwrap_or_default()
            .chars()
            .filter(|c| !"\"\\\n\r\t".contains(*c))
            .collect();
        write!(
            f,
            r#"{{"ok":{},"failed":{},"bytes":{},"seconds":{:.3},"p50_us":{},"p99_us":{},"error":"{error}"}}"#,
            self.ok,
            self.failed,
            self.bytes,
            self.took.as_secs_f64(),
            self.percentile(50),
            self.percentile(99),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_was_done() {
        let summary = many(
            100,
            7,
            || 0_u64,
            |mine, n| {
                *mine += 1;
                if n == 13 {
                    Err(io::Error::other("a \"bad\" one"))
                } else {
                    Ok(2)
                }
            },
        );
        assert_eq!((summary.ok, summary.failed, summary.bytes), (99, 1, 198));
        let line = summary.to_string();
        assert!(
            line.contains(r#""failed":1"#) && line.contains(r#""error":"number 13: a bad one""#),
            "{line}"
        );
    }
}
