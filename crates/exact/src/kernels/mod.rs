//! The integer product kernels, one file an instruction set, and the macro that compiles element-wise code for each.
//!
//! Element-wise code is written once, in plain Rust with explicit `mul_add`, and compiled for every instruction set:
//! Rust never contracts, re-associates or approximates floating point, so all versions give the same bits.
//! Products of integers are exact, so each instruction set may order them as it likes.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod dots;
#[cfg(target_arch = "x86_64")]
mod narrow;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod spread;
#[cfg(target_arch = "x86_64")]
mod transpose;

use crate::hash::Block;
use crate::isa::{Isa, Level};
use crate::quantise::{CHUNK, CHUNK_STRIDE, TILE_ROWS};
#[cfg(target_arch = "x86_64")]
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;

/// Compiles a function marked `#[inline(always)]` once per instruction set and dispatches on its first argument.
macro_rules! versions {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path;) => {
        $(#[$doc])*
        #[expect(clippy::too_many_arguments, clippy::allow_attributes, reason = "kernel signatures are flat")]
        #[allow(unfulfilled_lint_expectations, reason = "only some have many arguments")]
        $vis fn $name(isa: $crate::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) $(-> $ret)? { $body($($arg),*) }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512($($arg: $ty),*) $(-> $ret)? { $body($($arg),*) }
            match isa.level() {
                #[cfg(target_arch = "x86_64")]
                #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
                // SAFETY: an Isa of this level exists only where the processor has these instructions.
                $crate::isa::Level::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
                // SAFETY: as above.
                $crate::isa::Level::Avx512 | $crate::isa::Level::Amx => unsafe { avx512($($arg),*) },
                // The reference; on Arm all of it is compiled for NEON.
                _ => $body($($arg),*),
            }
        }
    };
}
pub(crate) use versions;

#[cfg(target_arch = "x86_64")]
pub(crate) use amx::permitted as amx_permitted;

/// Rows a [`Panel`] holds at most.
pub(crate) const PANEL_ROWS: usize = 32;
/// Columns a [`Panel`] holds at most.
pub(crate) const PANEL_COLUMNS: usize = 64;

/// 32-bit sums of one kernel call: `[plane][row][column]` with a fixed stride.
#[repr(C, align(64))]
pub(crate) struct Panel(pub [[[i32; PANEL_COLUMNS]; PANEL_ROWS]; 2]);

impl Panel {
    pub(crate) fn zeroed() -> Box<Panel> {
        Box::new(Panel([[[0; PANEL_COLUMNS]; PANEL_ROWS]; 2]))
    }
}

/// The left side of a product: rows of digits (128 added) in the layout of [`crate::quantise::Quantised`].
/// `bytes` starts at the first row's first digit; if there is more than one tile of rows, the first row must be the
/// first of its tile.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a> {
    pub bytes: &'a [u8],
    pub rows: usize,
    pub planes: usize,
    pub plane_stride: usize,
    pub tile_stride: usize,
}

impl Left<'_> {
    fn check(&self, groups: usize) {
        assert!(groups >= 1, "a product of no inputs");
        assert!(self.rows >= 1 && self.rows <= PANEL_ROWS && (self.planes == 1 || self.planes == 2));
        let (tile, row) = ((self.rows - 1) / TILE_ROWS, (self.rows - 1) % TILE_ROWS);
        let chunks = groups.div_ceil(CHUNK / 4);
        let end = tile * self.tile_stride
            + (self.planes - 1) * self.plane_stride
            + row * CHUNK
            + (chunks - 1) * CHUNK_STRIDE
            + CHUNK;
        assert!(end <= self.bytes.len(), "rows reach past their buffer");
    }

    /// Tiles of up to sixteen rows: (first row, rows, bytes from there).
    fn tiles(&self) -> impl Iterator<Item = (usize, usize, &[u8])> {
        (0..self.rows.div_ceil(TILE_ROWS)).map(|tile| {
            let rows = (self.rows - tile * TILE_ROWS).min(TILE_ROWS);
            (tile * TILE_ROWS, rows, &self.bytes[tile * self.tile_stride..])
        })
    }
}

