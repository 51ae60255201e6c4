//! The demo model that comes with the repository: base, five adapters, tokenizer.

use exact::{Activations, Isa};
use model::{Adapter, LoadOptions, Model, Text};
use std::path::Path;

#[test]
fn the_demo_model_and_its_adapters_load() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    let base = Model::load(&folder.join("base"), &LoadOptions::new(Activations::A16)).unwrap();
    assert_eq!((base.shape.hidden, base.shape.layers, base.shape.vocabulary, base.shape.tied), (256, 6, 2048, false));
    let text = Text::load(&folder.join("base")).unwrap();
    assert!(text.vocabulary() <= base.shape.vocabulary);
    for (name, rank) in [("triage", 8), ("extract", 16), ("sql", 16), ("reply", 16), ("spanish", 16)] {
        let adapter = Adapter::load(&folder.join("adapters").join(name), &base, Isa::best()).unwrap();
        assert_eq!((adapter.rank(), adapter.sites.iter().flatten().count()), (rank, 6 * 7), "{name}");
        let gain = if name == "reply" { 4.0 } else { 2.0 };
        assert!(adapter.sites.iter().flatten().all(|site| site.gain == gain), "{name}");
    }
}
