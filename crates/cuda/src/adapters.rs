//! Adapters on the device, kept while there is room, the longest unused given up first.

use crate::arguments::Share;
use crate::launcher::{Buffer, DeviceError, Launcher};
use crate::packing::{chunks, pack_narrow, pack_wide, wide_stride};
use model::{Adapter, LowRank, Plan};
use std::collections::HashMap;

/// The largest rank the kernels take.
pub const RANK_MAX: usize = 1024;

/// An adapter's place.
struct Resident {
    buffer: Buffer,
    /// Of its table, an entry per site.
    table: u64,
    /// Number of the step that used it last.
    used: u64,
}

/// The adapters of one device.
pub(crate) struct Adapters {
    resident: HashMap<[u8; 32], Resident>,
    bytes: usize,
    bytes_max: usize,
    step: u64,
}

/// Bytes an adapter takes on a device.
///
/// # Errors
/// It is beyond what the kernels take.
pub fn adapter_bytes(adapter: &Adapter) -> Result<usize, DeviceError> {
    let mut bytes = 0usize;
    for low_rank in adapter.sites.iter().flatten() {
        let (rank, inputs, outputs) = (check_rank(low_rank)?, low_rank.a.inputs(), low_rank.b.outputs());
        for piece in [rank.div_ceil(8) * 8 * chunks(inputs) * 64, rank * 4, outputs * wide_stride(rank), outputs * 4] {
            bytes = bytes.next_multiple_of(PIECE) + piece;
        }
    }
    Ok(bytes.next_multiple_of(PIECE) + adapter.sites.len() * size_of::<Share>())
}

fn check_rank(low_rank: &LowRank) -> Result<usize, DeviceError> {
    let rank = low_rank.a.outputs();
    if rank > RANK_MAX {
        let what =
            format!("an adapter of rank {rank}: the CUDA kernels take ranks up to {RANK_MAX}; serve it on the CPU");
        return Err(DeviceError::Unsupported(what));
    }
    Ok(rank)
}

/// Pieces of an adapter begin at multiples of this.
const PIECE: usize = 256;

/// Lays pieces out in one buffer.
#[derive(Default)]
struct Blob {
    bytes: Vec<u8>,
}

impl Blob {
    fn add(&mut self, piece: &[u8]) -> u64 {
        let at = self.bytes.len().next_multiple_of(PIECE);
        self.bytes.resize(at, 0);
        self.bytes.extend_from_slice(piece);
        at as u64
    }
}