/// The right side: `blocks` blocks of sixteen columns in the layout of [`crate::matrix::Matrix`], `groups` groups of
/// four inputs each.
#[derive(Clone, Copy)]
pub(crate) struct Right<'a> {
    pub packed: &'a [i8],
    pub blocks: usize,
    pub groups: usize,
    pub ahead: Ahead<'a>,
}

/// What memory is asked for while a product runs.
#[derive(Clone, Copy)]
pub(crate) enum Ahead<'a> {
    /// These very weights, which come from memory for one call. With `more`, the next call takes as many blocks right after
    /// them, whose beginnings may be asked for near the end of these.
    These {
        #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "asked for by x86 kernels alone"))]
        more: bool,
    },
    /// Weights that calls to come will multiply; these are in the cache already.
    Soon(&'a [i8]),
}

impl<'a> Right<'a> {
    fn soon(&self) -> Option<&'a [i8]> {
        if let Ahead::Soon(soon) = self.ahead { Some(soon) } else { None }
    }

    #[cfg(target_arch = "x86_64")]
    fn more(&self) -> bool {
        matches!(self.ahead, Ahead::These { more: true })
    }
}

/// Multiplies with one instruction set. Tiles are configured at the first product that needs them and released in the
/// end, because configuring takes as long as multiplying four of them. One a thread at a time: the end of one takes the
/// tiles from all.
pub(crate) struct Multiplier {
    isa: Isa,
    #[cfg(target_arch = "x86_64")]
    tiles: Cell<bool>,
    /// The tiles are a thread's own.
    thread: PhantomData<*const ()>,
}

impl Multiplier {
    pub(crate) fn new(isa: Isa) -> Self {
        Multiplier {
            isa,
            #[cfg(target_arch = "x86_64")]
            tiles: Cell::new(false),
            thread: PhantomData,
        }
    }

    /// `panel[plane][row][column] = Σ (left + 128) · right`, modulo 2³², for every plane, row and column.
    #[inline]
    pub(crate) fn products(&self, left: Left<'_>, right: Right<'_>, panel: &mut Panel) {
        left.check(right.groups);
        assert!(right.blocks * 16 <= PANEL_COLUMNS && right.blocks * right.groups * 64 <= right.packed.len());
        match self.isa.level() {
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
            // SAFETY: the processor has the instructions (an Isa of this level exists); bounds were checked above.
            Level::Avx2 => unsafe { avx2::products(left, right, panel) },
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
            // SAFETY: as above.
            Level::Avx512 => unsafe { avx512::products(left, right, panel) },
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
            // SAFETY: as above; AMX takes whole tiles of sixteen rows, which its own check makes sure of, and the
            // tiles are configured first.
            Level::Amx => unsafe {
                if amx::suits(left, right) {
                    if !self.tiles.replace(true) {
                        amx::configure();
                    }
                    amx::products(left, right, panel);
                } else {
                    avx512::products(left, right, panel);
                }
            },
            #[cfg(target_arch = "aarch64")]
            #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
            // SAFETY: the processor has the instructions (an Isa of this level exists); bounds were checked above.
            Level::Neon => unsafe { neon::plain::products(left, right, panel) },
            #[cfg(target_arch = "aarch64")]
            #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
            // SAFETY: the processor has the instructions (an Isa of this level exists); bounds were checked above.
            Level::Dotprod => unsafe { neon::dotprod::products(left, right, panel) },
            _ => scalar::products(left, right, panel),
        }
    }
}

impl Drop for Multiplier {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        if self.tiles.get() {
            #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
            // SAFETY: only where `products` configured them.
            unsafe {
                amx::release();
            }
        }
    }
}

