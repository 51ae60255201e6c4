//! What a device did with a stretch of its time: a line of JSON for every few seconds, in a file for each day (UTC).
//!
//! A line is written whole or not at all: what a kill leaves of one at the end of a file is passed over, and cut when the
//! file is written to again.

use crate::civil::day_of;
use crate::error::ReturnsError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes a line may have: thousands of adapters fit.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// Nanoseconds of a device's time by what they went into.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Time {
    /// Computing prompts for the first time.
    pub prefill: u64,
    /// Computing answers, token by token.
    pub decode: u64,
    /// Computing tokens that were guessed ahead, and right.
    pub accepted: u64,
    /// Computing tokens that were guessed ahead, and wrong.
    pub rejected: u64,
    /// Computing again what a pre-emption had thrown away.
    pub recomputed: u64,
    /// Computing answers again to check them.
    pub audit: u64,
    /// Waiting for adapters, with nothing else to compute.
    pub loading: u64,
    /// Not computing although somebody waits.
    pub held: u64,
    /// Nobody waits.
    pub idle: u64,
}

impl Time {
    /// Every kind of time by its name, in the order of a report.
    pub fn kinds(&self) -> [(&'static str, u64); 9] {
        [
            ("prefill", self.prefill),
            ("decode", self.decode),
            ("accepted", self.accepted),
            ("rejected", self.rejected),
            ("recomputed", self.recomputed),
            ("audit", self.audit),
            ("loading", self.loading),
            ("held", self.held),
            ("idle", self.idle),
        ]
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.kinds().iter().fold(0, |sum, (_, nanoseconds)| sum.saturating_add(*nanoseconds))
    }

    /// What was spent computing, for whatever purpose.
    pub fn busy(&self) -> u64 {
        self.total().saturating_sub(self.loading.saturating_add(self.held).saturating_add(self.idle))
    }

    fn kinds_mut(&mut self) -> [&mut u64; 9] {
        [
            &mut self.prefill,
            &mut self.decode,
            &mut self.accepted,
            &mut self.rejected,
            &mut self.recomputed,
            &mut self.audit,
            &mut self.loading,
            &mut self.held,
            &mut self.idle,
        ]
    }

    /// Adds another stretch.
    pub fn add(&mut self, other: &Time) {
        for (own, (_, more)) in self.kinds_mut().into_iter().zip(other.kinds()) {
            *own = own.saturating_add(more);
        }
    }

    /// What was spent since `earlier`.
    pub fn since(&self, earlier: &Time) -> Time {
        let mut since = *self;
        for (own, (_, before)) in since.kinds_mut().into_iter().zip(earlier.kinds()) {
            *own = own.saturating_sub(before);
        }
        since
    }
}

/// What an adapter, or the base by itself, took of a device and gave.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Use {
    /// Its part of the time spent computing.
    pub time: Time,
    /// Tokens of prompts computed.
    pub prefill_tokens: u64,
    /// Tokens of prompts found computed.
    pub cached_tokens: u64,
    /// Tokens drawn.
    pub answer_tokens: u64,
    /// Answers completed.
    pub answers: u64,
}

impl Use {
    /// Adds another stretch.
    pub fn add(&mut self, other: &Use) {
        self.time.add(&other.time);
        self.prefill_tokens = self.prefill_tokens.saturating_add(other.prefill_tokens);
        self.cached_tokens = self.cached_tokens.saturating_add(other.cached_tokens);
        self.answer_tokens = self.answer_tokens.saturating_add(other.answer_tokens);
        self.answers = self.answers.saturating_add(other.answers);
    }

    /// What came since `earlier`.
    pub fn since(&self, earlier: &Use) -> Use {
        Use {
            time: self.time.since(&earlier.time),
            prefill_tokens: self.prefill_tokens.saturating_sub(earlier.prefill_tokens),
            cached_tokens: self.cached_tokens.saturating_sub(earlier.cached_tokens),
            answer_tokens: self.answer_tokens.saturating_sub(earlier.answer_tokens),
            answers: self.answers.saturating_sub(earlier.answers),
        }
    }
}

/// Bytes of a device's memory at the end of a stretch.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bytes {
    /// The base model's weights.
    pub base: u64,
    /// Resident adapters.
    pub adapters: u64,
    /// Pages of keys and values in use, or kept for prompts that begin alike.
    pub pages: u64,
    /// What a deployment for each registered model (base or adapter) would take for weights alone.
    pub separate: u64,
    /// Models that are registered.
    pub models: u64,
}

