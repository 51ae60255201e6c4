//! Text and conversations become tokens, and tokens text: the checkpoint's tokenizer and chat template.

use crate::bytes::{Spelling, TokenBytes};
use crate::chat::{ChatTemplate, Message, Specials};
use crate::digest::Transcript;
use crate::guard::Guard;
use crate::keys::{Keys, read_json_if_there};
use crate::merkle::Hash;
use crate::{Decoder, ModelError};
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tokenizers::{DecoderWrapper, Tokenizer};

/// The names special tokens have in tokenizer_config.json.
const SPECIALS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A tokenizer, and a chat template if the checkpoint has one.
pub struct Text {
    path: PathBuf,
    tokenizer: Tokenizer,
    /// The same, to which special tokens are text; made when it is first needed.
    plain: OnceLock<Tokenizer>,
    /// How special tokens are written.
    special_names: Vec<String>,
    spelling: Option<Spelling>,
    template: Option<ChatTemplate>,
    ends: Vec<u32>,
    falls_back_to_bytes: bool,
    tokenizer_digest: Hash,
    template_digest: Option<Hash>,
}

impl Text {
    /// Reads `tokenizer.json` of a checkpoint's folder; `tokenizer_config.json`, `chat_template.jinja`,
    /// `generation_config.json` and `config.json` where they are there.
    ///
    /// # Errors
    /// No tokenizer.json, or one of the files is damaged.
    pub fn load(folder: &Path) -> Result<Text, ModelError> {
        let path = folder.join("tokenizer.json");
        if !path.is_file() {
            let what = "there is no such file; save the tokenizer in its fast form (tokenizer.json)";
            return Err(ModelError::text(&path, what));
        }
        let bytes = std::fs::read(&path).map_err(ModelError::read(&path))?;
        let read = || {
            let mut tokenizer = Tokenizer::from_bytes(&bytes)?;
            tokenizer.with_truncation(None)?;
            tokenizer.with_padding(None);
            Ok(tokenizer)
        };
        let wrong = |error| ModelError::text(&path, format!("the tokenizer cannot be read: {error}"));
        let tokenizer = guarded(read).map_err(wrong)?;
        let config_path = folder.join("tokenizer_config.json");
        let config = read_json_if_there(&config_path)?.unwrap_or_else(|| Value::Object(Default::default()));
        let config = Keys::new(&config_path, &config)?;
        let specials = read_specials(config);
        let source = read_template(folder, config)?;
        let mut digest = Transcript::new("lockstep tokenizer digest 1");
        digest.hash(blake3::hash(&bytes).as_bytes());
        let template_digest = source.as_ref().map(|(_, source)| digest_of(source, &specials));
        let ends = read_ends(folder, &tokenizer, &specials)?;
        let template = match source {
            Some((path, source)) => {
                Some(ChatTemplate::new(&source, specials).map_err(|error| ModelError::text(&path, error))?)
            }
            None => None,
        };
        let added = tokenizer.get_added_tokens_decoder().into_values();
        Ok(Text {
            plain: OnceLock::new(),
            special_names: added.filter(|token| token.special).map(|token| token.content).collect(),
            spelling: Spelling::of(&tokenizer),
            falls_back_to_bytes: tokenizer.get_decoder().is_some_and(falls_back_to_bytes),
            tokenizer_digest: digest.finish(),
            path,
            tokenizer,
            template,
            ends,
            template_digest,
        })
    }

