//! Where models and adapters come from: a folder, a repository's name, or the demo inside the binary.

use crate::demo;
use crate::failure::Failure;
use crate::progress::LoadBar;
use clap::Args;
use exact::{Activations, Isa};
use model::hub::Hub;
use model::{Adapter, LoadOptions, Model, Origin, Text};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which base model to run, and how.
#[derive(Args, Clone, Debug)]
pub(crate) struct ModelArgs {
    /// Folder of a Hugging Face checkpoint, or the name of a repository (org/name or org/name@revision). Without it: the
    /// demo, a small shop's help desk of 5.5 million parameters with five adapters.
    #[arg(long, value_name = "DIR|REPO")]
    pub(crate) model: Option<String>,
    /// Bits of the inputs of linear maps: a8 is faster on prompts, a16 more precise. Part of the model's identity.
    #[arg(long, default_value = "a8", value_name = "a8|a16")]
    pub(crate) activations: Activations,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Folder for everything kept between runs: quantised models, receipts, the node's key.
    #[arg(long, value_name = "DIR", env = "LOCKSTEP_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// Do not keep or use a quantised copy on disk.
    #[arg(long)]
    pub(crate) no_cache: bool,
}

/// Which part of the machine to use. Nothing here changes a bit of any result.
#[derive(Args, Clone, Debug)]
pub(crate) struct MachineArgs {
    /// Threads that compute. Default: all processors.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Instruction set. Default: the fastest this machine has.
    #[arg(long, value_name = "scalar|avx2|avx512|amx|neon|dotprod")]
    isa: Option<String>,
}

impl MachineArgs {
    pub(crate) fn threads(&self) -> usize {
        let all = std::thread::available_parallelism().map_or(1, |n| n.get());
        self.threads.map_or(all, usize::from)
    }

    pub(crate) fn isa(&self) -> Result<Isa, Failure> {
        Ok(self.isa.as_deref().map_or(Ok(Isa::best()), str::parse)?)
    }
}

/// A base model with its words.
pub(crate) struct Base {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) model: Arc<Model>,
}

impl Base {
    pub(crate) fn text(&self) -> Result<Arc<Text>, Failure> {
        Ok(Arc::new(Text::load(&self.folder)?))
    }
}

impl ModelArgs {
    /// The data folder, created.
    pub(crate) fn data_folder(&self) -> Result<PathBuf, Failure> {
        data_folder(self.data.as_deref())
    }

    /// Loads the base model, showing how far it has come.
    pub(crate) fn load(&self) -> Result<Base, Failure> {
        let name = self.model.as_deref().map_or("lockstep-demo".to_owned(), name_of);
        let folder = model_folder(self)?;
        let bar = LoadBar::new(&name);
        let progress = |progress| bar.show(progress);
        let options = LoadOptions {
            activations: self.activations,
            isa: self.machine.isa()?,
            threads: self.machine.threads(),
            cache: if self.no_cache { None } else { Some(self.data_folder()?.join("models")) },
            progress: Some(&progress),
        };
        let model = Model::load(&folder, &options)?;
        bar.finish();
        if let Origin::Checkpoint { cache_complaint: Some(complaint), .. } = &model.origin {
            eprintln!("note: {complaint}");
        }
        Ok(Base { name, folder, model: Arc::new(model) })
    }

    /// Loads an adapter for `base`.
    pub(crate) fn load_adapter(&self, base: &Base, argument: &str) -> Result<Adapter, Failure> {
        Ok(Adapter::load(&self.adapter_folder(argument)?, &base.model, self.machine.isa()?)?)
    }

    /// The folder of an adapter. The demo's adapters go by their names.
    pub(crate) fn adapter_folder(&self, argument: &str) -> Result<PathBuf, Failure> {
        let own = demo::ADAPTERS.contains(&argument) && self.model.is_none();
        if own { Ok(demo::unpack(&self.data_folder()?)?.join("adapters").join(argument)) } else { fetch(argument) }
    }
}

/// The data folder, the usual one if none is given; created.
pub(crate) fn data_folder(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let folder = match given {
        Some(folder) => folder.to_owned(),
        None => default_data_folder()?,
    };
    std::fs::create_dir_all(&folder).map_err(crate::failure::io(&folder))?;
    Ok(folder)
}

/// The folder of the base model, fetched or unpacked if need be.
pub(crate) fn model_folder(model: &ModelArgs) -> Result<PathBuf, Failure> {
    match &model.model {
        None => Ok(demo::unpack(&model.data_folder()?)?.join("base")),
        Some(argument) => fetch(argument),
    }
}

/// `NAME=DIR`, or a name of the demo's.
pub(crate) fn named_adapter(argument: &str) -> Result<(String, String), Failure> {
    match argument.split_once('=') {
        Some((name, folder)) if !name.is_empty() && !folder.is_empty() => Ok((name.to_owned(), folder.to_owned())),
        None if demo::ADAPTERS.contains(&argument) => Ok((argument.to_owned(), argument.to_owned())),
        _ => Err(Failure(format!(
            "--adapter {argument}: write it as NAME=DIR, the name clients will use and its folder"
        ))),
    }
}

fn fetch(argument: &str) -> Result<PathBuf, Failure> {
    let bar = crate::progress::fetch_bar();
    let watch = |name: &str, done: u64, total: u64| {
        bar.set_message(name.to_owned());
        bar.set_length(total);
        bar.set_position(done);
    };
    let folder = Hub::from_environment().resolve(argument, Some(&watch))?;
    bar.finish_and_clear();
    Ok(folder)
}

fn name_of(argument: &str) -> String {
    let last = Path::new(argument).file_name().map(|name| name.to_string_lossy().into_owned());
    let last = last.unwrap_or_else(|| argument.to_owned());
    if Path::new(argument).is_dir() { last } else { argument.split('@').next().unwrap_or(argument).to_owned() }
}

fn default_data_folder() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_DATA_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/share")))
        .map(|folder| folder.join("lockstep"))
        .ok_or_else(|| Failure("there is no home folder to keep data in: name one with --data DIR".to_owned()))
}
