//! Products with AMX: tiles of 16 rows × 64 bytes, 16,384 byte products an instruction. `tdpbusd` takes unsigned inputs
//! (128 added) and signed weights into 32-bit sums that wrap, so any order is exact.
//!
//! The tile instructions have no stable intrinsics, hence the assembly. The compiler knows nothing of tiles and never
//! touches them, so a configuration holds from [`configure`] to [`release`] on one thread.
#![expect(unsafe_code, reason = "kernel: assembly whose bounds the dispatcher checked")]

use super::{Left, PANEL_COLUMNS, Panel, Right};
use crate::quantise::{CHUNK_STRIDE, TILE_ROWS};
use std::arch::asm;

/// Whether the processor has AMX int8 and the operating system lets this process use it.
pub(crate) fn permitted() -> bool {
    let features = std::arch::x86_64::__cpuid_count(7, 0).edx;
    let (amx_tile, amx_int8) = (features >> 24 & 1 == 1, features >> 25 & 1 == 1);
    amx_tile && amx_int8 && request_tiles()
}

#[cfg(target_os = "linux")]
fn request_tiles() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: asks the kernel to let this process use the tile registers; touches no memory.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn request_tiles() -> bool {
    false
}

/// Prefetches of the sixteen lines of a tile, `$ahead` bytes past a register.
macro_rules! prefetch_tile {
    ($hint:literal, $register:literal, $ahead:literal) => {
        concat!(
            ".irp line,0,64,128,192,256,320,384,448,512,576,640,704,768,832,896,960\n",
            $hint,
            " [{",
            $register,
            "} + ",
            $ahead,
            " + \\line]\n",
            ".endr"
        )
    };
}

/// Bytes fetched from memory during one round of [`pair_loop`].
const SOON_BYTES: usize = 256;

/// Two left tiles times two blocks, with instructions that fetch between.
macro_rules! pair_loop {
    ([$($early:expr),*], [$($late:expr),*], ($a:ident, $b:ident, $first:ident, $second:ident, $chunks:ident,
        $out_a:ident, $out_b:ident), $($operands:tt)*) => {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a} + {row}]",
            "tileloadd tmm6, [{first} + {row}]",
            $($early,)*
            "tdpbusd tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{second} + {row}]",
            "tdpbusd tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{b} + {row}]",
            $($late,)*
            "tdpbusd tmm2, tmm5, tmm6",
            "tdpbusd tmm3, tmm5, tmm7",
            "add {a}, 1024", "add {b}, 1024", "add {first}, 1024", "add {second}, 1024",
            "dec {chunks}",
            "jnz 2b",
            "tilestored [{out_a} + {panel}], tmm0",
            "tilestored [{out_a} + {panel} + 64], tmm1",
            "tilestored [{out_b} + {panel}], tmm2",
            "tilestored [{out_b} + {panel} + 64], tmm3",
            row = in(reg) 64usize,
            panel = in(reg) PANEL_COLUMNS * 4,
            a = inout(reg) $a => _,
            b = inout(reg) $b => _,
            first = inout(reg) $first => _,
            second = inout(reg) $second => _,
            chunks = inout(reg) $chunks => _,
            out_a = in(reg) $out_a,
            out_b = in(reg) $out_b,
            $($operands)*
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

#[repr(C, align(64))]
struct TileConfig([u8; 64]);

/// Palette 1, eight tiles of 16 rows × 64 bytes.
static CONFIG: TileConfig = {
    let mut config = [0u8; 64];
    config[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        config[16 + 2 * tile] = 64;
        config[48 + tile] = 16;
        tile += 1;
    }
    TileConfig(config)
};

/// Gives this thread the tiles.
///
/// # Safety
/// The processor has tiles and this process may use them.
pub(super) unsafe fn configure() {
    // SAFETY: reads the configuration alone.
    unsafe { asm!("ldtilecfg [{}]", in(reg) CONFIG.0.as_ptr(), options(nostack, readonly)) }
}

/// Gives the tiles back, which makes switching threads cheap again.
///
/// # Safety
/// As for [`configure`].
pub(super) unsafe fn release() {
    // SAFETY: touches no memory.
    unsafe { asm!("tilerelease", options(nostack, nomem)) }
}

/// Whether tiles serve this product: whole chunks of inputs, whole tiles readable, and rows enough to be worth it.
pub(super) fn suits(left: Left<'_>, right: Right<'_>) -> bool {
    let chunks = right.groups / 16;
    let tiles = left.rows.div_ceil(TILE_ROWS);
    let readable = (tiles - 1) * left.tile_stride + (left.planes - 1) * left.plane_stride + chunks * CHUNK_STRIDE;
    right.groups.is_multiple_of(16) && left.rows * left.planes >= 6 && readable <= left.bytes.len()
}