/// A stretch of a device's time.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The server's start that it belongs to, in microseconds since 1970: a new number after every restart.
    pub run: u64,
    /// When it began and ended, in microseconds since 1970 by the system's clock.
    pub from: u64,
    /// See `from`.
    pub to: u64,
    /// Where the time went, by a clock that is never set.
    pub time: Time,
    /// Guesses that were right, and that were wrong.
    pub drafts_accepted: u64,
    /// See `drafts_accepted`.
    pub drafts_rejected: u64,
    /// Adapters loaded.
    pub adapters_loaded: u64,
    /// Sequences that gave way to others.
    pub preemptions: u64,
    /// Memory at its end.
    pub bytes: Bytes,
    /// The base's name among models.
    pub model: String,
    /// What the base by itself took and gave.
    pub base: Use,
    /// What adapters took and gave, those that did anything.
    pub adapters: BTreeMap<String, Use>,
}

/// A folder of records that one server writes.
pub struct Journal {
    folder: PathBuf,
    /// The file being written, and its day.
    file: Option<(u64, File)>,
}

impl Journal {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(folder: &Path) -> Result<Journal, ReturnsError> {
        std::fs::create_dir_all(folder).map_err(ReturnsError::file(folder))?;
        Ok(Journal { folder: folder.to_owned(), file: None })
    }

    /// Adds a record to the file of the day that it ended on.
    ///
    /// # Errors
    /// The disk refuses. The record may then be given again: a line cut short is not read.
    pub fn append(&mut self, record: &Record) -> Result<(), ReturnsError> {
        let (day, name) = day_of(record.to);
        let path = self.folder.join(format!("{name}.jsonl"));
        let mut line = serde_json::to_vec(record).map_err(|error| ReturnsError::record(&path, 0, error))?;
        line.push(b'\n');
        if self.file.as_ref().is_none_or(|(open, _)| *open != day) {
            self.file = Some((day, begin(&path).map_err(ReturnsError::file(&path))?));
        }
        let Some((_, file)) = &mut self.file else { return Ok(()) };
        let written = file.write_all(&line).map_err(ReturnsError::file(&path));
        if written.is_err() {
            // Opening it again cuts what was half written.
            self.file = None;
        }
        written
    }
}

/// Opens a file to write behind its last whole line.
fn begin(path: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
    let mut whole = 0;
    let mut reader = BufReader::new(&file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
        whole += line.len() as u64;
        line.clear();
    }
    file.set_len(whole)?;
    Ok(file)
}

/// Every record in a folder of the period from `from` to `to` (microseconds since 1970), in the order written: those that ended after `from`, and no
/// later than `to`, so that every record belongs to one of two periods that meet.
///
/// # Errors
/// A file cannot be read, or a whole line of it is no record.
pub fn read(folder: &Path, from: u64, to: u64) -> Result<Vec<Record>, ReturnsError> {
    let mut names = Vec::new();
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ReturnsError::file(folder)(error)),
        Ok(entries) => {
            for entry in entries {
                let path = entry.map_err(ReturnsError::file(folder))?.path();
                let day = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
                // A record ends on its file's day and may have begun the day before.
                let known = path.extension().is_some_and(|extension| extension == "jsonl");
                if known && day >= day_of(from).1 && day <= day_of(to.saturating_add(24 * 3600 * 1_000_000)).1 {
                    names.push(path);
                }
            }
        }
    }
    names.sort();
    let mut records = Vec::new();
    for path in names {
        read_file(&path, &mut |record| {
            if record.to > from && record.to <= to {
                records.push(record);
            }
        })?;
    }
    Ok(records)
}

fn read_file(path: &Path, take: &mut dyn FnMut(Record)) -> Result<(), ReturnsError> {
    let file = File::open(path).map_err(ReturnsError::file(path))?;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let bytes = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        let bytes = bytes.map_err(ReturnsError::file(path))?;
        if bytes == 0 || !line.ends_with(b"\n") {
            break;
        }
        take(serde_json::from_slice(&line).map_err(|error| ReturnsError::record(path, number, error))?);
    }
    Ok(())
}
