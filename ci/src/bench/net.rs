//! The network beside Linux's: two guests on one host, one after the other, round by round; a host for each setting.

mod load;
mod row;
mod side;

pub use row::{Better, Row};

use load::{LOADS, Load};
use side::Side;

use super::read;
use crate::suite::Images;
use crate::{Clock, Error, Options, XenHost};

/// What to measure, how often, by which clock.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// By which clock.
    pub clock: Clock,
    /// How often each is measured.
    pub rounds: usize,
    /// Only loads whose name contains this.
    pub only: Option<&'a str>,
}

/// What is to be told while it measures.
#[derive(Debug)]
pub enum Report<'a> {
    /// How far it is.
    Progress {
        /// What comes next.
        what: &'a str,
        /// How many measurements are over.
        done: usize,
        /// How many there are.
        total: usize,
    },
    /// A line of the table.
    Row(Row),
}

/// Measures. What has been told is good, even if an error ends it.
///
/// # Errors
/// [`Error::Argument`] if no load has such a name; others if a guest does not do what it should.
pub fn net(
    options: &Options,
    images: &Images,
    plan: Plan<'_>,
    report: &mut dyn FnMut(Report<'_>),
) -> Result<(), Error> {
    let loads = chosen(plan.only)?;
    let peer = read(&images.peer)?;
    let image = read(&images.folder.join("services"))?;
    let total = loads.len() * plan.rounds;
    let mut done = 0;
    for loads in loads.chunk_by(|a, b| a.setting == b.setting) {
        report(Report::Progress {
            what: "starting the guests",
            done,
            total,
        });
        let setting = loads[0].setting;
        let mut options = options.clone().clock(plan.clock);
        if let Some(mib) = setting.host_memory_mib() {
            options = options.memory_mib(mib);
        }
        let host = XenHost::start(&options)?;
        host.put_program("/tmp/peer", &peer)?;
        let sides = [Side::fata(&host, &image, setting)?, Side::linux(&host, &peer, setting)?];
        for load in loads {
            let mut measured = [Vec::new(), Vec::new()];
            for _ in 0..plan.rounds {
                report(Report::Progress {
                    what: load.name,
                    done,
                    total,
                });
                for (side, measured) in sides.iter().zip(&mut measured) {
                    measured.extend(side.measure(load)?);
                }
                done += 1;
            }
            for figure in load.figures {
                report(Report::Row(figure.row(load, plan.clock, &measured)));
            }
        }
    }
    Ok(())
}

/// Whether there is a row with `only` in its name: to be asked before anything is built for it.
///
/// # Errors
/// There is none. The error names all rows.
pub fn find_rows(only: Option<&str>) -> Result<(), Error> {
    chosen(only).map(drop)
}

fn chosen(only: Option<&str>) -> Result<Vec<&'static Load>, Error> {
    let chosen: Vec<&Load> = LOADS
        .iter()
        .filter(|load| only.is_none_or(|only| load.name.contains(only)))
        .collect();
    if chosen.is_empty() {
        let names: Vec<&str> = LOADS.iter().map(|load| load.name).collect();
        return Err(Error::Argument {
            what: format!(
                "no row has `{}` in its name\n  next: name one of {}",
                only.unwrap_or_default(),
                names.join(", ")
            ),
        });
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_chosen_by_a_part_of_their_name() {
        let names = |only| chosen(only).map(|loads| loads.iter().map(|load| load.name).collect::<Vec<_>>());
        assert_eq!(names(Some("tcp-out")).unwrap(), ["tcp-out"]);
        assert_eq!(names(Some("http")).unwrap().len(), 3);
        assert_eq!(names(None).unwrap().len(), LOADS.len());
        let error = names(Some("quic")).unwrap_err().to_string();
        assert!(error.contains("next: name one of tcp-in"), "{error}");
    }
}
