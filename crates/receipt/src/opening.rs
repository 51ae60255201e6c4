//! What opens a receipt: the tokens, settings and leaves behind its hashes. Whoever has it can replay the answer, and
//! reads the text.

use crate::Mismatch;
use crate::cbor::{Reader, Writer};
use crate::claims::Claims;
use crate::error::Malformed;
use crate::hash::{Domain, Hash, Salt, salted, token_bytes};
use crate::seed::{self, Nonce, SeedOrigin};
use crate::settings::{Settings, read_tokens};
use crate::trace;

/// One salt for each salted hash of a receipt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Salts {
    /// Of the prompt.
    pub prompt: Salt,
    /// Of the settings.
    pub settings: Salt,
    /// Of the answer.
    pub output: Salt,
    /// Of the trace's root.
    pub trace: Salt,
}

impl Salts {
    /// From 64 random bytes, in the order of the fields.
    pub fn from_random(random: &[u8; 64]) -> Salts {
        let salt = |i: usize| std::array::from_fn(|byte| random[16 * i + byte]);
        Salts { prompt: salt(0), settings: salt(1), output: salt(2), trace: salt(3) }
    }
}

/// Content behind the hashes of a receipt.
#[derive(Clone, PartialEq, Debug)]
pub struct Opening {
    /// Token ids of the prompt.
    pub prompt: Vec<u32>,
    /// Token ids of the answer, a stop token included.
    pub output: Vec<u32>,
    /// How it was drawn.
    pub settings: Settings,
    /// What the hashes are salted with.
    pub salts: Salts,
    /// The trace's leaf of every position that was computed: all of the prompt, and the answer but for its last token.
    pub leaves: Vec<Hash>,
    /// What the seed was made of; none if the client chose it.
    pub seed: Option<SeedOrigin>,
}

impl Opening {
    /// [`Claims::prompt`].
    pub fn prompt_hash(&self) -> Hash {
        salted(Domain::Prompt, &self.salts.prompt, &token_bytes(&self.prompt))
    }

    /// [`Claims::settings`].
    pub fn settings_hash(&self) -> Hash {
        salted(Domain::Settings, &self.salts.settings, &self.settings.encode())
    }

    /// [`Claims::output`].
    pub fn output_hash(&self) -> Hash {
        salted(Domain::Output, &self.salts.output, &token_bytes(&self.output))
    }

    /// [`Claims::trace`].
    pub fn trace_root(&self) -> Hash {
        trace::root(&self.leaves, &self.salts.trace)
    }

    /// The same, hashing as [`trace::root_with`] does.
    pub fn trace_root_with(&self, hash_each: impl FnMut(&[u8], &mut [Hash])) -> Hash {
        trace::root_with(&self.leaves, &self.salts.trace, hash_each)
    }

    /// Whether this is what `claims` bind.
    pub fn check(&self, claims: &Claims) -> Result<(), Mismatch> {
        let (prompt, output, leaves) = (self.prompt.len() as u64, self.output.len() as u64, self.leaves.len() as u64);
        let needed = (prompt + output).saturating_sub(1);
        if claims.prompt_tokens != prompt {
            return Err(Mismatch::PromptTokens { claimed: claims.prompt_tokens, opened: prompt });
        }
        if claims.output_tokens != output {
            return Err(Mismatch::OutputTokens { claimed: claims.output_tokens, opened: output });
        }
        if claims.seed != self.settings.seed {
            return Err(Mismatch::Seed { claimed: claims.seed, opened: self.settings.seed });
        }
        self.check_seed(claims)?;
        if leaves != needed {
            return Err(Mismatch::Leaves { needed, opened: leaves });
        }
        let hashes = [
            (claims.prompt, self.prompt_hash(), Mismatch::Prompt),
            (claims.settings, self.settings_hash(), Mismatch::Settings),
            (claims.output, self.output_hash(), Mismatch::Output),
            (claims.trace, self.trace_root(), Mismatch::Trace),
        ];
        hashes.into_iter().find(|(claimed, opened, _)| claimed != opened).map_or(Ok(()), |(.., what)| Err(what))
    }

    /// Whether the seed is what the node's secret and the request make it. That the node had committed to the secret is
    /// for the log to tell ([`crate::Seeds::commits`]).
    fn check_seed(&self, claims: &Claims) -> Result<(), Mismatch> {
        match (&self.seed, claims.seed_number) {
            (None, None) => Ok(()),
            (Some(origin), Some(_)) => {
                let request = seed::request_hash(&claims.base, claims.adapter.as_ref(), &self.settings, &self.prompt);
                let derived = seed::derive(&origin.nonce, &origin.secret, &request);
                if derived == claims.seed { Ok(()) } else { Err(Mismatch::SeedDerivation) }
            }
            _ => Err(Mismatch::SeedOrigin),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.map(if self.seed.is_some() { 11 } else { 8 });
        writer.uint(1).bytes(&token_bytes(&self.prompt));
        writer.uint(2).bytes(&token_bytes(&self.output));
        writer.uint(3).item(&self.settings.encode());
        writer.uint(4).bytes(&self.salts.prompt);
        writer.uint(5).bytes(&self.salts.settings);
        writer.uint(6).bytes(&self.salts.output);
        writer.uint(7).bytes(&self.salts.trace);
        writer.uint(8).bytes(self.leaves.as_flattened());
        if let Some(origin) = &self.seed {
            writer.uint(9).bytes(&origin.nonce);
            writer.uint(10).bytes(&origin.secret);
            writer.uint(11).uint(origin.entry);
        }
        writer.finish()
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Opening, Malformed> {
        let mut fields = reader.fields()?;
        let opening = Opening {
            prompt: read_tokens(fields.required(1)?)?,
            output: read_tokens(fields.required(2)?)?,
            settings: Settings::read(fields.required(3)?)?,
            salts: Salts {
                prompt: fields.required(4)?.bytes_of()?,
                settings: fields.required(5)?.bytes_of()?,
                output: fields.required(6)?.bytes_of()?,
                trace: fields.required(7)?.bytes_of()?,
            },
            leaves: fields.required(8)?.groups_of()?.to_vec(),
            seed: match fields.optional(9)? {
                None => None,
                Some(reader) => {
                    let nonce = Nonce::from_bytes(reader.bytes()?).ok_or(Malformed::Range)?;
                    let secret = fields.required(10)?.bytes_of()?;
                    Some(SeedOrigin { nonce, secret, entry: fields.required(11)?.uint()? })
                }
            },
        };
        fields.finish()?;
        Ok(opening)
    }
}
