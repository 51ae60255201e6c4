//! An opening that stays in its file: only what one section of one position needs is in memory at a time.

use crate::light::opening::{EmbeddingOpening, HEADING, Opened, PastOpening};
use crate::light::verdict::LightError;
use crate::wire::{Malformed, Reader};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The longest thing that is read at once: an embedding or an earlier position.
const PIECE_BYTES_MAX: u64 = 64 << 20;

/// Where the parts of an opening lie in a file.
pub struct OpeningFile {
    file: File,
    start: usize,
    embeddings: Vec<EmbeddingOpening>,
    past: Vec<Range<u64>>,
    sums: Vec<Range<u64>>,
}

impl OpeningFile {
    /// Goes over a file and notes where things are; nothing it says is checked yet, and the sums are not read. Takes memory in
    /// proportion to the file, whatever it says.
    pub fn open(path: &Path) -> Result<OpeningFile, LightError> {
        let file = File::open(path).map_err(LightError::File)?;
        let end = file.metadata().map_err(LightError::File)?.len();
        let mut scan = Scan { reader: BufReader::new(&file), at: 0, end };
        if scan.bytes()? != (8..8 + HEADING.len() as u64)
            || read(&file, &(8..scan.at)).map_err(LightError::File)? != HEADING
        {
            return Err(Malformed("their heading").into());
        }
        let start = scan.number()? as usize;
        let mut embeddings = vec![];
        for _ in 0..scan.count(20)? {
            let from = scan.at;
            scan.skip(4)?;
            scan.bytes()?;
            scan.bytes()?;
            embeddings
                .push(EmbeddingOpening::read(&mut Reader(&read(&file, &(from..scan.at)).map_err(LightError::File)?))?);
        }
        let (mut past, mut sums) = (vec![], vec![]);
        for _ in 0..scan.count(16)? {
            let from = scan.at;
            scan.bytes()?;
            for _ in 0..scan.count(8)? {
                scan.bytes()?;
            }
            past.push(from..scan.at);
        }
        for _ in 0..scan.count(8)? {
            sums.push(scan.bytes()?);
        }
        if scan.at != end {
            return Err(Malformed("bytes follow their end").into());
        }
        Ok(OpeningFile { file, start, embeddings, past, sums })
    }
}

impl Opened for OpeningFile {
    fn span(&self) -> Range<usize> {
        self.start..self.start.saturating_add(self.sums.len())
    }

    fn embeddings(&self) -> &[EmbeddingOpening] {
        &self.embeddings
    }

    fn past_positions(&self) -> usize {
        self.past.len()
    }

    fn past(&self, position: usize) -> io::Result<Cow<'_, PastOpening>> {
        let bytes = read(&self.file, &self.past[position])?;
        // It was well formed when the file was opened.
        PastOpening::read(&mut Reader(&bytes)).map(Cow::Owned).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn sums_bytes(&self, index: usize) -> usize {
        (self.sums[index].end - self.sums[index].start) as usize
    }

    fn sums<'a>(&'a self, index: usize, at: usize, bytes: usize, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        if buffer.len() < bytes {
            buffer.resize(bytes, 0);
        }
        self.file.read_exact_at(&mut buffer[..bytes], self.sums[index].start + at as u64)?;
        Ok(&buffer[..bytes])
    }
}

fn read(file: &File, place: &Range<u64>) -> io::Result<Vec<u8>> {
    let bytes = place.end - place.start;
    if bytes > PIECE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a part is too large"));
    }
    let mut piece = vec![0; bytes as usize];
    file.read_exact_at(&mut piece, place.start)?;
    Ok(piece)
}

/// Goes over a file from its start.
struct Scan<'a> {
    reader: BufReader<&'a File>,
    at: u64,
    end: u64,
}

impl Scan<'_> {
    fn number(&mut self) -> Result<u64, LightError> {
        if self.end - self.at < 8 {
            return Err(Malformed("they end too early").into());
        }
        let mut number = [0; 8];
        self.reader.read_exact(&mut number).map_err(LightError::File)?;
        self.at += 8;
        let number = u64::from_le_bytes(number);
        if number < 1 << 40 { Ok(number) } else { Err(Malformed("a number is too large").into()) }
    }

    fn skip(&mut self, bytes: u64) -> Result<(), LightError> {
        if bytes > self.end - self.at {
            return Err(Malformed("they end too early").into());
        }
        self.reader.seek_relative(bytes as i64).map_err(LightError::File)?;
        self.at += bytes;
        Ok(())
    }

    /// Bytes behind their length: where they are.
    fn bytes(&mut self) -> Result<Range<u64>, LightError> {
        let length = self.number()?;
        let from = self.at;
        self.skip(length)?;
        Ok(from..self.at)
    }

    /// The number of items that follow, each of at least so many bytes.
    fn count(&mut self, bytes_each: u64) -> Result<u64, LightError> {
        let count = self.number()?;
        if count > (self.end - self.at) / bytes_each { Err(Malformed("they end too early").into()) } else { Ok(count) }
    }
}
