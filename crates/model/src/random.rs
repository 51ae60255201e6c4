//! Models and adapters of random weights: for benchmarks and tests, where speed and bits matter but meaning does not.

use crate::{
    Adapter, Embedding, Expert, Half, Linear, LowRank, Mixture, Mlp, Model, Origin, Plan, Rotary, Shape, Weights,
};
use exact::Activations;
use exact::generator::philox;
use exact::matrix::{Matrix, RowMatrix};
use exact::mixture::Router;

/// A stream of random words from one seed.
struct Words {
    key: [u32; 2],
    counter: u64,
    rest: Vec<u32>,
}

impl Words {
    fn new(seed: u64) -> Self {
        Words { key: [seed as u32, (seed >> 32) as u32], counter: 0, rest: vec![] }
    }

    fn word(&mut self) -> u32 {
        if self.rest.is_empty() {
            self.rest.extend(philox(self.key, [self.counter as u32, (self.counter >> 32) as u32, 0, 1]));
            self.counter += 1;
        }
        self.rest.pop().unwrap_or(0)
    }

    /// Bell-shaped levels: the sum of two uniform ones.
    fn levels(&mut self, out: &mut [i8]) {
        for four in out.chunks_mut(4) {
            let (a, b) = (self.word().to_le_bytes(), self.word().to_le_bytes());
            for (i, out) in four.iter_mut().enumerate() {
                *out = ((i16::from(a[i] as i8) + i16::from(b[i] as i8)) / 2).max(-127) as i8;
            }
        }
    }
}

fn matrix(words: &mut Words, outputs: usize, inputs: usize, scale: f32) -> Matrix {
    let mut matrix = Matrix::zeroed(outputs, inputs);
    let mut levels = vec![0i8; inputs];
    for output in 0..outputs {
        words.levels(&mut levels);
        matrix.set_row(output, &levels, scale);
    }
    matrix
}

/// Scale at which a map of this many random inputs keeps the size of what passes through.
fn scale_for(inputs: usize) -> f32 {
    1.0 / (52.0 * (inputs as f32).sqrt())
}

impl Shape {
    /// [`scale_for`], with what spreading an input multiplies it by taken out.
    fn scale_for(&self, inputs: usize) -> f32 {
        let block = if self.spread { exact::spread::spread_block(inputs) } else { 1 };
        scale_for(inputs) / (block as f32).sqrt()
    }

    /// The shape of a Llama of 1.24 billion parameters: hidden 2048, 16 layers, 32 heads, 8 key heads of 64, MLP 8192,
    /// vocabulary 128256, tied.
    pub fn llama_1_24b() -> Shape {
        Shape {
            hidden: 2048,
            layers: 16,
            heads: 32,
            key_heads: 8,
            head_dim: 64,
            mlps: vec![Mlp::Gated { width: 8192 }; 16],
            vocabulary: 128_256,
            context: 131_072,
            norm_eps: 1e-5,
            rotary: Rotary::plain(500_000.0, 64),
            window: None,
            head_norms: false,
            tied: true,
            spread: true,
        }
    }
}

impl Model {
    /// A model of random weights.
    pub fn random(shape: Shape, activations: Activations, seed: u64) -> Model {
        let plan = Plan::new(&shape);
        let mut words = Words::new(seed);
        let linears = plan
            .sites
            .iter()
            .map(|site| Linear {
                matrix: matrix(&mut words, site.outputs, site.inputs, shape.scale_for(site.inputs)),
                bias: None,
            })
            .collect();
        let norms = plan
            .norms
            .iter()
            .map(|name| vec![1.0; if name.contains("self_attn") { shape.head_dim } else { shape.hidden }])
            .collect();
        let mixtures = shape.mlps.iter().filter_map(|mlp| random_mixture(&mut words, &shape, *mlp)).collect();
        let bits = (0..shape.vocabulary * shape.hidden)
            .map(|_| ((words.word() as i32 >> 8) as f32 / (1 << 23) as f32).to_bits() >> 16)
            .map(|bits| bits as u16)
            .collect();
        let embedding = Embedding { bits, half: Half::Brain, hidden: shape.hidden };
        let weights = Weights { embedding, norms, linears, mixtures, folded: vec![] };
        let digest = crate::digest::exact(&shape, &plan, &weights, activations, threads());
        Model { shape, plan, weights, activations, digest, origin: Origin::Random }
    }
}

fn random_mixture(words: &mut Words, shape: &Shape, mlp: Mlp) -> Option<Mixture> {
    let Mlp::Experts { experts, chosen, width, renormalise } = mlp else { return None };
    let mut router = Router::zeroed(experts, shape.hidden);
    let mut levels = vec![0i8; shape.hidden];
    for expert in 0..experts {
        words.levels(&mut levels);
        let wide: Vec<i16> = levels.iter().map(|l| i16::from(*l) * 256 + 3).collect();
        router.set_row(expert, &wide, shape.scale_for(shape.hidden) / 64.0);
    }
    let experts = (0..experts)
        .map(|_| Expert {
            gate: matrix(words, width, shape.hidden, shape.scale_for(shape.hidden)),
            up: matrix(words, width, shape.hidden, shape.scale_for(shape.hidden)),
            down: matrix(words, shape.hidden, width, shape.scale_for(width)),
        })
        .collect();
    Some(Mixture { router, chosen, renormalise, experts })
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |threads| threads.get())
}

impl Adapter {
    /// An adapter of random weights of one rank on every layer's linear maps (not the head) of a plan.
    pub fn random(plan: &Plan, rank: usize, seed: u64) -> Adapter {
        let mut words = Words::new(seed);
        let sites = plan.sites.iter().enumerate().map(|(number, site)| {
            (number != plan.head).then(|| {
                let mut a = RowMatrix::zeroed(rank, site.inputs);
                let mut levels = vec![0i8; site.inputs];
                for row in 0..rank {
                    words.levels(&mut levels);
                    a.set_row(row, &levels, scale_for(site.inputs));
                }
                LowRank { a, b: matrix(&mut words, site.outputs, rank, 0.1 * scale_for(rank)), gain: 2.0 }
            })
        });
        let sites: Vec<_> = sites.collect();
        let digest = crate::digest::adapter(plan, &sites, threads());
        Adapter { sites, digest }
    }
}
