//! Tensors by name in a folder of safetensors files, read by ranges: no file is ever whole in memory.

use crate::header::{self, Dtype};
use crate::{ModelError, files, widen_half};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

/// Bytes read at once by [`Tensor::for_rows`], about.
const BLOCK_BYTES: usize = 1 << 20;

/// The tensors of a checkpoint or an adapter.
#[derive(Debug)]
pub struct Tensors {
    origin: PathBuf,
    shards: Vec<Shard>,
    entries: BTreeMap<String, Placed>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
}

#[derive(Debug)]
struct Placed {
    shard: usize,
    entry: header::Entry,
}

/// One tensor: where it lies and what it is.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    shard: &'a Shard,
    entry: &'a header::Entry,
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The safetensors files of a checkpoint's folder: `model.safetensors`, or those `model.safetensors.index.json` names.
///
/// # Errors
/// No such file, pickled weights instead, or an index that names files outside the folder.
pub fn shard_paths(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let single = folder.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    if !index_path(folder).is_file() {
        refuse_pickles(folder)?;
        let what = "no model.safetensors or model.safetensors.index.json: is this a checkpoint's folder?";
        return Err(ModelError::damaged(folder, what));
    }
    let mut names: Vec<String> = read_index(folder)?.into_values().collect();
    names.sort();
    names.dedup();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

fn index_path(folder: &Path) -> PathBuf {
    folder.join("model.safetensors.index.json")
}

fn read_index(folder: &Path) -> Result<BTreeMap<String, String>, ModelError> {
    let path = index_path(folder);
    let text = std::fs::read(&path).map_err(ModelError::read(&path))?;
    let index: Index =
        serde_json::from_slice(&text).map_err(|source| ModelError::Json { path: path.clone(), source })?;
    for (tensor, shard) in &index.weight_map {
        let mut parts = Path::new(shard).components();
        let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
        if !plain || shard.contains('\\') || !shard.ends_with(".safetensors") {
            let what = format!("file {shard:?} is not a plain name ending in .safetensors");
            return Err(ModelError::tensor(&path, tensor, what));
        }
    }
    if index.weight_map.is_empty() {
        return Err(ModelError::damaged(&path, "weight_map is empty"));
    }
    Ok(index.weight_map)
}

/// Refuses a folder whose weights are pickled: such files run code when they are read.
fn refuse_pickles(folder: &Path) -> Result<(), ModelError> {
    let entries = std::fs::read_dir(folder).map_err(ModelError::read(folder))?;
    for entry in entries {
        let path = entry.map_err(ModelError::read(folder))?.path();
        if path.extension().is_some_and(|e| ["bin", "pt", "pth", "ckpt", "pkl"].iter().any(|pickle| e == *pickle)) {
            let advice = "pickled weights can run code; convert them to safetensors (save_pretrained in transformers)";
            return Err(ModelError::unsupported(&path, "a pickle file", advice));
        }
    }
    Ok(())
}

impl Tensors {
    /// Opens a checkpoint's folder.
    ///
    /// # Errors
    /// See [`shard_paths`]; a damaged header; a tensor in two files, or not in the file the index names.
    pub fn open(folder: &Path) -> Result<Tensors, ModelError> {
        let mut tensors = Tensors { origin: folder.to_owned(), shards: vec![], entries: BTreeMap::new() };
        for path in shard_paths(folder)? {
            tensors.add(path)?;
        }
        if tensors.shards.len() > 1 || !folder.join("model.safetensors").is_file() {
            tensors.check_index(&read_index(folder)?)?;
        }
        Ok(tensors)
    }

    /// Opens one safetensors file.
    ///
    /// # Errors
    /// No such file (with advice if a pickle lies in its place), or a damaged header.
    pub fn open_file(path: &Path) -> Result<Tensors, ModelError> {
        if let (false, Some(folder)) = (path.exists(), path.parent().filter(|folder| folder.is_dir())) {
            refuse_pickles(folder)?;
        }
        let mut tensors = Tensors { origin: path.to_owned(), shards: vec![], entries: BTreeMap::new() };
        tensors.add(path.to_owned())?;
        Ok(tensors)
    }

    fn add(&mut self, path: PathBuf) -> Result<(), ModelError> {
        let file = files::open(&path)?;
        for entry in header::read(&path, &file)? {
            let placed = Placed { shard: self.shards.len(), entry };
            if let Some(first) = self.entries.get(&placed.entry.name) {
                let what = format!("it is also in {}", self.shards[first.shard].path.display());
                return Err(ModelError::tensor(&path, &placed.entry.name, what));
            }
            self.entries.insert(placed.entry.name.clone(), placed);
        }
        self.shards.push(Shard { path, file });
        Ok(())
    }

    fn check_index(&self, index: &BTreeMap<String, String>) -> Result<(), ModelError> {
        for (name, shard) in index {
            let path = self.origin.join(shard);
            match self.entries.get(name) {
                Some(placed) if self.shards[placed.shard].path == path => {}
                _ => {
                    let what = "the index says it is here; download the file again";
                    return Err(ModelError::missing(&path, name, what));
                }
            }
        }
        Ok(())
    }

    /// Where they were opened.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<Tensor<'_>> {
        let placed = self.entries.get(name)?;
        Some(Tensor { shard: &self.shards[placed.shard], entry: &placed.entry })
    }

    /// Whether any tensor is of bytes with a sign.
    pub(crate) fn hold_integers(&self) -> bool {
        self.entries.values().any(|placed| placed.entry.dtype == Dtype::I8)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }
}

