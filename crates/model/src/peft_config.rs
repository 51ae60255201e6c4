//! `adapter_config.json` of PEFT: rank and alpha of each module, and everything that would make the adapter more than
//! a plain LoRA, refused by name.

use crate::ModelError;
use crate::keys::{Keys, read_json};
use regex::{Regex, RegexBuilder};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::fmt;
use std::path::Path;

/// Compiled size a pattern may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;
const PATTERNS_MAX: usize = 10_000;

/// What decides rank and gain of each module.
#[derive(Debug)]
pub(crate) struct LoraConfig {
    rank: usize,
    alpha: f64,
    square_root: bool,
    ranks: Patterns<usize>,
    alphas: Patterns<f64>,
}

/// Values by pattern; the first pattern that matches a module's path counts.
#[derive(Debug)]
struct Patterns<T>(Vec<(Regex, T)>);

impl<T: Copy> Patterns<T> {
    fn get(&self, module: &str) -> Option<T> {
        self.0.iter().find(|(pattern, _)| pattern.is_match(module)).map(|(_, value)| *value)
    }
}

/// Keys that make it another kind of adapter if they are set to anything but null, false or nothing.
const REFUSED: [(&str, &str); 16] = [
    ("use_dora", "DoRA"),
    ("use_qalora", "QALoRA"),
    ("use_bdlora", "block-diagonal LoRA"),
    ("modules_to_save", "replacing whole modules"),
    ("lora_bias", "a bias in the adapter"),
    ("fan_in_fan_out", "transposed weights"),
    ("target_parameters", "adapters on parameters that are not linear maps"),
    ("trainable_token_indices", "retrained embeddings"),
    ("alora_invocation_tokens", "activated LoRA"),
    ("layer_replication", "replicated layers"),
    ("arrow_config", "Arrow routing"),
    ("kasa_config", "KaSA"),
    ("monteclora_config", "MonteCLoRA"),
    ("velora_config", "VeLoRA"),
    ("megatron_config", "Megatron layers"),
    ("loftq_config", "LoftQ, which changes the base"),
];

/// Initialisations that move part of the base into the adapter: it only fits the base they left behind.
const MOVES_THE_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

impl LoraConfig {
    pub(crate) fn read(path: &Path) -> Result<LoraConfig, ModelError> {
        let value = read_json(path)?;
        let keys = Keys::new(path, &value)?;
        refuse_what_is_not_plain(keys)?;
        let text = std::fs::read(path).map_err(ModelError::read(path))?;
        let ordered: Ordered =
            serde_json::from_slice(&text).map_err(|source| ModelError::Json { path: path.to_owned(), source })?;
        let rank = keys.integer("r", 1..=exact::INPUTS_MAX)?;
        Ok(LoraConfig {
            rank,
            alpha: keys.float_if_there("lora_alpha", -1e9..=1e9)?.unwrap_or(8.0),
            square_root: keys.flag("use_rslora")?,
            ranks: patterns(keys, "rank_pattern", &ordered.rank_pattern, |value| {
                value.as_u64().map(|rank| rank as usize).filter(|rank| (1..=exact::INPUTS_MAX).contains(rank))
            })?,
            alphas: patterns(keys, "alpha_pattern", &ordered.alpha_pattern, |value| {
                value.as_f64().filter(|alpha| alpha.abs() <= 1e9)
            })?,
        })
    }

    /// The rank of a module's adapter.
    pub(crate) fn rank(&self, module: &str) -> usize {
        self.ranks.get(module).unwrap_or(self.rank)
    }

    /// What its output is multiplied by.
    pub(crate) fn gain(&self, module: &str) -> f32 {
        let (alpha, rank) = (self.alphas.get(module).unwrap_or(self.alpha), self.rank(module) as f64);
        (if self.square_root { alpha / rank.sqrt() } else { alpha / rank }) as f32
    }
}

fn refuse_what_is_not_plain(keys: Keys<'_>) -> Result<(), ModelError> {
    let refuse = |feature: String| {
        Err(ModelError::unsupported(keys.path, feature, "only plain LoRA on linear maps is; train or convert to that"))
    };
    match keys.text("peft_type")? {
        Some("LORA") => {}
        other => return refuse(format!("peft_type {}", other.unwrap_or("(none)"))),
    }
    for (key, what) in REFUSED {
        if keys.value(key).is_some_and(is_set) {
            return refuse(format!("{key} ({what})"));
        }
    }
    if let Some((key, _)) =
        keys.entries().find(|(key, value)| key.starts_with("use_") && *key != "use_rslora" && is_set(value))
    {
        return refuse(format!("{key}, which is unknown,"));
    }
    if let Some(bias) = keys.text("bias")?.filter(|bias| *bias != "none") {
        return refuse(format!("bias {bias}"));
    }
    if let Some(Value::String(init)) = keys.value("init_lora_weights")
        && MOVES_THE_BASE.iter().any(|name| init.to_lowercase().starts_with(name))
    {
        let advice = "it fits only a changed base; save it with path_initial_model_for_weight_conversion";
        return Err(ModelError::unsupported(keys.path, format!("init_lora_weights {init}"), advice));
    }
    Ok(())
}

/// Whether a value is more than false or empty.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    }
}

fn patterns<T>(
    keys: Keys<'_>,
    key: &str,
    entries: &[(String, Value)],
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Patterns<T>, ModelError> {
    if entries.len() > PATTERNS_MAX {
        return Err(keys.error(key, format!("more than {PATTERNS_MAX} patterns")));
    }
    let compile = |(pattern, value): &(String, Value)| {
        let value_read = read(value).ok_or_else(|| keys.error(key, format!("{pattern}: {value} cannot be")))?;
        // As PEFT matches: the pattern is the module's path or its end, from a dot on.
        let regex = RegexBuilder::new(&format!(r"^(?:.*\.)?(?:{pattern})$"))
            .size_limit(PATTERN_BYTES_MAX)
            .dfa_size_limit(PATTERN_BYTES_MAX)
            .build()
            .map_err(|_| keys.error(key, format!("{pattern:?} is not a pattern that can be matched")))?;
        Ok((regex, value_read))
    };
    Ok(Patterns(entries.iter().map(compile).collect::<Result<_, _>>()?))
}

/// The two tables whose order matters.
#[derive(serde::Deserialize)]
struct Ordered {
    #[serde(default, deserialize_with = "in_order")]
    rank_pattern: Vec<(String, Value)>,
    #[serde(default, deserialize_with = "in_order")]
    alpha_pattern: Vec<(String, Value)>,
}

fn in_order<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, Value)>, D::Error> {
    struct InOrder;
    impl<'de> Visitor<'de> for InOrder {
        type Value = Vec<(String, Value)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table of patterns")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(vec![])
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = vec![];
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }
    deserializer.deserialize_any(InOrder)
}