    /// Token ids of a text; with `add_special_tokens` the tokenizer adds what starts a text (a beginning of sequence).
    ///
    /// # Errors
    /// The tokenizer cannot encode it.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, ModelError> {
        let encode = || Ok(self.tokenizer.encode_fast(text, add_special_tokens)?.get_ids().to_vec());
        guarded(encode).map_err(|error| self.error(error))
    }

    /// A conversation as the text the model was trained on; it ends where the assistant's answer starts.
    ///
    /// # Errors
    /// The checkpoint has no chat template, or the template refuses the conversation.
    pub fn render_chat(&self, messages: &[Message]) -> Result<String, ModelError> {
        self.render(&self.values(messages)?, &Value::Null)
    }

    /// Token ids of a conversation in which `tools` (objects of OpenAI's form) can be called; the assistant's answer
    /// comes next. Special tokens that messages or tools spell are text, those that the template writes are not.
    ///
    /// # Errors
    /// As [`Text::render_chat`] and [`Text::encode`].
    pub fn encode_chat(&self, messages: &[Message], tools: &[Value]) -> Result<Vec<u32>, ModelError> {
        let (mut messages, mut tools) = (self.values(messages)?, Value::from(tools.to_vec()));
        let guard = Guard::needed(&self.special_names, [&messages, &tools].into_iter());
        let Some(guard) = guard else { return self.encode(&self.render(&messages, &tools)?, false) };
        guard.break_in(&mut messages);
        guard.break_in(&mut tools);
        let rendered = self.render(&messages, &tools)?;
        guarded(|| self.encode_guarded(&rendered, guard.mark())).map_err(|error| self.error(error))
    }

    /// Real special tokens cut the text into stretches; those that hold the mark are taken again without it.
    fn encode_guarded(&self, rendered: &str, mark: char) -> tokenizers::Result<Vec<u32>> {
        let plain = self.plain.get_or_init(|| {
            let mut plain = self.tokenizer.clone();
            plain.set_encode_special_tokens(true);
            plain
        });
        let encoding = self.tokenizer.encode(rendered, false)?;
        let (ids, offsets) = (encoding.get_ids(), encoding.get_offsets());
        let special: Vec<bool> = ids.iter().map(|id| self.is_special(*id)).collect();
        let (mut tokens, mut at, mut end) = (vec![], 0, 0);
        while at < ids.len() {
            if special[at] {
                tokens.push(ids[at]);
                end = offsets[at].1;
                at += 1;
                continue;
            }
            let next = (at..ids.len()).find(|i| special[*i]).unwrap_or(ids.len());
            let stretch = rendered.get(end..offsets.get(next).map_or(rendered.len(), |offset| offset.0));
            match stretch.filter(|stretch| stretch.contains(mark)) {
                None => tokens.extend_from_slice(&ids[at..next]),
                Some(stretch) => tokens.extend_from_slice(plain.encode(stretch.replace(mark, ""), false)?.get_ids()),
            }
            at = next;
        }
        Ok(tokens)
    }

    fn values(&self, messages: &[Message]) -> Result<Value, ModelError> {
        serde_json::to_value(messages).map_err(|error| self.error(error))
    }

    fn render(&self, messages: &Value, tools: &Value) -> Result<String, ModelError> {
        let Some(template) = &self.template else {
            let what = "the checkpoint has no chat template: send plain text, or put chat_template.jinja beside it";
            return Err(ModelError::text(&self.path, what));
        };
        template.render(messages, tools, true).map_err(|error| self.error(error))
    }

    /// The chat template as the checkpoint has it.
    pub fn template_source(&self) -> Option<&str> {
        self.template.as_ref().map(ChatTemplate::source)
    }

    /// What a token stands for; nothing for ids without a meaning, and for all ids of a tokenizer whose tokens are not
    /// bytes of the text.
    pub fn token_bytes(&self, token: u32) -> Option<TokenBytes> {
        let written = self.tokenizer.id_to_token(token)?;
        if self.tokenizer.get_added_vocabulary().is_special_token(&written) {
            return Some(TokenBytes::Special(written));
        }
        if self.tokenizer.get_added_vocabulary().get_vocab().contains_key(&written) {
            return Some(TokenBytes::Text(written.into_bytes()));
        }
        Some(TokenBytes::Text(self.spelling?.bytes(&written)))
    }

    fn is_special(&self, token: u32) -> bool {
        let special = |name: String| self.tokenizer.get_added_vocabulary().is_special_token(&name);
        self.tokenizer.id_to_token(token).is_some_and(special)
    }

    /// The text of tokens; special tokens are left out if `skip_special`. Ids that mean nothing give no text.
    ///
    /// # Errors
    /// The tokenizer cannot decode them.
    pub fn decode(&self, tokens: &[u32], skip_special: bool) -> Result<String, ModelError> {
        guarded(|| self.tokenizer.decode(tokens, skip_special)).map_err(|error| self.error(error))
    }

    /// A decoder for tokens that arrive one by one.
    pub fn decoder(&self, skip_special: bool) -> Decoder {
        Decoder::new(skip_special)
    }

    /// Tokens that end a sequence, ascending: those of generation_config.json, config.json and the tokenizer.
    pub fn end_tokens(&self) -> &[u32] {
        &self.ends
    }

    /// The id of a token by its exact text.
    pub fn token(&self, text: &str) -> Option<u32> {
        self.tokenizer.token_to_id(text)
    }

    /// One more than the largest token id.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }

    /// Whether there is a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }

    /// Digest of the tokenizer.
    pub fn tokenizer_digest(&self) -> Hash {
        self.tokenizer_digest
    }

    /// Digest of the chat template and the special tokens it prints.
    pub fn template_digest(&self) -> Option<Hash> {
        self.template_digest
    }

    /// Whether a token is one byte, to be joined with its neighbours.
    pub(crate) fn is_byte(&self, token: u32) -> bool {
        let hex = |name: String| name.len() == 6 && name.starts_with("<0x") && name.ends_with('>');
        self.falls_back_to_bytes && self.tokenizer.id_to_token(token).is_some_and(hex)
    }

    /// Whether decoding leaves a token out.
    pub(crate) fn is_silent(&self, token: u32, skip_special: bool) -> bool {
        let special = |name: String| skip_special && self.tokenizer.get_added_vocabulary().is_special_token(&name);
        self.tokenizer.id_to_token(token).is_none_or(special)
    }

    fn error(&self, error: impl ToString) -> ModelError {
        ModelError::text(&self.path, error.to_string())
    }
}