/// # Safety
/// The bounds that `Multiplier::products` checks, `suits`, and configured tiles; so for all below.
pub(super) unsafe fn products(left: Left<'_>, right: Right<'_>, panel: &mut Panel) {
    let chunks = right.groups / 16;
    let stride = right.groups * 64;
    let tiles = left.rows.div_ceil(TILE_ROWS);
    // Pairs of left tiles that share the weights: the two planes of a tile, or two tiles of rows.
    let plane = |tile: usize, plane: usize| tile * left.tile_stride + plane * left.plane_stride;
    // SAFETY: blocks and tiles lie within their buffers; the panel holds 32 rows and 64 columns of each plane.
    unsafe {
        let x = left.bytes.as_ptr();
        // One tile of rows reads weights faster than it multiplies: four blocks at a time keep more reads under way.
        let four = left.planes == 1 && tiles == 1 && right.blocks == 4;
        let mut soon = right.soon();
        for block in (0..right.blocks).step_by(if four { 4 } else { 2 }) {
            let weights = right.packed.as_ptr().add(block * stride);
            let second = (block + 1 < right.blocks).then(|| weights.add(stride));
            let mut out =
                |p: usize, tile: usize| panel.0[p][tile * TILE_ROWS..].as_mut_ptr().cast::<i32>().add(block * 16);
            if left.planes == 2 {
                for tile in 0..tiles {
                    let (a, b) = (x.add(plane(tile, 0)), x.add(plane(tile, 1)));
                    pair(a, b, weights, second, chunks, out(0, tile), out(1, tile), &mut soon);
                }
            } else {
                for tile in (0..tiles).step_by(2) {
                    let a = x.add(plane(tile, 0));
                    if tile + 1 < tiles {
                        let b = x.add(plane(tile + 1, 0));
                        pair(a, b, weights, second, chunks, out(0, tile), out(0, tile + 1), &mut soon);
                    } else if four {
                        single_four(a, weights, stride, chunks, right.more(), out(0, tile));
                    } else {
                        single(a, weights, second, chunks, out(0, tile));
                    }
                }
            }
        }
    }
}

/// Two left tiles times one or two blocks, taking from `soon` what was fetched meanwhile.
///
/// # Safety
/// `chunks` tiles readable at each input, a panel tile writable at each output.
#[expect(clippy::too_many_arguments, reason = "kernel signatures are flat")]
unsafe fn pair(
    a: *const u8,
    b: *const u8,
    first: *const i8,
    second: Option<*const i8>,
    chunks: usize,
    out_a: *mut i32,
    out_b: *mut i32,
    soon: &mut Option<&[i8]>,
) {
    let Some(second) = second else {
        // SAFETY: the caller's.
        unsafe {
            single(a, first, None, chunks, out_a);
            single(b, first, None, chunks, out_b);
        }
        return;
    };
    // SAFETY: reads and writes only what the caller vouches for; prefetches touch nothing.
    unsafe {
        match soon {
            Some(soon) => {
                let bytes = soon.len().min(chunks * SOON_BYTES);
                let (fetched, rest) = soon.split_at(bytes);
                // What does not fill the loop is fetched not at all, and the same lines again and again instead.
                let step = if bytes == chunks * SOON_BYTES { SOON_BYTES } else { 0 };
                let soon_at = if step == 0 { first } else { fetched.as_ptr() };
                *soon = rest;
                pair_loop!(
                    ["prefetcht1 [{soon}]", "prefetcht1 [{soon} + 64]"],
                    ["prefetcht1 [{soon} + 128]", "prefetcht1 [{soon} + 192]", "add {soon}, {step}"],
                    (a, b, first, second, chunks, out_a, out_b),
                    soon = inout(reg) soon_at => _, step = in(reg) step,
                );
            }
            None => pair_loop!(
                [prefetch_tile!("prefetcht0", "first", "4096")],
                [prefetch_tile!("prefetcht0", "second", "4096")],
                (a, b, first, second, chunks, out_a, out_b),
            ),
        }
    }
}

/// How far ahead weights are asked for, in chunks of a block.
const AHEAD: usize = 3;

