//! The forward pass as a static list of operations. Executors run it, the trace and disputes walk it: this list is the
//! one definition of what an "operation" is. Values live in named registers, one row per token.

use crate::shape::{Mlp, Shape};

/// Where an operation reads and writes; each holds one row of floats per token of the batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Register {
    /// The residual stream, `hidden` wide.
    Residual,
    /// Output of a norm, `hidden` wide.
    Normed,
    /// Query heads.
    Query,
    /// Key heads.
    Key,
    /// Value heads.
    Value,
    /// What attention mixed together, as wide as the queries.
    Mixed,
    /// Gate half of a gated MLP.
    Gate,
    /// Up half of a gated MLP.
    Up,
    /// Their product.
    Inner,
    /// What a layer's half adds to the residual, `hidden` wide.
    Update,
    /// One score per token of the vocabulary.
    Logits,
}

impl Register {
    /// How many there are.
    pub const COUNT: usize = Register::Logits.index() + 1;

    /// Its place in an array of all.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// One operation on every row of the batch (specification, section 11).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// Residual = the token's embedding.
    Embed,
    /// `to` = rmsnorm(`from`) with norm weight number `norm`.
    Norm {
        /// Index into [`crate::Weights::norms`].
        norm: usize,
        /// Register read.
        from: Register,
        /// Register written.
        to: Register,
    },
    /// rmsnorm of every head of `register` by itself.
    HeadNorm {
        /// Index into [`crate::Weights::norms`].
        norm: usize,
        /// Query or Key.
        register: Register,
    },
    /// Every row of `register` spread over its blocks, in place (specification, section 1).
    Spread {
        /// Register changed.
        register: Register,
    },
    /// The quantised input of the linear maps that follow = `from`.
    Quantise {
        /// Register read.
        from: Register,
    },
    /// `to` = linear map number `site` of the quantised input, the sequence's adapter included.
    Linear {
        /// Index into [`Plan::sites`].
        site: usize,
        /// Register written.
        to: Register,
    },
    /// Rotary positions on every head of `register`.
    Rotate {
        /// Query or Key.
        register: Register,
    },
    /// Query, Key and Value to eight bits; keys and values of this layer into the pages; Mixed = attention.
    Attend {
        /// Layer whose pages are used.
        layer: usize,
    },
    /// Inner = silu(Gate) · Up.
    Gate,
    /// Update = mixture of experts number `mixture` of Normed and the quantised input.
    Experts {
        /// Index into [`crate::Weights::mixtures`].
        mixture: usize,
    },
    /// Residual = Residual + Update.
    Add,
}

/// A linear map of the base that an adapter may add to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Site {
    /// Module path in the checkpoint, `model.layers.0.self_attn.q_proj` for one.
    pub name: String,
    /// Values per input row.
    pub inputs: usize,
    /// Values per output row.
    pub outputs: usize,
}

/// The forward pass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Run for every token: ends with the final norm's output as the quantised input.
    pub body: Vec<Op>,
    /// The site of the output head, run only for the tokens whose logits are wanted.
    pub head: usize,
    /// Every linear map, in the order of the plan; the head last.
    pub sites: Vec<Site>,
    /// Names of the norm weights, in the order [`Op::Norm`] and [`Op::HeadNorm`] number them.
    pub norms: Vec<String>,
    /// Module paths of the mixtures of experts, in the order [`Op::Experts`] numbers them.
    pub mixtures: Vec<String>,
}

impl Plan {
    /// The plan of a model of this shape.
    pub fn new(shape: &Shape) -> Plan {
        let mut plan = Plan { body: vec![Op::Embed], head: 0, sites: vec![], norms: vec![], mixtures: vec![] };
        for layer in 0..shape.layers {
            plan.attention_half(shape, layer);
            plan.mlp_half(shape, layer);
        }
        plan.norm("model.norm".to_owned(), Register::Residual, Register::Normed);
        plan.quantise(shape, Register::Normed);
        plan.head = plan.site("lm_head".to_owned(), shape.hidden, shape.vocabulary);
        plan
    }

    fn attention_half(&mut self, shape: &Shape, layer: usize) {
        let path = format!("model.layers.{layer}");
        let (queries, keys) = (shape.heads * shape.head_dim, shape.key_heads * shape.head_dim);
        self.norm(format!("{path}.input_layernorm"), Register::Residual, Register::Normed);
        self.quantise(shape, Register::Normed);
        self.linear(format!("{path}.self_attn.q_proj"), shape.hidden, queries, Register::Query);
        self.linear(format!("{path}.self_attn.k_proj"), shape.hidden, keys, Register::Key);
        self.linear(format!("{path}.self_attn.v_proj"), shape.hidden, keys, Register::Value);
        if shape.head_norms {
            self.head_norm(format!("{path}.self_attn.q_norm"), Register::Query);
            self.head_norm(format!("{path}.self_attn.k_norm"), Register::Key);
        }
        self.body.push(Op::Rotate { register: Register::Query });
        self.body.push(Op::Rotate { register: Register::Key });
        self.body.push(Op::Attend { layer });
        self.quantise(shape, Register::Mixed);
        self.linear(format!("{path}.self_attn.o_proj"), queries, shape.hidden, Register::Update);
        self.body.push(Op::Add);
    }

    fn mlp_half(&mut self, shape: &Shape, layer: usize) {
        let path = format!("model.layers.{layer}");
        self.norm(format!("{path}.post_attention_layernorm"), Register::Residual, Register::Normed);
        self.quantise(shape, Register::Normed);
        match shape.mlps[layer] {
            Mlp::Gated { width } => {
                self.linear(format!("{path}.mlp.gate_proj"), shape.hidden, width, Register::Gate);
                self.linear(format!("{path}.mlp.up_proj"), shape.hidden, width, Register::Up);
                self.body.push(Op::Gate);
                self.quantise(shape, Register::Inner);
                self.linear(format!("{path}.mlp.down_proj"), width, shape.hidden, Register::Update);
            }
            Mlp::Experts { .. } => {
                self.body.push(Op::Experts { mixture: self.mixtures.len() });
                self.mixtures.push(format!("{path}.mlp"));
            }
        }
        self.body.push(Op::Add);
    }

    fn quantise(&mut self, shape: &Shape, from: Register) {
        if shape.spread {
            self.body.push(Op::Spread { register: from });
        }
        self.body.push(Op::Quantise { from });
    }

    fn norm(&mut self, name: String, from: Register, to: Register) {
        self.body.push(Op::Norm { norm: self.norms.len(), from, to });
        self.norms.push(name);
    }

    fn head_norm(&mut self, name: String, register: Register) {
        self.body.push(Op::HeadNorm { norm: self.norms.len(), register });
        self.norms.push(name);
    }

    fn linear(&mut self, name: String, inputs: usize, outputs: usize, to: Register) {
        let site = self.site(name, inputs, outputs);
        self.body.push(Op::Linear { site, to });
    }

    fn site(&mut self, name: String, inputs: usize, outputs: usize) -> usize {
        self.sites.push(Site { name, inputs, outputs });
        self.sites.len() - 1
    }
}
