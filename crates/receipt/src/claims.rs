//! What a receipt says about an answer.

use crate::VERSION;
use crate::cbor::{Reader, Writer};
use crate::error::{Malformed, ReceiptError};
use crate::hash::Hash;

/// Why an answer ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finish {
    /// A stop token was drawn or a stop string appeared.
    Stop,
    /// The most tokens asked for were drawn.
    Length,
}

/// How the inputs of the base's linear maps were quantised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activations {
    /// To 8 bits.
    A8,
    /// To 16 bits.
    A16,
}

impl Activations {
    /// "a8" or "a16".
    pub fn name(self) -> &'static str {
        match self {
            Activations::A8 => "a8",
            Activations::A16 => "a16",
        }
    }

    /// The mode of this name.
    pub fn from_name(name: &str) -> Option<Activations> {
        [Activations::A8, Activations::A16].into_iter().find(|mode| mode.name() == name)
    }
}

/// Everything a receipt binds (docs/receipts.md). The hashes come from [`crate::Opening`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claims {
    /// Version of the arithmetic, which includes the sampler.
    pub arithmetic: u32,
    /// Activation mode.
    pub activations: Activations,
    /// Exact digest of the base model.
    pub base: Hash,
    /// Digest of the files the base was loaded from.
    pub base_files: Option<Hash>,
    /// Digest of the adapter; none is the base alone.
    pub adapter: Option<Hash>,
    /// Digest of the tokenizer.
    pub tokenizer: Option<Hash>,
    /// Digest of the chat template.
    pub template: Option<Hash>,
    /// Salted hash of the prompt's tokens.
    pub prompt: Hash,
    /// Salted hash of the settings.
    pub settings: Hash,
    /// Salted hash of the answer's tokens.
    pub output: Hash,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens of the answer, a stop token included.
    pub output_tokens: u64,
    /// Why the answer ended.
    pub finish: Finish,
    /// Key of the sampler's generator.
    pub seed: u64,
    /// Whether the client chose the seed.
    pub seed_from_client: bool,
    /// Which of the node's committed secrets the seed came from ([`crate::seed`]); none if the client chose it.
    pub seed_number: Option<u64>,
    /// Salted root of the trace.
    pub trace: Hash,
    /// When the receipt was made, in seconds since 1970.
    pub time_seconds: u64,
    /// Version of the price list that applies; 0 is none.
    pub price: u32,
    /// For how many seconds after `time_seconds` the node owes auditors what opens this receipt.
    pub opening_seconds: u32,
    /// How many receipts the node had made before this one.
    pub number: u64,
    /// Hash of the node's previous receipt; none before its first.
    pub previous: Option<Hash>,
}

impl Claims {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let digests = [self.base_files, self.adapter, self.tokenizer, self.template, self.previous];
        let optional = digests.iter().flatten().count() + usize::from(self.seed_number.is_some());
        let mut writer = Writer::default();
        writer.map(17 + optional);
        writer.uint(1).uint(VERSION);
        writer.uint(2).uint(self.arithmetic.into());
        writer.uint(3).text(self.activations.name());
        writer.uint(4).bytes(&self.base);
        for (key, digest) in (5..).zip([self.base_files, self.adapter, self.tokenizer, self.template]) {
            write_optional(&mut writer, key, digest);
        }
        writer.uint(9).bytes(&self.prompt);
        writer.uint(10).bytes(&self.settings);
        writer.uint(11).bytes(&self.output);
        writer.uint(12).uint(self.prompt_tokens);
        writer.uint(13).uint(self.output_tokens);
        writer.uint(14).uint(match self.finish {
            Finish::Stop => 0,
            Finish::Length => 1,
        });
        writer.uint(15).uint(self.seed);
        writer.uint(16).bool(self.seed_from_client);
        writer.uint(17).bytes(&self.trace);
        writer.uint(18).uint(self.time_seconds);
        writer.uint(19).uint(self.price.into());
        writer.uint(20).uint(self.number);
        write_optional(&mut writer, 21, self.previous);
        if let Some(number) = self.seed_number {
            writer.uint(22).uint(number);
        }
        writer.uint(23).uint(self.opening_seconds.into());
        writer.finish()
    }

    /// Whether fields that depend on each other agree.
    fn check(&self) -> Result<(), ReceiptError> {
        if self.seed_from_client == self.seed_number.is_some() {
            return Err(ReceiptError::Contradiction("a seed is either the client's or has a number"));
        }
        if (self.number == 0) != self.previous.is_none() {
            return Err(ReceiptError::Contradiction("only a node's first receipt has none before it"));
        }
        Ok(())
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Claims, ReceiptError> {
        let mut reader = Reader::new(bytes);
        let mut fields = reader.fields()?;
        let version = fields.required(1)?.uint()?;
        if version != VERSION {
            return Err(ReceiptError::Version(version));
        }
        let claims = Claims {
            arithmetic: fields.required(2)?.uint32()?,
            activations: Activations::from_name(fields.required(3)?.text()?).ok_or(Malformed::Range)?,
            base: fields.required(4)?.bytes_of()?,
            base_files: fields.optional(5)?.map(Reader::bytes_of).transpose()?,
            adapter: fields.optional(6)?.map(Reader::bytes_of).transpose()?,
            tokenizer: fields.optional(7)?.map(Reader::bytes_of).transpose()?,
            template: fields.optional(8)?.map(Reader::bytes_of).transpose()?,
            prompt: fields.required(9)?.bytes_of()?,
            settings: fields.required(10)?.bytes_of()?,
            output: fields.required(11)?.bytes_of()?,
            prompt_tokens: fields.required(12)?.uint()?,
            output_tokens: fields.required(13)?.uint()?,
            finish: match fields.required(14)?.uint()? {
                0 => Finish::Stop,
                1 => Finish::Length,
                _ => return Err(Malformed::Range.into()),
            },
            seed: fields.required(15)?.uint()?,
            seed_from_client: fields.required(16)?.bool()?,
            trace: fields.required(17)?.bytes_of()?,
            time_seconds: fields.required(18)?.uint()?,
            price: fields.required(19)?.uint32()?,
            number: fields.required(20)?.uint()?,
            previous: fields.optional(21)?.map(Reader::bytes_of).transpose()?,
            seed_number: fields.optional(22)?.map(Reader::uint).transpose()?,
            opening_seconds: fields.required(23)?.uint32()?,
        };
        fields.finish()?;
        reader.finish()?;
        claims.check()?;
        Ok(claims)
    }
}

fn write_optional(writer: &mut Writer, key: u64, digest: Option<Hash>) {
    if let Some(digest) = digest {
        writer.uint(key).bytes(&digest);
    }
}
