//! Bars for long work, on standard error, only where somebody looks.

use indicatif::{ProgressBar, ProgressStyle};
use model::{Progress, Stage};
use std::sync::Mutex;

/// Shows how far loading a model has come.
pub(crate) struct LoadBar {
    bar: ProgressBar,
    stage: Mutex<Option<Stage>>,
}

impl LoadBar {
    pub(crate) fn new(name: &str) -> Self {
        let bar = styled("{msg:32} [{bar:30}] {bytes:>10} of {total_bytes}");
        bar.set_message(name.to_owned());
        LoadBar { bar, stage: Mutex::new(None) }
    }

    pub(crate) fn show(&self, progress: Progress) {
        let mut stage = self.stage.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *stage != Some(progress.stage) {
            *stage = Some(progress.stage);
            self.bar.set_message(match progress.stage {
                Stage::Hash => "hashing the checkpoint",
                Stage::Quantise => "quantising",
                Stage::ReadCache => "reading the quantised model",
                Stage::Digest => "computing the digest",
                Stage::WriteCache => "keeping the quantised model",
            });
        }
        self.bar.set_length(progress.total_bytes);
        self.bar.set_position(progress.done_bytes);
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A bar for a file that is being fetched.
pub(crate) fn fetch_bar() -> ProgressBar {
    styled("fetching {msg:32} [{bar:30}] {bytes:>10} of {total_bytes}, {eta} left")
}

/// A bar that counts.
pub(crate) fn count_bar(what: &'static str, total: u64) -> ProgressBar {
    let bar = styled("{msg:32} [{bar:30}] {pos} of {len}, {eta} left");
    bar.set_length(total);
    bar.set_message(what);
    bar
}

fn styled(template: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}
