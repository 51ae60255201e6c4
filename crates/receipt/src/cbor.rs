//! The part of CBOR (RFC 8949) that receipts use, deterministic in both directions: lengths are definite, every number
//! has its shortest form, and a reader refuses everything else. Reading takes no memory of its own.

use crate::error::Malformed;

const UINT: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;

/// Appends items. A map's keys must be written in ascending order.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    fn head(&mut self, major: u8, number: u64) -> &mut Self {
        let major = major << 5;
        match number {
            0..24 => self.0.push(major | number as u8),
            24..0x100 => self.0.extend([major | 24, number as u8]),
            0x100..0x1_0000 => {
                self.0.push(major | 25);
                self.0.extend((number as u16).to_be_bytes());
            }
            0x1_0000..0x1_0000_0000 => {
                self.0.push(major | 26);
                self.0.extend((number as u32).to_be_bytes());
            }
            _ => {
                self.0.push(major | 27);
                self.0.extend(number.to_be_bytes());
            }
        }
        self
    }

    pub(crate) fn uint(&mut self, number: u64) -> &mut Self {
        self.head(UINT, number)
    }

    /// The number −1 − `n`.
    pub(crate) fn minus_one_minus(&mut self, n: u64) -> &mut Self {
        self.head(NEGATIVE, n)
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.head(BYTES, bytes.len() as u64).0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.head(TEXT, text.len() as u64).0.extend_from_slice(text.as_bytes());
        self
    }

    pub(crate) fn bool(&mut self, value: bool) -> &mut Self {
        self.0.push(if value { TRUE } else { FALSE });
        self
    }

    pub(crate) fn array(&mut self, items: usize) -> &mut Self {
        self.head(ARRAY, items as u64)
    }

    pub(crate) fn map(&mut self, entries: usize) -> &mut Self {
        self.head(MAP, entries as u64)
    }

    pub(crate) fn tag(&mut self, tag: u64) -> &mut Self {
        self.head(TAG, tag)
    }

    /// Appends an item that is encoded already.
    pub(crate) fn item(&mut self, encoded: &[u8]) -> &mut Self {
        self.0.extend_from_slice(encoded);
        self
    }
}

/// Takes items off the front of some bytes.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    /// Nothing may be left.
    pub(crate) fn finish(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::Trailing(self.0.len())) }
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Malformed> {
        let count = usize::try_from(count).map_err(|_| Malformed::Truncated)?;
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn head(&mut self, major: u8) -> Result<u64, Malformed> {
        let first = self.take(1)?[0];
        if first >> 5 != major {
            return Err(Malformed::Kind);
        }
        let short = u64::from(first & 31);
        let (bytes, least) = match short {
            0..24 => return Ok(short),
            24 => (1, 24),
            25 => (2, 0x100),
            26 => (4, 0x1_0000),
            27 => (8, 0x1_0000_0000),
            _ => return Err(Malformed::NotDeterministic),
        };
        let number = self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        if number < least { Err(Malformed::NotDeterministic) } else { Ok(number) }
    }

    pub(crate) fn uint(&mut self) -> Result<u64, Malformed> {
        self.head(UINT)
    }

    /// `n` of the number −1 − `n`.
    pub(crate) fn negative(&mut self) -> Result<u64, Malformed> {
        self.head(NEGATIVE)
    }

    pub(crate) fn uint32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.uint()?).map_err(|_| Malformed::Range)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.head(BYTES)?;
        self.take(length)
    }

    /// Exactly `N` bytes.
    pub(crate) fn bytes_of<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.bytes()?.try_into().map_err(|_| Malformed::Range)
    }

    /// Bytes as consecutive groups of `N`.
    pub(crate) fn groups_of<const N: usize>(&mut self) -> Result<&'a [[u8; N]], Malformed> {
        let (groups, rest) = self.bytes()?.as_chunks::<N>();
        if rest.is_empty() { Ok(groups) } else { Err(Malformed::Range) }
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = self.head(TEXT)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Malformed::Kind)
    }

    pub(crate) fn bool(&mut self) -> Result<bool, Malformed> {
        match self.take(1)?[0] {
            FALSE => Ok(false),
            TRUE => Ok(true),
            _ => Err(Malformed::Kind),
        }
    }

    /// The number of items that follow. No more than there are bytes left.
    pub(crate) fn array(&mut self) -> Result<usize, Malformed> {
        let items = self.head(ARRAY)?;
        usize::try_from(items).ok().filter(|items| *items <= self.0.len()).ok_or(Malformed::Truncated)
    }

    pub(crate) fn tag(&mut self) -> Result<u64, Malformed> {
        self.head(TAG)
    }

    /// A map with numbers for keys.
    pub(crate) fn fields(&mut self) -> Result<Fields<'a, '_>, Malformed> {
        let left = self.head(MAP)?;
        Ok(Fields { reader: self, left, next: None })
    }
}

/// The entries of a map, asked for in ascending order of their keys.
pub(crate) struct Fields<'a, 'r> {
    reader: &'r mut Reader<'a>,
    /// Entries whose key is not read yet.
    left: u64,
    /// A key that is read but not asked for yet.
    next: Option<u64>,
}

impl<'a> Fields<'a, '_> {
    /// The key of the next entry.
    fn peek(&mut self) -> Result<Option<u64>, Malformed> {
        if self.next.is_none() && self.left > 0 {
            self.left -= 1;
            self.next = Some(self.reader.uint()?);
        }
        Ok(self.next)
    }

    /// The reader before the value of `key`, if the map has it.
    pub(crate) fn optional(&mut self, key: u64) -> Result<Option<&mut Reader<'a>>, Malformed> {
        match self.peek()? {
            Some(next) if next == key => {
                self.next = None;
                Ok(Some(self.reader))
            }
            Some(next) if next < key => Err(Malformed::Field(next)),
            _ => Ok(None),
        }
    }

    /// The reader before the value of `key`.
    pub(crate) fn required(&mut self, key: u64) -> Result<&mut Reader<'a>, Malformed> {
        self.optional(key)?.ok_or(Malformed::Missing(key))
    }

    /// Nothing may be left.
    pub(crate) fn finish(mut self) -> Result<(), Malformed> {
        self.peek()?.map_or(Ok(()), |key| Err(Malformed::Field(key)))
    }
}
