//! The light check holds for every honest answer and for no other.

#![expect(clippy::panic, clippy::unwrap_used, reason = "test support")]

mod support;

use audit::light::{
    Frame, Key, LightConfig, LightError, LightFault, LightOpening, LightVerdict, Opened, OpeningFile, check, coin,
    prove,
};
use audit::trace::Run;
use exact::{Activations, Isa};
use model::{Adapter, LoadOptions, Mlp, Model, Shape};
use receipt::{Bundle, Settings};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use support::{Case, How, answer, prompt, settings, shape};

struct Scene {
    model: Arc<Model>,
    adapter: Option<Adapter>,
    bundle: Bundle,
    key: Key,
    frame: Frame,
}

impl Scene {
    fn new(model: Arc<Model>, adapter: Option<Adapter>, bundle: Bundle) -> Scene {
        let (key, frame) = Key::secret(&model, [5; 32], Isa::best(), 1).unwrap();
        Scene { model, adapter, bundle, key, frame }
    }

    fn honest(shape: Shape, mode: Activations, rank: Option<usize>, settings: &Settings) -> Scene {
        let model = Arc::new(Model::random(shape, mode, 3));
        let adapter = rank.map(|rank| Adapter::random(&model.plan, rank, 4));
        let bundle = Case::honest(&model, adapter.as_ref(), &prompt(40), settings).sign();
        Scene::new(model, adapter, bundle)
    }

    fn run(&self) -> Run<'_> {
        Run { model: self.model.clone(), adapter: self.adapter.as_ref(), isa: Isa::best(), threads: 1 }
    }

    fn prove(&self, span: std::ops::Range<usize>) -> LightOpening {
        prove(&self.run(), &self.bundle, span).unwrap()
    }

    fn check_with(&self, opening: &impl Opened, key: &Key, isa: Isa) -> LightVerdict {
        let config = LightConfig { isa, threads: 2, text: None };
        check(&self.bundle, opening, key, &self.frame, self.adapter.as_ref(), config).unwrap()
    }

    fn check(&self, opening: &impl Opened) -> LightVerdict {
        self.check_with(opening, &self.key, Isa::best())
    }
}

fn fault(verdict: LightVerdict) -> (Option<usize>, LightFault) {
    match verdict {
        LightVerdict::Fails { position, what } => (position, what),
        LightVerdict::Holds { .. } => panic!("a false opening holds"),
    }
}

fn experts() -> Shape {
    let experts = Mlp::Experts { experts: 5, chosen: 2, width: 32, renormalise: true };
    Shape { mlps: vec![experts, Mlp::Gated { width: 96 }], head_norms: true, window: Some(48), ..shape() }
}

#[test]
fn honest_answers_hold_whole_and_in_parts_on_every_instruction_set() {
    for mode in [Activations::A8, Activations::A16] {
        for (shape, rank) in [(shape(), None), (shape(), Some(8)), (experts(), Some(3))] {
            let scene = Scene::honest(shape, mode, rank, &Settings { top_p: 0.9, ..settings() });
            for span in [0..109, 0..1, 38..41, 70..109, 108..109] {
                let opening = scene.prove(span.clone());
                let read = LightOpening::from_bytes(&opening.to_bytes()).unwrap();
                assert_eq!(read, opening);
                for isa in Isa::available() {
                    let verdict = scene.check_with(&read, &scene.key, isa);
                    assert!(verdict.holds(), "{mode:?} {rank:?} {span:?} {isa}: {verdict}");
                }
                let verdict = scene.check_with(&filed(&opening.to_bytes()).unwrap(), &scene.key, Isa::best());
                assert!(verdict.holds(), "{mode:?} {rank:?} {span:?} from a file: {verdict}");
            }
        }
    }
}

/// An opening in a file that is gone as soon as nobody reads it.
fn filed(bytes: &[u8]) -> Result<OpeningFile, LightError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    OpeningFile::open(file.path())
}