impl<'a> Tensor<'a> {
    /// Its name.
    pub fn name(&self) -> &'a str {
        &self.entry.name
    }

    /// What its elements are.
    pub fn dtype(&self) -> Dtype {
        self.entry.dtype
    }

    /// Its dimensions.
    pub fn shape(&self) -> &'a [usize] {
        &self.entry.shape
    }

    /// Bytes it takes in its file.
    pub fn bytes(&self) -> u64 {
        self.entry.bytes
    }

    /// The file it is in.
    pub(crate) fn path(&self) -> &'a Path {
        &self.shard.path
    }

    /// An error about this tensor.
    pub(crate) fn error(&self, what: impl Into<String>) -> ModelError {
        ModelError::tensor(&self.shard.path, &self.entry.name, what)
    }

    /// Checks that it is a float tensor of this shape.
    pub(crate) fn expect_floats(&self, shape: &[usize]) -> Result<(), ModelError> {
        if !self.dtype().is_float() {
            let what = format!("its type is {}, BF16, F16 or F32 is needed", self.dtype().name());
            return Err(self.error(what));
        }
        self.expect_shape(shape)
    }

    /// Checks its shape alone.
    pub(crate) fn expect_shape(&self, shape: &[usize]) -> Result<(), ModelError> {
        if self.shape() != shape {
            let what = format!("its shape is {:?}, config.json asks for {shape:?}", self.shape());
            return Err(self.error(what));
        }
        Ok(())
    }

    /// Hands over the bytes of consecutive rows of `columns` elements: number of the first row, bytes of whole rows.
    pub(crate) fn for_row_bytes(
        &self,
        columns: usize,
        mut take: impl FnMut(usize, &[u8]) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let row_bytes = columns * self.dtype().bytes();
        if row_bytes == 0 || self.bytes() == 0 {
            return Ok(());
        }
        let rows = (self.bytes() / row_bytes as u64) as usize;
        let rows_at_once = (BLOCK_BYTES / row_bytes).clamp(1, rows.max(1));
        let mut buffer = vec![0u8; rows_at_once * row_bytes];
        for first in (0..rows).step_by(rows_at_once) {
            let count = rows_at_once.min(rows - first);
            self.read_at(first * row_bytes..(first + count) * row_bytes, &mut buffer[..count * row_bytes])?;
            take(first, &buffer[..count * row_bytes])?;
        }
        Ok(())
    }

    /// Hands over every row of `columns` elements, widened to binary32, with its number; the row may be changed.
    pub(crate) fn for_rows(
        &self,
        columns: usize,
        mut take: impl FnMut(usize, &mut [f32]) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let mut row = vec![0f32; columns];
        self.for_row_bytes(columns, |first, bytes| {
            for (i, bytes) in bytes.chunks_exact(columns * self.dtype().bytes()).enumerate() {
                widen(self.dtype(), bytes, &mut row);
                take(first + i, &mut row)?;
            }
            Ok(())
        })
    }

    /// All elements, widened to binary32, each of them finite.
    pub(crate) fn floats(&self) -> Result<Vec<f32>, ModelError> {
        let mut all = Vec::with_capacity((self.bytes() / self.dtype().bytes().max(1) as u64) as usize);
        self.for_rows(1, |element, value| {
            if !value[0].is_finite() {
                return Err(self.error(format!("element {element} is infinite or not a number")));
            }
            all.push(value[0]);
            Ok(())
        })?;
        Ok(all)
    }

    fn read_at(&self, range: Range<usize>, out: &mut [u8]) -> Result<(), ModelError> {
        let start = self.entry.start + range.start as u64;
        self.shard.file.read_exact_at(out, start).map_err(ModelError::read(&self.shard.path))
    }
}

fn widen(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        Dtype::Bf16 => {
            for (out, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *out = f32::from_bits(u32::from(u16::from_le_bytes([pair[0], pair[1]])) << 16);
            }
        }
        Dtype::F16 => {
            for (out, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *out = widen_half(u16::from_le_bytes([pair[0], pair[1]]));
            }
        }
        Dtype::F32 => {
            for (out, four) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                *out = f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
            }
        }
        Dtype::I8 => {
            for (out, byte) in out.iter_mut().zip(bytes) {
                *out = f32::from(*byte as i8);
            }
        }
        Dtype::Other(_) => {}
    }
}
