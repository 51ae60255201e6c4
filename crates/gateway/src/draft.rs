//! A receipt as far as it is decided before its place in the node's chain.

use crate::calls::Calls;
use crate::numbers::Taken;
use engine::{Completion, Finish, Request};
use exact::Isa;
use model::{Model, Origin, Text};
use receipt::{Activations, Bundle, Claims, Form, Hash, Nonce, Opening, Salts, Settings, Shaping, SigningKey};

/// What every receipt of a server says.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    activations: Activations,
    digest: Hash,
    files: Option<Hash>,
    tokenizer: Hash,
    template: Option<Hash>,
    /// Version of the price list; 0 is none.
    price: u32,
}

impl Base {
    pub(crate) fn of(model: &Model, text: &Text) -> Base {
        Base {
            activations: match model.activations {
                exact::Activations::A8 => Activations::A8,
                exact::Activations::A16 => Activations::A16,
            },
            digest: model.digest,
            files: match model.origin {
                Origin::Random => None,
                Origin::Checkpoint { file_digest, .. } | Origin::Cache { file_digest } => Some(file_digest),
            },
            tokenizer: text.tokenizer_digest(),
            template: text.template_digest(),
            price: 0,
        }
    }

    /// The activation mode.
    pub(crate) fn activations(&self) -> Activations {
        self.activations
    }

    /// The same, with the price list that applies.
    pub(crate) fn priced(self, price: u32) -> Base {
        Base { price, ..self }
    }
}

fn shaping(asked: &engine::Shaping) -> Shaping {
    let form = asked.form.as_ref().map(|form| Form {
        engine: grammar::ENGINE.to_owned(),
        kind: form.source().kind.name().to_owned(),
        source: form.source().text.clone(),
    });
    Shaping {
        repetition: asked.adjust.repetition,
        frequency: asked.adjust.frequency,
        presence: asked.adjust.presence,
        bias: asked.adjust.bias.clone(),
        tokens_min: asked.tokens_min as u64,
        form,
    }
}

/// What was asked: the engine's request and how it came about.
pub(crate) struct Question {
    pub(crate) request: Request,
    pub(crate) seed_from_client: bool,
    /// The client's share of a seed that it did not choose.
    pub(crate) nonce: Nonce,
    /// The number that the seed has, once the request is admitted; none if the client chose it.
    pub(crate) taken: Option<Taken>,
    /// Whether the prompt is a conversation in the chat template's form.
    pub(crate) chat: bool,
    /// Whether the usage counts its prompt: one of several answers to a prompt does.
    pub(crate) counted: bool,
    /// Finds calls of tools in the answer.
    pub(crate) calls: Option<Calls>,
}

impl Question {
    /// Tokens of the prompt, if this answer's usage counts them.
    pub(crate) fn prompt_counted(&self) -> usize {
        if self.counted { self.request.prompt.len() } else { 0 }
    }

    /// Takes a numbered seed, unless the client chose one. Gives whether there was one to take.
    pub(crate) fn admit(&mut self, base: &Base, take: impl FnOnce(Nonce) -> Option<Taken>) -> bool {
        if self.seed_from_client {
            return true;
        }
        let Some(taken) = take(self.nonce.clone()) else { return false };
        let settings = settings(&self.request);
        // Whoever asks has the adapter identified first (`App::identify`).
        let adapter = self.request.adapter.as_ref().and_then(|adapter| adapter.digest());
        let request = receipt::seed::request_hash(&base.digest, adapter.as_ref(), &settings, &self.request.prompt);
        self.request.sampling.seed = taken.seed(&request);
        self.taken = Some(taken);
        true
    }
}

/// What receipts say of how an answer is drawn.
fn settings(request: &Request) -> Settings {
    let sampling = request.sampling;
    Settings {
        temperature: sampling.temperature,
        top_k: sampling.top_k,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        seed: sampling.seed,
        tokens_max: request.tokens_max as u64,
        stop_tokens: request.stop_tokens.clone(),
        stop_strings: request.stop_strings.clone(),
        shaping: shaping(&request.shaping),
    }
}

/// A receipt without number, predecessor and time.
pub(crate) struct Draft {
    claims: Claims,
    opening: Opening,
    taken: Option<Taken>,
}

/// A receipt's place in the node's chain.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Link {
    pub(crate) number: u64,
    pub(crate) previous: Option<Hash>,
    /// For how long the node keeps what opens its receipts.
    pub(crate) opening_seconds: u32,
}

impl Draft {
    /// Hashes everything about an answer; takes a while for long ones.
    pub(crate) fn new(base: &Base, question: Question, completion: Completion) -> Result<Draft, getrandom::Error> {
        let mut random = [0; 64];
        getrandom::fill(&mut random)?;
        let Question { request, seed_from_client, chat, taken, .. } = question;
        let settings = settings(&request);
        let opening = Opening {
            prompt: request.prompt,
            output: completion.tokens,
            settings,
            salts: Salts::from_random(&random),
            leaves: completion.leaves,
            seed: taken.as_ref().map(|taken| taken.origin.clone()),
        };
        let claims = Claims {
            arithmetic: exact::VERSION,
            activations: base.activations,
            base: base.digest,
            base_files: base.files,
            adapter: completion.adapter,
            tokenizer: Some(base.tokenizer),
            template: base.template.filter(|_| chat),
            prompt: opening.prompt_hash(),
            settings: opening.settings_hash(),
            output: opening.output_hash(),
            prompt_tokens: opening.prompt.len() as u64,
            output_tokens: opening.output.len() as u64,
            finish: match completion.finish {
                Finish::Stop => receipt::Finish::Stop,
                Finish::Length => receipt::Finish::Length,
            },
            seed: request.sampling.seed,
            seed_from_client,
            seed_number: taken.as_ref().map(|taken| taken.number),
            trace: opening.trace_root_with(|messages, hashes| model::merkle::hash_each(Isa::best(), messages, hashes)),
            time_seconds: 0,
            price: base.price,
            opening_seconds: 0,
            number: 0,
            previous: None,
        };
        Ok(Draft { claims, opening, taken })
    }

    /// Gives it its place and signs it. The number of its seed comes along, to be settled once the receipt is kept.
    pub(crate) fn sign(mut self, key: &SigningKey, link: Link, time_seconds: u64) -> (Bundle, Option<Taken>) {
        self.claims.number = link.number;
        self.claims.previous = link.previous;
        self.claims.time_seconds = time_seconds;
        self.claims.opening_seconds = link.opening_seconds;
        (Bundle { receipt: receipt::sign(key, &self.claims), opening: self.opening }, self.taken)
    }
}

#[cfg(test)]
impl Draft {
    /// A draft of an answer of one token.
    pub(crate) fn example(seed: u64) -> Draft {
        let sampling = exact::sample::Sampling { seed, ..exact::sample::Sampling::GREEDY };
        let request = Request { sampling, ..Request::new(vec![1, 2, 3], 1) };
        let base = Base {
            activations: Activations::A8,
            digest: [1; 32],
            files: None,
            tokenizer: [2; 32],
            template: None,
            price: 0,
        };
        let (tokens, leaves) = (vec![4], vec![[5; 32]; 3]);
        let (effort, times) = (engine::Effort::default(), engine::Times::now());
        let completion = Completion { tokens, finish: Finish::Length, leaves, adapter: None, effort, times };
        let question = Question {
            request,
            seed_from_client: true,
            nonce: Nonce::default(),
            taken: None,
            chat: false,
            counted: true,
            calls: None,
        };
        Draft::new(&base, question, completion).unwrap()
    }
}
