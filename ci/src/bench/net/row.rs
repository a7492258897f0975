//! A line of the table.

use serde_json::{Value, json};

use crate::Clock;

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// A rate.
    More,
    /// A time or a cost.
    Less,
}

/// A figure of both guests, once per round.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The load or the situation, such as `tcp-in`.
    pub load: &'static str,
    /// What was measured of it, such as `throughput`.
    pub figure: &'static str,
    /// The unit.
    pub unit: &'static str,
    /// Which way is better.
    pub better: Better,
    /// By which clock.
    pub clock: Clock,
    /// Whether it is a time or contains one. Counts are the same by either clock.
    pub timed: bool,
    /// The ratio that is aimed at.
    pub aim: f64,
    /// Ours; empty if it cannot be had.
    pub fata: Vec<f64>,
    /// Linux's; empty if it cannot be had.
    pub linux: Vec<f64>,
}

impl Row {
    /// The medians, ours first.
    pub fn medians(&self) -> [Option<f64>; 2] {
        [median(&self.fata), median(&self.linux)]
    }

    /// How many times better than Linux ours is: the ratio of the medians, turned so that above 1 is in our favour.
    pub fn ratio(&self) -> Option<f64> {
        let [fata, linux] = self.medians();
        let (fata, linux) = (fata?, linux?);
        let ratio = match self.better {
            Better::More => fata / linux,
            Better::Less => linux / fata,
        };
        ratio.is_finite().then_some(ratio)
    }

    /// For a file: every round, and what follows from them.
    pub fn json(&self) -> Value {
        let [fata, linux] = self.medians();
        json!({
            "load": self.load,
            "figure": self.figure,
            "unit": self.unit,
            "clock": match self.clock { Clock::Wall => "wall", Clock::Instructions => "instructions" },
            "better": match self.better { Better::More => "more", Better::Less => "less" },
            "fata": { "rounds": self.fata, "median": fata },
            "linux": { "rounds": self.linux, "median": linux },
            "ratio": self.ratio(),
            "aim": self.aim,
        })
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(better: Better, fata: &[f64], linux: &[f64]) -> Row {
        Row {
            load: "tcp-in",
            figure: "throughput",
            unit: "MiB/s",
            better,
            clock: Clock::Wall,
            timed: true,
            aim: 1.5,
            fata: fata.to_vec(),
            linux: linux.to_vec(),
        }
    }

    #[test]
    fn above_one_is_in_our_favour() {
        assert_eq!(row(Better::More, &[9.0, 1.0, 4.0], &[2.0, 2.0, 2.0]).ratio(), Some(2.0));
        assert_eq!(row(Better::Less, &[1.0], &[2.0]).ratio(), Some(2.0));
        assert_eq!(row(Better::Less, &[1.0], &[]).ratio(), None);
        assert_eq!(row(Better::More, &[1.0], &[0.0]).ratio(), None);
    }

    #[test]
    fn a_file_has_all_rounds() {
        let json = row(Better::More, &[1.0, 3.0], &[]).json();
        assert_eq!(json["fata"]["rounds"][1], 3.0);
        assert_eq!(json["fata"]["median"], 3.0);
        assert!(json["ratio"].is_null() && json["linux"]["median"].is_null());
    }
}
