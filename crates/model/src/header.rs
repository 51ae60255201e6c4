//! The header of a safetensors file, read strictly: a length, a JSON table of tensors, and byte ranges that tile the
//! rest of the file without holes or overlaps.

use crate::ModelError;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The longest header accepted.
const HEADER_BYTES_MAX: u64 = 100_000_000;

/// What one element of a tensor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dtype {
    /// bfloat16.
    Bf16,
    /// IEEE binary16.
    F16,
    /// IEEE binary32.
    F32,
    /// Signed bytes.
    I8,
    /// Something else, by its name in the file.
    Other(&'static str),
}

/// Names in the file, and bits per element, of what is not read but must be measured.
const OTHERS: [(&str, u64); 18] = [
    ("BOOL", 8),
    ("U8", 8),
    ("F8_E4M3", 8),
    ("F8_E5M2", 8),
    ("F8_E8M0", 8),
    ("F8_E4M3FNUZ", 8),
    ("F8_E5M2FNUZ", 8),
    ("F4", 4),
    ("F6_E2M3", 6),
    ("F6_E3M2", 6),
    ("I16", 16),
    ("U16", 16),
    ("I32", 32),
    ("U32", 32),
    ("I64", 64),
    ("U64", 64),
    ("F64", 64),
    ("C64", 64),
];

impl Dtype {
    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::Bf16 => "BF16",
            Dtype::F16 => "F16",
            Dtype::F32 => "F32",
            Dtype::I8 => "I8",
            Dtype::Other(name) => name,
        }
    }

    /// Bytes per element of the types that are read.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Dtype::Bf16 | Dtype::F16 => 2,
            Dtype::F32 => 4,
            Dtype::I8 => 1,
            Dtype::Other(_) => 0,
        }
    }

    /// Whether it is one of the three float types that are read.
    pub fn is_float(self) -> bool {
        matches!(self, Dtype::Bf16 | Dtype::F16 | Dtype::F32)
    }

    /// The type and its bits per element.
    fn parse(name: &str) -> Option<(Dtype, u64)> {
        match name {
            "BF16" => Some((Dtype::Bf16, 16)),
            "F16" => Some((Dtype::F16, 16)),
            "F32" => Some((Dtype::F32, 32)),
            "I8" => Some((Dtype::I8, 8)),
            _ => OTHERS.iter().find(|other| other.0 == name).map(|other| (Dtype::Other(other.0), other.1)),
        }
    }
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// First byte, from the start of the file.
    pub(crate) start: u64,
    pub(crate) bytes: u64,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The table in the order of the file, each name once.
struct Table(Vec<(String, Line)>);

impl<'de> serde::Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Table, D::Error> {
        deserializer.deserialize_map(TableVisitor)
    }
}

struct TableVisitor;

impl<'de> Visitor<'de> for TableVisitor {
    type Value = Table;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
        let (mut seen, mut lines) = (HashSet::new(), vec![]);
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format!("tensor {name} is there twice")));
            }
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
            } else {
                lines.push((name, map.next_value()?));
            }
        }
        Ok(Table(lines))
    }
}

/// Reads and checks the header of an open file.
pub(crate) fn read(path: &Path, file: &File) -> Result<Vec<Entry>, ModelError> {
    let damaged = |what: String| ModelError::damaged(path, what);
    let file_bytes = file.metadata().map_err(ModelError::read(path))?.len();
    if file_bytes < 8 {
        return Err(damaged(format!("{file_bytes} bytes are too few for a safetensors file")));
    }
    let mut length = [0u8; 8];
    file.read_exact_at(&mut length, 0).map_err(ModelError::read(path))?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > HEADER_BYTES_MAX {
        return Err(damaged(format!("header of {header_bytes} bytes, at most {HEADER_BYTES_MAX} are accepted")));
    }
    if header_bytes > file_bytes - 8 {
        return Err(damaged(format!("truncated: header of {header_bytes} bytes in a file of {file_bytes}")));
    }
    let mut header = vec![0u8; header_bytes as usize];
    file.read_exact_at(&mut header, 8).map_err(ModelError::read(path))?;
    parse(&header, file_bytes - 8 - header_bytes).map_err(damaged)
}

/// Checks the table against the bytes that follow it; offsets in the result count from the start of the file.
fn parse(header: &[u8], data_bytes: u64) -> Result<Vec<Entry>, String> {
    if header.first() != Some(&b'{') {
        return Err("the header does not start with {".to_owned());
    }
    let Table(lines) = serde_json::from_slice(header).map_err(|error| format!("header: {error}"))?;
    let mut entries = Vec::with_capacity(lines.len());
    for (name, line) in lines {
        let entry = measure(&name, line)?;
        entries.push(Entry { name, ..entry });
    }
    tile(&mut entries, data_bytes)?;
    let data_start = 8 + header.len() as u64;
    for entry in &mut entries {
        entry.start += data_start;
    }
    Ok(entries)
}

fn measure(name: &str, line: Line) -> Result<Entry, String> {
    let (dtype, bits) =
        Dtype::parse(&line.dtype).ok_or_else(|| format!("tensor {name}: unknown type {:?}", line.dtype))?;
    let (start, end) = line.data_offsets;
    let bytes = end.checked_sub(start).ok_or_else(|| format!("tensor {name}: it ends before it starts"))?;
    let elements = line.shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
    let wanted = elements.and_then(|elements| elements.checked_mul(bits)).filter(|bits| bits % 8 == 0);
    if wanted.map(|bits| bits / 8) != Some(bytes) {
        return Err(format!("tensor {name}: {} of shape {:?} cannot take {bytes} bytes", line.dtype, line.shape));
    }
    let shape = line.shape.iter().map(|size| *size as usize).collect();
    Ok(Entry { name: String::new(), dtype, shape, start, bytes })
}

/// The ranges must follow each other from the first byte to the last.
fn tile(entries: &mut [Entry], data_bytes: u64) -> Result<(), String> {
    entries.sort_by_key(|entry| (entry.start, entry.bytes));
    let mut reached = 0;
    for entry in entries.iter() {
        if entry.start != reached {
            let what = if entry.start < reached { "overlaps the one before it" } else { "leaves a hole before it" };
            return Err(format!("tensor {} {what}", entry.name));
        }
        reached += entry.bytes;
        if reached > data_bytes {
            return Err(format!("truncated: tensor {} ends at byte {reached} of {data_bytes}", entry.name));
        }
    }
    if reached != data_bytes {
        return Err(format!("{} bytes at the end belong to no tensor", data_bytes - reached));
    }
    Ok(())
}
