//! The numbers that shape a model, whatever its weights.

/// What stands between attention and the next layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mlp {
    /// down(silu(gate) · up), `width` values in between.
    Gated {
        /// Values in between.
        width: usize,
    },
    /// A router picks `chosen` of `experts` gated MLPs for each token.
    Experts {
        /// How many there are.
        experts: usize,
        /// How many each token uses.
        chosen: usize,
        /// Values in between, in each.
        width: usize,
        /// Whether the weights of the chosen are made to add up to one.
        renormalise: bool,
    },
}

/// Rotary positions: `inverse_frequencies.len()` pairs of dimensions are rotated (specification, section 6).
#[derive(Clone, PartialEq, Debug)]
pub struct Rotary {
    /// ω for each pair, the checkpoint's scaling rule applied.
    pub inverse_frequencies: Vec<f64>,
}

impl Rotary {
    /// Plain rotary positions over `dimensions` dimensions.
    pub fn plain(theta: f64, dimensions: usize) -> Self {
        let inverse_frequencies =
            (0..dimensions / 2).map(|i| libm::pow(theta, -((2 * i) as f64) / dimensions as f64)).collect();
        Rotary { inverse_frequencies }
    }

    /// Cosines and sines for one position.
    pub fn at(&self, position: usize, cos: &mut [f32], sin: &mut [f32]) {
        for (i, omega) in self.inverse_frequencies.iter().enumerate() {
            let angle = position as f64 * omega;
            cos[i] = libm::cos(angle) as f32;
            sin[i] = libm::sin(angle) as f32;
        }
    }
}

/// Dimensions of a decoder-only transformer.
#[derive(Clone, PartialEq, Debug)]
pub struct Shape {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub key_heads: usize,
    /// Dimensions of a head.
    pub head_dim: usize,
    /// One per layer.
    pub mlps: Vec<Mlp>,
    /// Token ids are below this.
    pub vocabulary: usize,
    /// Positions the model was made for.
    pub context: usize,
    /// Added to the mean square in every norm.
    pub norm_eps: f32,
    /// Rotary positions.
    pub rotary: Rotary,
    /// How far back a query sees, itself included; none is all the way.
    pub window: Option<usize>,
    /// Whether each query and key head is normed before it is rotated.
    pub head_norms: bool,
    /// Whether the output head is the embedding.
    pub tied: bool,
    /// Whether the inputs of linear maps are spread before they are quantised: all but checkpoints that hold int8.
    pub spread: bool,
}
