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
}

#[test]
fn tokens_are_drawn_as_the_reference_draws_them() {
    all_same(check::draws(&mut Shim::default(), &mut Dice::new(4), 700, 700).unwrap());
}

#[test]
fn messages_hash_to_blake3() {
    all_same(check::hashes(&mut Shim::default(), &mut Dice::new(5), 1500, 9000).unwrap());
}

#[test]
fn rows_are_routed_as_the_reference_routes_them() {
    all_same(check::routes(&mut Shim::default(), &mut Dice::new(6), 400, 500).unwrap());
}

#[test]
fn random_models_agree() {
    all_same(check::models(&mut Shim::default(), &mut Dice::new(7), 4, 70).unwrap());
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