/// `sums[i] = Σ (left + 128) · rows[i]`, modulo 2³²; `left` is one row of one plane, chunks of 64 bytes a
/// [`CHUNK_STRIDE`] apart; `rows` are `sums.len()` rows of `stride` bytes, a multiple of 64.
#[inline]
pub(crate) fn row_products(isa: Isa, left: &[u8], rows: &[i8], stride: usize, sums: &mut [i32]) {
    assert!(stride.is_multiple_of(CHUNK) && sums.len() * stride <= rows.len());
    assert!(stride == 0 || (stride / CHUNK - 1) * CHUNK_STRIDE + CHUNK <= left.len());
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
        // SAFETY: the processor has the instructions (an Isa of this level exists); bounds were checked above.
        Level::Avx2 => unsafe { avx2::row_products(left, rows, stride, sums) },
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
        // SAFETY: as above.
        Level::Avx512 | Level::Amx => unsafe { avx512::row_products(left, rows, stride, sums) },
        #[cfg(target_arch = "aarch64")]
        #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
        // SAFETY: the processor has the instructions (an Isa of this level exists); bounds were checked above.
        Level::Neon => unsafe { neon::plain::row_products(left, rows, stride, sums) },
        #[cfg(target_arch = "aarch64")]
        #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
        // SAFETY: the processor has the instructions (an Isa of this level exists); bounds were checked above.
        Level::Dotprod => unsafe { neon::dotprod::row_products(left, rows, stride, sums) },
        _ => scalar::row_products(left, rows, stride, sums),
    }
}

/// One row of 16-bit digits and the columns of a narrow map: see [`add_narrow`].
#[derive(Clone, Copy)]
pub(crate) struct Narrow<'a> {
    pub high: &'a [u8],
    pub low: &'a [u8],
    pub groups: usize,
    pub packed: &'a [i8],
    pub scales: &'a [f32],
}

/// Whether [`add_narrow`] serves a map of so many groups of inputs: one chunk of digits.
pub(crate) fn narrow_suits(isa: Isa, groups: usize) -> bool {
    !matches!(isa.level(), Level::Scalar | Level::Avx2) && groups <= CHUNK / 4
}

/// `y[n] = fma(product, gain, y[n])`, the product as the panels' epilogue computes it.
#[inline]
pub(crate) fn add_narrow(isa: Isa, narrow: Narrow<'_>, scale: f32, gain: f32, y: &mut [f32]) {
    let columns = y.len().next_multiple_of(16);
    assert!(narrow_suits(isa, narrow.groups) && narrow.high.len().min(narrow.low.len()) >= 4 * narrow.groups);
    assert!(narrow.packed.len() >= columns * 4 * narrow.groups);
    assert!(narrow.scales.len() >= columns);
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
        // SAFETY: the processor has the instructions (an Isa of this level exists); bounds were checked above.
        Level::Avx512 | Level::Amx => unsafe { narrow::add_512(narrow, scale, gain, y) },
        #[cfg(target_arch = "aarch64")]
        #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
        // SAFETY: as above.
        Level::Neon => unsafe { neon::plain::add_narrow(narrow, scale, gain, y) },
        #[cfg(target_arch = "aarch64")]
        #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
        // SAFETY: as above.
        Level::Dotprod => unsafe { neon::dotprod::add_narrow(narrow, scale, gain, y) },
        _ => unreachable!("narrow_suits allows the levels above"),
    }
}

/// Asks memory for bytes that will be needed soon, into the second-level cache.
#[inline]
pub(crate) fn fetch(bytes: &[i8]) {
    // The last byte may be in a line of its own.
    for line in bytes.chunks(64).chain(bytes.last_chunk::<1>().map(<[i8; 1]>::as_slice)) {
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "prefetches have no safe form")]
        // SAFETY: a prefetch touches nothing.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(line.as_ptr());
        }
        #[cfg(target_arch = "aarch64")]
        #[expect(unsafe_code, reason = "prefetches have no safe form")]
        // SAFETY: as above.
        unsafe {
            std::arch::asm!("prfm pldl2keep, [{at}]", at = in(reg) line.as_ptr(), options(readonly, nostack, preserves_flags));
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = line;
    }
}