/// One left tile times four blocks, `stride` bytes apart; with `more`, the next call takes the four after them, whose
/// beginnings are asked for at the end of these.
///
/// # Safety
/// As for `pair`.
unsafe fn single_four(a: *const u8, first: *const i8, stride: usize, chunks: usize, more: bool, out: *mut i32) {
    let ahead = AHEAD * 1024;
    // SAFETY: reads and writes only what the caller vouches for; prefetches touch nothing.
    unsafe {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "2:",
            "cmp {chunks}, {near}",
            "cmove {ahead}, {jump}",
            "tileloadd tmm4, [{a} + {row}]",
            "tileloadd tmm5, [{first} + {row}]",
            prefetch_tile!("prefetcht0", "first", "{ahead}"),
            "tileloadd tmm6, [{second} + {row}]",
            prefetch_tile!("prefetcht0", "second", "{ahead}"),
            "tdpbusd tmm0, tmm4, tmm5",
            "tileloadd tmm7, [{third} + {row}]",
            prefetch_tile!("prefetcht0", "third", "{ahead}"),
            "tdpbusd tmm1, tmm4, tmm6",
            "tileloadd tmm5, [{fourth} + {row}]",
            prefetch_tile!("prefetcht0", "fourth", "{ahead}"),
            "tdpbusd tmm2, tmm4, tmm7",
            "tdpbusd tmm3, tmm4, tmm5",
            "add {a}, 1024", "add {first}, 1024", "add {second}, 1024", "add {third}, 1024", "add {fourth}, 1024",
            "dec {chunks}",
            "jnz 2b",
            "tilestored [{out} + {panel}], tmm0",
            "tilestored [{out} + {panel} + 64], tmm1",
            "tilestored [{out} + {panel} + 128], tmm2",
            "tilestored [{out} + {panel} + 192], tmm3",
            row = in(reg) 64usize,
            panel = in(reg) PANEL_COLUMNS * 4,
            a = inout(reg) a => _,
            first = inout(reg) first => _,
            second = inout(reg) first.add(stride) => _,
            third = inout(reg) first.add(2 * stride) => _,
            fourth = inout(reg) first.add(3 * stride) => _,
            chunks = inout(reg) chunks => _,
            ahead = inout(reg) ahead => _,
            near = const AHEAD,
            jump = in(reg) if more { ahead + 3 * stride } else { ahead },
            out = in(reg) out,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// One left tile times one or two blocks.
///
/// # Safety
/// As for `pair`.
unsafe fn single(a: *const u8, first: *const i8, second: Option<*const i8>, chunks: usize, out: *mut i32) {
    // SAFETY: reads and writes only what the caller vouches for.
    unsafe {
        match second {
            Some(second) => asm!(
                "tilezero tmm0", "tilezero tmm1",
                "2:",
                "tileloadd tmm4, [{a} + {row}]",
                "tileloadd tmm6, [{first} + {row}]",
                prefetch_tile!("prefetcht0", "first", "8192"),
                "tileloadd tmm7, [{second} + {row}]",
                prefetch_tile!("prefetcht0", "second", "8192"),
                "tdpbusd tmm0, tmm4, tmm6",
                "tdpbusd tmm1, tmm4, tmm7",
                "add {a}, 1024", "add {first}, 1024", "add {second}, 1024",
                "dec {chunks}",
                "jnz 2b",
                "tilestored [{out} + {panel}], tmm0",
                "tilestored [{out} + {panel} + 64], tmm1",
                row = in(reg) 64usize,
                panel = in(reg) PANEL_COLUMNS * 4,
                a = inout(reg) a => _,
                first = inout(reg) first => _,
                second = inout(reg) second => _,
                chunks = inout(reg) chunks => _,
                out = in(reg) out,
                out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            ),
            None => asm!(
                "tilezero tmm0",
                "2:",
                "tileloadd tmm4, [{a} + {row}]",
                "tileloadd tmm6, [{first} + {row}]",
                "tdpbusd tmm0, tmm4, tmm6",
                "add {a}, 1024", "add {first}, 1024",
                "dec {chunks}",
                "jnz 2b",
                "tilestored [{out} + {panel}], tmm0",
                row = in(reg) 64usize,
                panel = in(reg) PANEL_COLUMNS * 4,
                a = inout(reg) a => _,
                first = inout(reg) first => _,
                chunks = inout(reg) chunks => _,
                out = in(reg) out,
                out("tmm0") _, out("tmm4") _, out("tmm6") _,
                options(nostack),
            ),
        }
    }
}

/// Products of registers alone; gives their number of operations.
pub(super) fn saturate() -> f64 {
    // SAFETY: registers only, but for the configuration; the tiles are released before the end.
    unsafe {
        asm!(
            "ldtilecfg [{config}]",
            "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
            "2:",
            "tdpbusd tmm0, tmm4, tmm6",
            "tdpbusd tmm1, tmm4, tmm7",
            "tdpbusd tmm2, tmm5, tmm6",
            "tdpbusd tmm3, tmm5, tmm7",
            "dec {n}",
            "jnz 2b",
            "tilerelease",
            config = in(reg) CONFIG.0.as_ptr(),
            n = inout(reg) 5_000u64 => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
    5_000.0 * 4.0 * 16.0 * 16.0 * 64.0 * 2.0
}
