//! Every kernel, running on the processor, gives the scalar reference's bits on random odd shapes, extremes and values
//! that are not finite: the checks of `lockstep selftest --device cuda`, in small.

#![expect(clippy::unwrap_used, reason = "what a test builds must succeed")]

mod support;

use cuda::check::{self, Dice, Tally};
use support::Shim;

fn all_same(tally: Tally) {
    assert!(tally.vectors > 0);
    assert_eq!(tally.differing, 0, "of {}", tally.vectors);
}

#[test]
fn rows_are_normed_spread_and_quantised_as_the_reference_does() {
    all_same(check::rows(&mut Shim::default(), &mut Dice::new(1), 600, 3000).unwrap());
    let narrow = &mut Shim { shared: 2000, ..Shim::default() };
    all_same(check::rows(narrow, &mut Dice::new(2), 100, 2000).unwrap());
}

#[test]
fn products_are_the_references_whatever_kernel_makes_them() {
    all_same(check::products(&mut Shim::default(), &mut Dice::new(3), 30_000, [140, 150, 330]).unwrap());
    // Inputs that keep every warp busy for several turns.
    all_same(check::products(&mut Shim::default(), &mut Dice::new(9), 8_000, [40, 60, 9000]).unwrap());
}

#[test]
fn tokens_are_drawn_as_the_reference_draws_them() {
    all_same(check::draws(&mut Shim::default(), &mut Dice::new(4), 700, 700).unwrap());
    all_same(check::draws(&mut Shim::default(), &mut Dice::new(11), 150, 40_000).unwrap());
}

#[test]
fn messages_hash_to_blake3() {
    all_same(check::hashes(&mut Shim::default(), &mut Dice::new(5), 1500, 9000).unwrap());
}

#[test]
fn rows_are_routed_as_the_reference_routes_them() {
    all_same(check::routes(&mut Shim::default(), &mut Dice::new(6), 400, 500).unwrap());
    all_same(check::routes(&mut Shim::default(), &mut Dice::new(10), 60, 4000).unwrap());
}

#[test]
fn random_models_agree() {
    all_same(check::models(&mut Shim::default(), &mut Dice::new(7), 5, 70).unwrap());
}

#[test]
fn a_device_that_computes_other_bits_is_found_out_at_once() {
    let tally = check::quick(&mut Shim { faulty: true, ..Shim::default() }, &mut Dice::new(8)).unwrap();
    assert!(tally.differing > 0 && tally.differing < tally.vectors);
}

/// A mixture's weights can be tens of gigabytes: the last expert's are found where they lie.
#[test]
fn weights_beyond_four_gigabytes_are_found() {
    use cuda::arguments::{ExpertTile, Product, Rows8, Target};
    use cuda::{Launch, Launcher, kernel};
    let (expert, expert_bytes) = (127u64, 40u64 << 20);
    let shim = &mut Shim::default();
    let mut put = |bytes: &[u8], room: usize| {
        let address = shim.alloc(room).unwrap().address;
        shim.write(address + (room - bytes.len()) as u64, bytes).unwrap();
        address
    };
    let level = |n: usize, k: usize| ((n * 7 + k * 3) % 251) as u8;
    let matrix: Vec<u8> = (0..16 * 64).map(|i| level(i / 64, i % 64)).collect();
    let digit = |k: usize| (k * 5 % 255) as u8;
    // Only row 0 of a group of eight is used.
    let digits: Vec<u8> = (0..8 * 64).map(|i| if i < 64 { digit(i) } else { 99 }).collect();
    let ones = vec![1.0f32; 16 * 128];
    let out = put(&[], 64);
    let mut arguments = Product {
        count: put(&1u32.to_le_bytes(), 4),
        tiles: put(bytemuck::bytes_of(&ExpertTile { expert: expert as u32, first: 0, count: 1, unused: 0 }), 16),
        x: Rows8 {
            digits: put(&digits, 512),
            scales: put(&1.0f32.to_le_bytes(), 4),
            plane_stride: 0,
            chunks: 1,
            planes: 1,
        },
        expert_bytes,
        expert_outputs: 16,
        targets_used: 1,
        divide: 1,
        planes: 1,
        ..Product::default()
    };
    let weights = put(&matrix, (expert * expert_bytes) as usize + matrix.len());
    let scales = put(bytemuck::cast_slice(&ones), 16 * 128 * 4);
    arguments.targets[0] = Target { weights, scales, out, outputs: 16, ..Target::default() };
    let arguments = bytemuck::bytes_of(&arguments).to_vec();
    shim.launch(Launch { kernel: kernel::PRODUCT_A8_8, grid: [1, 1, 1], shared: 0, arguments }).unwrap();
    let mut got = [0.0f32; 16];
    shim.read(out, bytemuck::cast_slice_mut(&mut got)).unwrap();
    let product = |n: usize, k: usize| i32::from(level(n, k) as i8) * i32::from(digit(k) as i8);
    let want: Vec<f32> = (0..16).map(|n| (0..64).map(|k| product(n, k)).sum::<i32>() as f32).collect();
    assert_eq!(got[..], want);
}

/// The structures of src/arguments.rs are those of kernels/types.cuh: sizes as g++ sees them.
#[test]
fn arguments_have_the_kernels_sizes() {
    use cuda::arguments as a;
    let ours = [
        ("Header", size_of::<a::Header>()),
        ("Row", size_of::<a::Row>()),
        ("QueryTile", size_of::<a::QueryTile>()),
        ("Share", size_of::<a::Share>()),
        ("AdapterTile", size_of::<a::AdapterTile>()),
        ("ExpertTile", size_of::<a::ExpertTile>()),
        ("Rows8", size_of::<a::Rows8>()),
        ("Target", size_of::<a::Target>()),
        ("Embed", size_of::<a::Embed>()),
        ("Prepare", size_of::<a::Prepare>()),
        ("Heads", size_of::<a::Heads>()),
        ("Product", size_of::<a::Product>()),
        ("AdapterDown", size_of::<a::AdapterDown>()),
        ("AdapterUp", size_of::<a::AdapterUp>()),
        ("Attend", size_of::<a::Attend>()),
        ("Route", size_of::<a::Route>()),
        ("Gather", size_of::<a::Gather>()),
        ("Combine", size_of::<a::Combine>()),
        ("DrawRow", size_of::<a::DrawRow>()),
        ("Sample", size_of::<a::Sample>()),
        ("Hash", size_of::<a::Hash>()),
        ("Leaf", size_of::<a::Leaf>()),
        ("Measure", size_of::<a::Measure>()),
    ];
    for (name, bytes) in ours {
        assert_eq!(support::size_of_structure(name), bytes, "{name}");
    }
}