#[test]
fn sums_may_be_kept_at_more_bits_than_they_need() {
    for (shape, mode) in [(shape(), Activations::A16), (experts(), Activations::A8)] {
        let scene = Scene::honest(shape, mode, None, &settings());
        let opening = scene.prove(0..64);
        let count = opening.sums_count();
        for bits in [8, 16] {
            let wider = opening.clone().kept_at(bits);
            assert!(wider.weight_bytes().0 > opening.weight_bytes().0 && wider.sums_count() == count);
            assert!(scene.check(&wider).holds() && scene.check(&filed(&wider.to_bytes()).unwrap()).holds());
            let (found, what) = fault(scene.check(&filed(&wider.forged(40, 7, 1).kept_at(bits).to_bytes()).unwrap()));
            assert!(found == Some(40) && matches!(what, LightFault::Sums { .. }), "{found:?} {what}");
        }
    }
}

#[test]
fn an_opening_in_a_file_is_read_like_one_in_memory() {
    let scene = Scene::honest(shape(), Activations::A16, None, &settings());
    let opening = scene.prove(35..45);
    assert_eq!(opening.span(), filed(&opening.to_bytes()).unwrap().span());
    for forged in [opening.clone().forged(40, 7, 1), opening.clone().past_forged(12, 1, 3)] {
        let found = fault(scene.check(&filed(&forged.to_bytes()).unwrap()));
        assert_eq!(found, fault(scene.check(&forged)));
    }
    // Cut short, lengthened, or with a length changed: both say so, or both read the same.
    let bytes = opening.to_bytes();
    let cuts = (0..bytes.len()).step_by(bytes.len() / 97).map(|end| bytes[..end].to_vec());
    let longer = [&bytes[..], &[0]].concat();
    let changed = (0..600).map(|at| bytes.iter().enumerate().map(|(i, b)| b ^ u8::from(i == at)).collect());
    for bytes in cuts.chain([longer]).chain(changed) {
        let (in_memory, in_file) = (LightOpening::from_bytes(&bytes), filed(&bytes));
        assert_eq!(in_memory.is_ok(), in_file.is_ok());
        if let (Ok(in_memory), Ok(in_file)) = (in_memory, in_file) {
            assert_eq!(fault_of(scene.check(&in_memory)), fault_of(scene.check(&in_file)));
        }
    }
}

/// What failed, if something did.
fn fault_of(verdict: LightVerdict) -> Option<(Option<usize>, LightFault)> {
    (!verdict.holds()).then(|| fault(verdict))
}

#[test]
fn keys_and_frames_survive_being_written_and_fit_one_model_only() {
    let scene = Scene::honest(experts(), Activations::A16, None, &settings());
    let opening = scene.prove(50..60);
    let key = Key::from_bytes(&scene.key.to_bytes()).unwrap();
    assert_eq!(Frame::from_bytes(&scene.frame.to_bytes()).unwrap().hash(), scene.frame.hash());
    assert!(scene.check_with(&opening, &key, Isa::best()).holds());
    let other = Model::random(experts(), Activations::A16, 4);
    let (key, _) = Key::secret(&other, [5; 32], Isa::best(), 1).unwrap();
    let config = LightConfig { isa: Isa::best(), threads: 1, text: None };
    assert!(check(&scene.bundle, &opening, &key, &scene.frame, None, config).is_err());
}

#[test]
fn a_key_streamed_from_a_checkpoint_is_the_key_of_the_loaded_model() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo/base");
    let options = LoadOptions { threads: 1, ..LoadOptions::new(Activations::A8) };
    let model = Model::load(&folder, &options).unwrap();
    let (key, frame) = Key::secret(&model, [8; 32], Isa::best(), 1).unwrap();
    let (streamed, its_frame) = Key::streamed(&folder, &options, [8; 32]).unwrap();
    assert_eq!(key.base, model.digest);
    assert!(streamed.to_bytes() == key.to_bytes() && its_frame.to_bytes() == frame.to_bytes());
}