/// Walsh–Hadamard transform of blocks of `block` values, a power of two that divides the length: additions in the order
/// of the plain loops.
#[inline]
pub(crate) fn spread(isa: Isa, values: &mut [f32], block: usize) {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
        // SAFETY: an Isa of this level exists only where the processor has these instructions.
        Level::Avx2 if block >= 8 => unsafe { spread::avx2(values, block) },
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
        // SAFETY: as above.
        Level::Avx512 | Level::Amx if block >= 16 => unsafe { spread::avx512(values, block) },
        _ => scalar::spread(values, block),
    }
}

/// Words of a part of each of `count` messages, `stride` bytes apart: word j of message i becomes lane i of word j of a block.
/// Zeros follow the part's end; lanes beyond the messages mean nothing.
#[inline]
pub(crate) fn transpose(
    isa: Isa,
    messages: &[u8],
    stride: usize,
    count: usize,
    part: Range<usize>,
    blocks: &mut [Block],
) {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
        // SAFETY: an Isa of this level exists only where the processor has these instructions.
        Level::Avx512 | Level::Amx => unsafe { transpose::avx512(messages, stride, count, part, blocks) },
        _ => scalar::transpose(messages, stride, count, part, blocks),
    }
}

/// Digits of an element of the field that light checks are made in, 16 bits each.
pub(crate) const DOT_DIGITS: usize = 4;
/// Elements whose digits lie together.
pub(crate) const DOT_LANES: usize = 32;
/// The most inputs that [`dots`] takes: pairs of their products, 2²³ each at most, stay below 2³¹ in every lane.
pub(crate) const DOT_INPUTS: usize = 2048;
/// The lowest digits of some elements, their next, and so on.
pub(crate) type DigitBlock = [[i16; DOT_LANES]; DOT_DIGITS];

/// For each digit the sum of all times `x`, whose magnitudes are at most 128.
#[inline]
pub(crate) fn dots(isa: Isa, digits: &[DigitBlock], x: &[[i16; DOT_LANES]], sums: &mut [i64; DOT_DIGITS]) {
    assert!(digits.len() == x.len() && x.len() * DOT_LANES <= DOT_INPUTS);
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
        // SAFETY: an Isa of this level exists only where the processor has these instructions.
        Level::Avx2 => unsafe { dots::avx2(digits, x, sums) },
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
        // SAFETY: as above.
        Level::Avx512 | Level::Amx => unsafe { dots::avx512(digits, x, sums) },
        _ => scalar::dots(digits, x, sums),
    }
}

/// Runs products on registers alone for some microseconds; gives how many operations that was.
pub(crate) fn saturate(isa: Isa) -> f64 {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
        // SAFETY: the processor has the instructions (an Isa of this level exists).
        Level::Avx2 => unsafe { avx2::saturate() },
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
        // SAFETY: as above.
        Level::Avx512 => unsafe { avx512::saturate() },
        #[cfg(target_arch = "x86_64")]
        Level::Amx => amx::saturate(),
        #[cfg(target_arch = "aarch64")]
        #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
        // SAFETY: the processor has the instructions (an Isa of this level exists).
        Level::Neon => unsafe { neon::plain::saturate() },
        #[cfg(target_arch = "aarch64")]
        #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
        // SAFETY: the processor has the instructions (an Isa of this level exists).
        Level::Dotprod => unsafe { neon::dotprod::saturate() },
        _ => scalar::saturate(),
    }
}

/// 128 times the sum of a row: what the 128 added to each input digit contributes to a product.
pub(crate) fn offset_of(levels: &[i8]) -> i32 {
    levels.iter().fold(0i32, |sum, w| sum.wrapping_add(i32::from(*w))).wrapping_mul(128)
}

/// [`offset_of`] for the sixteen columns of a packed block.
pub(crate) fn column_sums(block: &[i8], offsets: &mut [i32]) {
    offsets.fill(0);
    for group in block.chunks_exact(64) {
        for (column, four) in group.chunks_exact(4).enumerate() {
            let sum: i32 = four.iter().map(|w| i32::from(*w)).sum();
            offsets[column] = offsets[column].wrapping_add(sum.wrapping_mul(128));
        }
    }
}
