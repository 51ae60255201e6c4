//! The benchmark on a small model, the kernels running on the processor: it measures every line it names, and with little
//! memory those that fit.

#![expect(clippy::unwrap_used, reason = "what a test builds must succeed")]

mod support;

use ::model::{Adapter, Mlp, Rotary, Shape};
use cpu::{Segment, Wanted};
use cuda::bench::{Account, Effort, model, peak};
use cuda::{Config, DeviceError, Executor};
use exact::Activations;
use support::Shim;

fn shape() -> Shape {
    let experts = Mlp::Experts { experts: 6, chosen: 2, width: 40, renormalise: true };
    Shape {
        hidden: 80,
        layers: 2,
        heads: 6,
        key_heads: 2,
        head_dim: 20,
        mlps: vec![experts, Mlp::Gated { width: 96 }],
        vocabulary: 131,
        context: 4096,
        norm_eps: 1e-5,
        rotary: Rotary::plain(10_000.0, 16),
        window: None,
        head_norms: false,
        tied: false,
        spread: true,
    }
}

fn effort() -> Effort {
    Effort {
        streams: vec![1, 4],
        contexts: vec![(70, 4), (130, 1)],
        adapters: vec![0, 1, 4],
        registered: 6,
        adapter_bytes: None,
        rank: 8,
        prompts: vec![66],
        repeats: 1,
    }
}

/// The lines' names, and the account.
fn measure(effort: &Effort) -> (Vec<String>, Account) {
    let mut names = Vec::new();
    let report = |line: cuda::bench::Line| {
        assert!(line.tokens > 0.0 && line.bytes > 0.0 && line.ops > 0.0);
        names.push(line.what);
    };
    let account = model(&mut Shim::default(), &shape(), Activations::A8, effort, || false, report).unwrap();
    (names, account)
}

#[test]
fn the_benchmark_measures_every_line_it_names() {
    let (names, account) = measure(&effort());
    assert_eq!(
        names,
        [
            "prompt of 66",
            "decode 1 after 70, 0 adapters",
            "decode 4 after 70, 0 adapters",
            "decode 1 after 70, 1 adapters",
            "decode 4 after 70, 1 adapters",
            "decode 4 after 70, 4 adapters",
            "decode 1 after 130, 0 adapters",
            "decode 4 after 70, 4 adapters, 6 registered",
        ]
    );
    assert_eq!((account.registered.0, account.unrecorded), (6, None));
    peak(&mut Shim::default(), 1 << 16, 2).unwrap();
}

/// What stands for a measured adapter cannot be copied again, so none may be given up for another.
#[test]
fn adapters_that_do_not_fit_are_not_registered_and_those_that_do_are_measured() {
    let least = Effort { streams: vec![1], contexts: vec![(2, 1)], adapters: vec![0], prompts: vec![], ..effort() };
    let (_, one) = measure(&Effort { registered: 1, ..least.clone() });
    let little = Effort { adapter_bytes: Some(one.registered.1 * 7 / 2), ..effort() };
    let (names, account) = measure(&little);
    assert_eq!((account.registered.0, account.adapter_bytes), (3, one.registered.1 * 7 / 2));
    assert_eq!(
        names,
        [
            "prompt of 66",
            "decode 1 after 70, 0 adapters",
            "decode 4 after 70, 0 adapters",
            "decode 1 after 70, 1 adapters",
            "decode 4 after 70, 1 adapters",
            "decode 1 after 130, 0 adapters",
            "decode 3 after 70, 3 adapters, 3 registered",
        ]
    );
    let (names, account) = measure(&Effort { adapter_bytes: Some(0), ..least });
    assert_eq!((account.registered.0, names.len()), (0, 1));
}

#[test]
fn noise_gives_nothing_up_and_an_adapter_for_no_map_is_refused() {
    let config = Config { pages: Some(4), ..Config::default() };
    let mut executor = Executor::noise(Shim::default(), &shape(), Activations::A8, config).unwrap();
    executor.noise_adapters(&[[0; 32]], 8).unwrap();
    let config = Config { adapter_bytes: Some(executor.adapters().1 * 2), ..config };
    let mut executor = Executor::noise(Shim::default(), &shape(), Activations::A8, config).unwrap();
    let digests: Vec<[u8; 32]> = (0..5).map(|i| [i; 32]).collect();
    let noise = |digest| Adapter { sites: vec![], digest };
    fn step(executor: &mut Executor<Shim>, adapter: &Adapter) -> Result<(), DeviceError> {
        let wanted = Wanted::Last;
        executor.step(&[Segment { tokens: &[3], start: 0, pages: &[0], adapter: Some(adapter), wanted }]).map(|_| ())
    }
    for _ in 0..2 {
        assert!(matches!(executor.noise_adapters(&digests, 8), Err(DeviceError::Memory(_))));
        assert_eq!(executor.adapters().0, 2);
        assert!(step(&mut executor, &noise([0; 32])).is_ok() && step(&mut executor, &noise([1; 32])).is_ok());
    }
    assert!(matches!(step(&mut executor, &noise([2; 32])), Err(DeviceError::Unsupported(_))));
}