#[test]
fn any_false_sum_anywhere_is_named_by_its_position() {
    let scene = Scene::honest(experts(), Activations::A8, Some(3), &settings());
    let opening = scene.prove(30..60);
    let sums = opening.sums_count();
    assert!(sums > 30 * 500, "{sums}");
    for (position, at, by) in [(30, 0, 1), (31, 63, -1), (39, 200, 1 << 20), (45, 5, i32::MIN), (59, 300, 256)] {
        let (found, what) = fault(scene.check(&opening.clone().forged(position, at, by)));
        assert!(found == Some(position) && matches!(what, LightFault::Sums { .. }), "{found:?} {what}");
    }
}

#[test]
fn false_sums_that_would_cancel_if_stretches_had_equal_elements_are_named() {
    let wide = Shape { mlps: vec![Mlp::Gated { width: 1344 }; 2], ..shape() };
    for (mode, planes) in [(Activations::A8, 1), (Activations::A16, 2)] {
        let scene = Scene::honest(wide.clone(), mode, None, &settings());
        let opening = scene.prove(50..52);
        assert!(scene.check(&opening).holds());
        // Queries 64, keys and values 32 each; attention's output 64; gate 1344 and up.
        let (keys, gate, up) = (64 * planes, 192 * planes, (192 + 1344) * planes);
        for (one, other, section) in
            [(3, keys + 3, 0), (gate + 7, gate + 7 + 512, 2), (gate + 319, gate + 319 + 1024, 2), (gate + 7, up + 7, 2)]
        {
            let forged = opening.clone().forged(51, one, 5).forged(51, other, -5);
            assert_eq!(fault(scene.check(&forged)), (Some(51), LightFault::Sums { section }), "{one} {other}");
        }
    }
}

#[test]
fn an_error_in_the_kernel_of_a_leaked_key_passes_for_it_and_for_no_other_key() {
    // Why a key is never published: whoever knows r finds small false sums that cancel, Σ r·δ = 0, by reducing a lattice.
    let scene = Scene::honest(shape(), Activations::A8, None, &settings());
    let opening = scene.prove(0..1);
    let (leaked, deltas) = audit_leak(&scene);
    let forged = deltas.iter().enumerate().fold(opening, |opening, (at, by)| opening.forged(0, at, *by));
    assert_ne!(forged, scene.prove(0..1));
    // Queries of position 0 decide nothing, as it sees only itself: nothing but the key could give the false sums away.
    assert!(scene.check_with(&forged, &leaked, Isa::best()).holds());
    let (other, _) = Key::secret(&scene.model, [6; 32], Isa::best(), 1).unwrap();
    let (_, what) = fault(scene.check_with(&forged, &other, Isa::best()));
    assert!(matches!(what, LightFault::Sums { .. }));
    // A coin drawn after the opening is fixed sees it too: another opening draws another key.
    let (fair, _) = Key::from_coin(&scene.model, &forged.to_bytes(), b"round 5000", Isa::best(), 1).unwrap();
    let (_, with_coin) = fault(scene.check_with(&forged, &fair, Isa::best()));
    assert!(matches!(with_coin, LightFault::Sums { .. }));
    assert_ne!(coin(b"a", b"r"), coin(b"b", b"r"));
    assert_ne!(coin(b"a", b"r"), coin(b"a", b"s"));
}

/// A key that leaked, and small δ in the kernel of its r, over the first outputs of the first section.
fn audit_leak(scene: &Scene) -> (Key, Vec<i32>) {
    let elements = scene.key.elements(1);
    let elements: Vec<u64> = (0..8).map(|at| elements.get(0, at)).collect();
    (scene.key.clone(), support::lattice::short_relation(&elements, exact::field::P))
}