impl Adapters {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Adapters { resident: HashMap::new(), bytes: 0, bytes_max, step: 0 }
    }

    /// Adapters on the device and their bytes.
    pub(crate) fn resident(&self) -> (usize, usize) {
        (self.resident.len(), self.bytes)
    }

    /// A new step begins: adapters it uses are not given up before the next.
    pub(crate) fn next_step(&mut self) {
        self.step += 1;
    }

    /// The address of an adapter's table, once it is on the device; it is copied there beside the work under way if not.
    pub(crate) fn table<L: Launcher>(&mut self, launcher: &mut L, adapter: &Adapter) -> Result<u64, DeviceError> {
        let step = self.step;
        if let Some(resident) = self.resident.get_mut(&adapter.digest) {
            resident.used = step;
            return Ok(resident.table);
        }
        let (mut blob, mut shares) = (Blob::default(), Vec::new());
        for site in &adapter.sites {
            shares.push(match site {
                Some(low_rank) => add_site(&mut blob, low_rank)?,
                None => Share::default(),
            });
        }
        if shares.is_empty() {
            return Err(DeviceError::Unsupported("an adapter that is made for no map".to_owned()));
        }
        self.insert(launcher, adapter.digest, blob, shares, true)
    }

    /// Registers adapters of meaningless integers, for measurements: of one rank on every map but the head. None is given
    /// up for another, as what stands for them cannot be copied again.
    pub(crate) fn insert_noise<L: Launcher>(
        &mut self,
        launcher: &mut L,
        plan: &Plan,
        digests: &[[u8; 32]],
        rank: usize,
    ) -> Result<(), DeviceError> {
        let (mut blob, mut shares) = (Blob::default(), Vec::new());
        let noise = |bytes: usize| (0..bytes).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<u8>>();
        for (i, site) in plan.sites.iter().enumerate() {
            if i == plan.head {
                shares.push(Share::default());
                continue;
            }
            let stride = wide_stride(rank);
            shares.push(Share {
                a: blob.add(&noise(rank.div_ceil(8) * 8 * chunks(site.inputs) * 64)),
                a_scale: blob.add(bytemuck::cast_slice(&vec![1e-5f32; rank])),
                b: blob.add(&noise(site.outputs * stride)),
                b_scale: blob.add(bytemuck::cast_slice(&vec![1e-5f32; site.outputs])),
                gain: 1.0,
                rank: rank as u32,
                stride: stride as u32,
                unused: 0,
            });
        }
        for digest in digests.iter().filter(|digest| !self.resident.contains_key(*digest)).copied().collect::<Vec<_>>()
        {
            self.insert(launcher, digest, Blob { bytes: blob.bytes.clone() }, shares.clone(), false)?;
        }
        Ok(())
    }

    /// Places a blob; `shares` hold offsets into it and become addresses. Others make room for it, or not.
    fn insert<L: Launcher>(
        &mut self,
        launcher: &mut L,
        digest: [u8; 32],
        mut blob: Blob,
        mut shares: Vec<Share>,
        evicting: bool,
    ) -> Result<u64, DeviceError> {
        let table = blob.add(bytemuck::cast_slice(&shares));
        let buffer = self.room(launcher, blob.bytes.len(), evicting)?;
        for share in shares.iter_mut().filter(|share| share.rank > 0) {
            for address in [&mut share.a, &mut share.a_scale, &mut share.b, &mut share.b_scale] {
                *address += buffer.address;
            }
        }
        blob.bytes[table as usize..][..size_of::<Share>() * shares.len()]
            .copy_from_slice(bytemuck::cast_slice(&shares));
        if let Err(error) = launcher.write_aside(buffer.address, &blob.bytes) {
            launcher.free(buffer);
            return Err(error);
        }
        self.bytes += buffer.bytes;
        let table = buffer.address + table;
        self.resident.insert(digest, Resident { buffer, table, used: self.step });
        Ok(table)
    }

    /// Memory for an adapter, when `evicting` at the cost of those that this step does not use.
    fn room<L: Launcher>(&mut self, launcher: &mut L, bytes: usize, evicting: bool) -> Result<Buffer, DeviceError> {
        loop {
            let full = self.bytes + bytes > self.bytes_max;
            if !full {
                match launcher.alloc(bytes) {
                    Err(DeviceError::Memory(_)) => {}
                    other => return other,
                }
            }
            let unused = self.resident.iter().filter(|entry| evicting && entry.1.used < self.step);
            let oldest = unused.min_by_key(|entry| entry.1.used);
            let Some(digest) = oldest.map(|entry| *entry.0) else { return Err(DeviceError::Memory(bytes)) };
            self.remove(launcher, &digest);
        }
    }

    /// Gives an adapter's memory back, if it is there.
    pub(crate) fn remove<L: Launcher>(&mut self, launcher: &mut L, digest: &[u8; 32]) {
        if let Some(resident) = self.resident.remove(digest) {
            self.bytes -= resident.buffer.bytes;
            launcher.free(resident.buffer);
        }
    }

    pub(crate) fn free<L: Launcher>(&mut self, launcher: &mut L) {
        self.resident.drain().for_each(|(_, resident)| launcher.free(resident.buffer));
        self.bytes = 0;
    }
}

fn add_site(blob: &mut Blob, low_rank: &LowRank) -> Result<Share, DeviceError> {
    let rank = check_rank(low_rank)?;
    Ok(Share {
        a: blob.add(bytemuck::cast_slice(&pack_narrow(&low_rank.a))),
        a_scale: blob.add(bytemuck::cast_slice(low_rank.a.scales())),
        b: blob.add(bytemuck::cast_slice(&pack_wide(&low_rank.b))),
        b_scale: blob.add(bytemuck::cast_slice(low_rank.b.scales())),
        gain: low_rank.gain,
        rank: rank as u32,
        stride: wide_stride(rank) as u32,
        unused: 0,
    })
}
