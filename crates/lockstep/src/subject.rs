//! An answer that is to be checked: its bundle, and the base and adapter its receipt names.

use crate::demo;
use crate::failure::{Failure, io};
use crate::source::{Base, ModelArgs, model_folder, named_adapter};
use clap::Args;
use exact::Activations;
use model::{Adapter, Text};
use receipt::{Bundle, Claims, Receipt, SigningKey};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Which answer, on which model.
#[derive(Args, Clone, Debug)]
pub(crate) struct SubjectArgs {
    /// What `/v1/receipts/{id}` gave, as a file.
    pub(crate) receipt: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Adapters the answer may have used. Without --model: the demo's are known.
    #[arg(long = "adapter", value_name = "NAME=DIR")]
    pub(crate) adapters: Vec<String>,
}

/// An answer and what it names.
pub(crate) struct Subject {
    pub(crate) bundle: Bundle,
    pub(crate) claims: Claims,
    pub(crate) base: Base,
    pub(crate) adapter: Option<Adapter>,
}

/// Bytes a file of a check may have.
const FILE_BYTES_MAX: u64 = 4 << 30;

impl SubjectArgs {
    /// Reads the bundle.
    pub(crate) fn bundle(&self) -> Result<Bundle, Failure> {
        Bundle::from_bytes(&read(&self.receipt)?).map_err(|error| self.wrong(&error))
    }

    /// What its receipt says.
    pub(crate) fn claims(&self) -> Result<Claims, Failure> {
        Ok(Receipt::parse(&self.bundle()?.receipt).map_err(|error| self.wrong(&error))?.claims)
    }

    fn wrong(&self, error: &receipt::ReceiptError) -> Failure {
        Failure(format!("{}: {error}", self.receipt.display()))
    }

    /// Reads the bundle and loads what it names.
    pub(crate) fn load(&self) -> Result<Subject, Failure> {
        let bundle = self.bundle()?;
        let claims = Receipt::parse(&bundle.receipt).map_err(|error| self.wrong(&error))?.claims;
        let model = in_its_mode(&self.model, &claims);
        let base = model.load()?;
        let adapter = load_adapters(&model, &self.adapters, &base)?
            .into_iter()
            .find(|adapter| Some(adapter.digest) == claims.adapter);
        if adapter.is_none() && claims.adapter.is_some() {
            return Err(Failure("the receipt names an adapter: give it with --adapter NAME=DIR".to_owned()));
        }
        Ok(Subject { bundle, claims, base, adapter })
    }
}

/// The receipt says in which mode the answer was computed; its digest says whether that is true.
pub(crate) fn in_its_mode(model: &ModelArgs, claims: &Claims) -> ModelArgs {
    let activations = match claims.activations {
        receipt::Activations::A8 => Activations::A8,
        receipt::Activations::A16 => Activations::A16,
    };
    ModelArgs { activations, ..model.clone() }
}

/// All adapters that are named, the demo's included.
pub(crate) fn load_adapters(model: &ModelArgs, named: &[String], base: &Base) -> Result<Vec<Adapter>, Failure> {
    let mut names = named.to_vec();
    if model.model.is_none() {
        names.extend(demo::ADAPTERS.iter().map(|name| (*name).to_owned()));
    }
    names.iter().map(|name| model.load_adapter(base, &named_adapter(name)?.1)).collect()
}

/// The tokenizer of a model, without its weights.
pub(crate) fn text(model: &ModelArgs) -> Result<Text, Failure> {
    Ok(Text::load(&model_folder(model)?)?)
}

/// A file's bytes.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(io(path))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io(path))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure(format!("{}: too large", path.display())));
    }
    Ok(bytes)
}

/// Writes a file.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes).map_err(io(path))
}

/// An Ed25519 key from a file of 64 hexadecimal digits.
pub(crate) fn read_key(path: &Path) -> Result<SigningKey, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure(format!(
            "{}: there is no such file; a node makes its key when `lockstep up` first runs, in the folder that --data names",
            path.display()
        )),
        _ => io(path)(error),
    })?;
    let wrong = || Failure(format!("{}: 64 hexadecimal digits are needed", path.display()));
    Ok(SigningKey::from_bytes(&from_hex(text.trim()).and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)?))
}

/// The key in a file, made if there is none.
pub(crate) fn own_key(path: &Path) -> Result<SigningKey, Failure> {
    if !path.exists() {
        let text = format!("{}\n", crate::score::hex(&random()?));
        let made = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
        made.and_then(|mut file| file.write_all(text.as_bytes())).map_err(io(path))?;
    }
    read_key(path)
}

/// Makes a file its owner's alone.
pub(crate) fn restrict(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(io(path))
}

/// 32 random bytes from the operating system.
pub(crate) fn random() -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Failure(format!("no random numbers: {error}")))?;
    Ok(bytes)
}

/// Bytes from hexadecimal digits.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.is_ascii() && text.len().is_multiple_of(2);
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).ok();
    if digits { (0..text.len()).step_by(2).map(byte).collect() } else { None }
}