/// Runs code of the tokenizer, which panics on some damaged files.
fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("it makes the tokenizer's own code fail; is the file damaged?".to_owned()),
    }
}

fn falls_back_to_bytes(decoder: &DecoderWrapper) -> bool {
    match decoder {
        DecoderWrapper::ByteFallback(_) => true,
        DecoderWrapper::Sequence(sequence) => sequence.get_decoders().iter().any(falls_back_to_bytes),
        _ => false,
    }
}

/// Special tokens: text, or an object with `content`.
fn read_specials(config: Keys<'_>) -> Specials {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        value => Some(value.get("content")?.as_str()?.to_owned()),
    };
    SPECIALS.into_iter().filter_map(|name| Some((name.to_owned(), text(config.value(name)?)?))).collect()
}

/// The chat template and the file it is in: chat_template.jinja before tokenizer_config.json, of several the one named
/// default.
fn read_template(folder: &Path, config: Keys<'_>) -> Result<Option<(PathBuf, String)>, ModelError> {
    let path = folder.join("chat_template.jinja");
    if path.is_file() {
        let source = std::fs::read_to_string(&path).map_err(ModelError::read(&path))?;
        return Ok(Some((path, source)));
    }
    let source = match config.value("chat_template") {
        None => return Ok(None),
        Some(Value::String(source)) => Some(source.as_str()),
        Some(Value::Array(named)) => {
            let default = named.iter().find(|entry| entry.get("name").is_some_and(|name| name == "default"));
            default.or(named.first().filter(|_| named.len() == 1)).and_then(|entry| entry.get("template")?.as_str())
        }
        Some(_) => None,
    };
    match source {
        Some(source) => Ok(Some((config.path.to_owned(), source.to_owned()))),
        None => Err(config.error("chat_template", "it is neither a template nor a list with one named default")),
    }
}

fn digest_of(source: &str, specials: &Specials) -> Hash {
    let mut digest = Transcript::new("lockstep template digest 1");
    digest.text(source);
    digest.number(specials.len());
    for (name, token) in specials {
        digest.text(name);
        digest.text(token);
    }
    digest.finish()
}

fn read_ends(folder: &Path, tokenizer: &Tokenizer, specials: &Specials) -> Result<Vec<u32>, ModelError> {
    let eos = specials.iter().find(|(name, _)| name == "eos_token");
    let mut ends: Vec<u32> = eos.and_then(|(_, token)| tokenizer.token_to_id(token)).into_iter().collect();
    for name in ["generation_config.json", "config.json"] {
        let path = folder.join(name);
        let Some(value) = read_json_if_there(&path)? else { continue };
        let keys = Keys::new(&path, &value)?;
        let Some(value) = keys.value("eos_token_id") else { continue };
        let ids = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for id in ids {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            ends.push(id.ok_or_else(|| keys.error("eos_token_id", format!("{value} is not a list of token ids")))?);
        }
        // What generation stops at is said in generation_config.json; config.json stands in for it.
        break;
    }
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}