#[test]
fn forged_keys_and_values_before_a_span_do_not_open() {
    let scene = Scene::honest(shape(), Activations::A8, None, &settings());
    let opening = scene.prove(60..70);
    for (position, layer, byte) in [(0, 0, 0), (17, 1, 5), (59, 1, 70)] {
        let (found, what) = fault(scene.check(&opening.clone().past_forged(position, layer, byte)));
        assert_eq!((found, what), (Some(position), LightFault::Past));
    }
}

#[test]
fn a_forged_past_that_was_committed_to_is_found_in_the_span_that_holds_it() {
    // The node computed positions 20 and on from another prompt token than it claims: its past is consistent, and false at 20.
    let model = support::model();
    let mut asked = prompt(40);
    asked[20] += 1;
    let cheated = answer(&model, None, &asked, &settings(), How::plain());
    let bundle = Case::new(&model, None, &prompt(40), &settings(), &cheated).sign();
    let honest = Case::new(&model, None, &asked, &settings(), &cheated).sign();
    let prover = Scene::new(model.clone(), None, honest);
    let scene = Scene::new(model, None, bundle);
    // Whoever only looks at later positions sees a true computation on the past that was committed to.
    assert!(scene.check(&prover.prove(50..60)).holds());
    let (found, _) = fault(scene.check(&prover.prove(10..30)));
    assert_eq!(found, Some(20));
}

#[test]
fn other_weights_settings_tokens_adapters_and_openings_cut_short_fail() {
    let honest = support::model();
    let mut cheat = Model::random(shape(), Activations::A8, 1);
    let matrix = &mut cheat.weights.linears[8].matrix;
    let mut row = vec![0; matrix.inputs()];
    matrix.row(3, &mut row);
    row[7] ^= 1;
    let scale = matrix.scales()[3];
    matrix.set_row(3, &row, scale);
    let cheat = Arc::new(cheat);
    let cheated = answer(&cheat, None, &prompt(40), &settings(), How::plain());
    let bundle = Case::new(&honest, None, &prompt(40), &settings(), &cheated).sign();
    let liar = Scene::new(cheat, None, bundle.clone());
    let scene = Scene::new(honest.clone(), None, bundle);
    let (position, what) = fault(scene.check(&liar.prove(0..109)));
    assert!(position.is_some() && matches!(what, LightFault::Sums { .. } | LightFault::Trace), "{what}");

    let cold = Settings { temperature: 0.2, ..settings() };
    let cooled = answer(&honest, None, &prompt(40), &cold, How::plain());
    let scene = Scene::new(honest.clone(), None, Case::new(&honest, None, &prompt(40), &settings(), &cooled).sign());
    let (position, what) = fault(scene.check(&scene.prove(0..109)));
    assert!(position.is_some_and(|p| p >= 39) && matches!(what, LightFault::Token { .. }), "{what}");

    let (good, bad) = (Adapter::random(&honest.plan, 8, 5), Adapter::random(&honest.plan, 8, 6));
    let ran = answer(&honest, Some(&bad), &prompt(40), &settings(), How::plain());
    let bundle = Case::new(&honest, Some(&good), &prompt(40), &settings(), &ran).sign();
    let liar = Scene::new(honest.clone(), Some(bad), bundle.clone());
    let scene = Scene::new(honest, Some(good), bundle);
    assert!(!scene.check(&liar.prove(0..109)).holds());

    let scene = Scene::honest(shape(), Activations::A8, None, &settings());
    let whole = scene.prove(10..20);
    let mut longer = whole.clone();
    longer.start = 11;
    assert_eq!(fault(scene.check(&longer)).1, LightFault::Incomplete);
    longer.start = 500;
    assert_eq!(fault(scene.check(&longer)).1, LightFault::Incomplete);
    let bytes = whole.to_bytes();
    for cut in [0, 1, 30, bytes.len() / 2, bytes.len() - 1] {
        assert!(LightOpening::from_bytes(&bytes[..cut]).is_err());
    }
}
