//! What the tool shows while it works.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use fata_ci::{Cache, Options, Progress, Reporter, Stage, XenHost};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::error::Error;

/// What goes on at the same time, one below the other.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// A step of unknown length.
pub(crate) struct Spinner {
    bar: ProgressBar,
    title: String,
    began: Instant,
}

/// Begins a step.
pub(crate) fn spinner(title: &str) -> Spinner {
    let bar = BARS.add(ProgressBar::new_spinner().with_message(title.to_owned()));
    bar.set_style(style("{spinner} {msg} {elapsed:.dim}"));
    bar.enable_steady_tick(Duration::from_millis(100));
    Spinner {
        bar,
        title: title.into(),
        began: Instant::now(),
    }
}

impl Spinner {
    /// Ends the step, and says how long it took.
    pub(crate) fn done(self) -> Duration {
        self.bar.finish_and_clear();
        let took = self.began.elapsed();
        stage_line(&self.title, took);
        took
    }
}

/// A step whose parts are counted.
pub(crate) struct Bar {
    spinner: Spinner,
    /// What is being done now, and since when.
    part: RefCell<Option<(String, Instant)>>,
}

/// Begins one.
pub(crate) fn bar(title: &str) -> Bar {
    let spinner = spinner(title);
    spinner
        .bar
        .set_style(style("{spinner} {prefix} [{bar:30}] {pos}/{len} {msg} {elapsed:.dim}"));
    spinner.bar.set_prefix(title.to_owned());
    Bar {
        spinner,
        part: RefCell::default(),
    }
}

impl Bar {
    /// Shows what is being done, after `done` of `total` parts.
    pub(crate) fn show(&self, what: &str, done: usize, total: usize) {
        let bar = &self.spinner.bar;
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        bar.set_message(what.to_owned());
        if self.part.borrow().as_ref().is_none_or(|(part, _)| part != what) {
            self.end_part();
            *self.part.borrow_mut() = Some((what.to_owned(), Instant::now()));
        }
    }

    fn end_part(&self) {
        if let Some((part, began)) = self.part.take() {
            stage_line(&part, began.elapsed());
        }
    }

    /// Ends it.
    pub(crate) fn done(self) {
        self.end_part();
        self.spinner.done();
    }
}

/// Starts the Xen host, showing how far it is.
pub(crate) fn host() -> Result<XenHost, Error> {
    Ok(XenHost::start(&Options::new(Cache::locate()?).reporter(reporter()))?)
}

/// Draws a bar for each stage of the host's start.
pub(crate) fn reporter() -> Reporter {
    let bar = Mutex::new(ProgressBar::hidden());
    Reporter::new(move |stage: Stage, progress| {
        let Ok(mut bar) = bar.lock() else { return };
        match progress {
            Progress::Began => {
                *bar = BARS.add(ProgressBar::new(1000).with_message(stage.title()));
                bar.set_style(style("{spinner} {msg} [{bar:30}] {elapsed:.dim}"));
                bar.enable_steady_tick(Duration::from_millis(100));
            }
            Progress::Advanced { fraction } => bar.set_position((fraction * 1000.0) as u64),
            Progress::Ended { took } => {
                bar.finish_and_clear();
                stage_line(stage.title(), took);
            }
            _ => {}
        }
    })
}

/// One line for a stage that is over. Without a terminal there are no bars, and these lines are all there is.
pub(crate) fn stage_line(title: &str, took: Duration) {
    BARS.suspend(|| eprintln!("{:>9.3} s  {title}", took.as_secs_f64()));
}

/// Whether somebody watches.
pub(crate) fn interactive() -> bool {
    std::io::stdin().is_terminal()
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file; a wrong one falls back to the default rather than failing a run.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
