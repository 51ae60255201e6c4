//! Tiles (C2SP `tlog-tiles`): 256 consecutive hashes of one level, or 256 entries, as one immutable resource.

use crate::error::LogError;

/// Hashes or entries in a full tile.
pub const TILE_WIDTH: u64 = 256;

/// The most bytes an entry may have: its length is written with 16 bits.
pub const ENTRY_BYTES_MAX: usize = u16::MAX as usize;

/// A tile's name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Tile {
    /// Level of the tree in steps of 8, from the leaves up; none for entries themselves.
    pub level: Option<u8>,
    /// Which of its level.
    pub index: u64,
    /// 1 to 256 hashes or entries.
    pub width: u16,
}

impl Tile {
    /// The entries' tile with this index.
    pub fn entries(index: u64, width: u16) -> Tile {
        Tile { level: None, index, width }
    }

    /// Its path: `tile/<level>/<index>[.p/<width>]`, the index in groups of three digits.
    pub fn path(&self) -> String {
        let level = self.level.map_or("entries".to_owned(), |level| level.to_string());
        let mut groups = vec![format!("{:03}", self.index % 1000)];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(format!("x{:03}", rest % 1000));
            rest /= 1000;
        }
        groups.reverse();
        let partial = if self.is_full() { String::new() } else { format!(".p/{}", self.width) };
        format!("tile/{level}/{}{partial}", groups.join("/"))
    }

    /// The tile of a path; none if no tile has exactly this path.
    pub fn parse(path: &str) -> Option<Tile> {
        let (level, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let level = if level == "entries" { None } else { Some(level.parse().ok().filter(|level| *level < 64)?) };
        let (index, width) = match rest.split_once(".p/") {
            None => (rest, TILE_WIDTH as u16),
            Some((index, width)) => (index, width.parse().ok().filter(|width| (1..256).contains(width))?),
        };
        let mut number = 0u64;
        for group in index.split('/') {
            let digits = group.strip_prefix('x').unwrap_or(group);
            number = number.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
        }
        // Whatever was lenient above shows here.
        let tile = Tile { level, index: number, width };
        (tile.path() == path).then_some(tile)
    }

    /// Whether it is full.
    pub fn is_full(&self) -> bool {
        u64::from(self.width) == TILE_WIDTH
    }

    /// Whether a log of `size` entries has this tile: full, or as wide as there is something for it.
    pub fn is_within(&self, size: u64) -> bool {
        let shift = 8 * u32::from(self.level.unwrap_or(0));
        let there = size.checked_shr(shift).unwrap_or(0);
        let end = self.index.checked_mul(TILE_WIDTH).and_then(|first| first.checked_add(u64::from(self.width)));
        end.is_some_and(|end| end <= there)
    }
}

/// Entries as a tile holds them: each after its length in 16 bits, large end first.
///
/// # Errors
/// An entry is too large.
pub fn join_entries<'a>(entries: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, LogError> {
    let mut bytes = vec![];
    for entry in entries {
        let length = u16::try_from(entry.len()).map_err(|_| LogError::TooLarge(entry.len()))?;
        bytes.extend(length.to_be_bytes());
        bytes.extend_from_slice(entry);
    }
    Ok(bytes)
}

/// The entries of a tile. Takes no memory beyond a pointer for every two bytes.
///
/// # Errors
/// The bytes end inside an entry.
pub fn split_entries(mut bytes: &[u8]) -> Result<Vec<&[u8]>, LogError> {
    let mut entries = vec![];
    while !bytes.is_empty() {
        let whole = bytes
            .split_first_chunk()
            .and_then(|(length, rest)| rest.split_at_checked(u16::from_be_bytes(*length).into()));
        let (entry, rest) = whole.ok_or(LogError::Malformed("a tile of entries"))?;
        entries.push(entry);
        bytes = rest;
    }
    Ok(entries)
}
