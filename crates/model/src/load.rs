//! A checkpoint's folder becomes a [`Model`].

use crate::cache::{Cache, Found};
use crate::digest;
use crate::files::{self, Files};
use crate::parts::{self, Slot};
use crate::quantise::Source;
use crate::tensors::Tensors;
use crate::{Config, Model, ModelError, Origin, Plan, Quantization, Weights, parallel};
use exact::{Activations, Isa};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// How far loading has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Bytes of it that are done.
    pub done_bytes: u64,
    /// Bytes there are.
    pub total_bytes: u64,
}

/// What loading is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Hashing the checkpoint's files.
    Hash,
    /// Reading and quantising its tensors.
    Quantise,
    /// Reading the quantised form from the cache.
    ReadCache,
    /// Computing the exact digest.
    Digest,
    /// Writing the quantised form to the cache.
    WriteCache,
}

/// How to load a model.
#[derive(Clone)]
pub struct LoadOptions<'a> {
    /// How the inputs of its linear maps will be quantised.
    pub activations: Activations,
    /// The instruction set to quantise with; the result is the same for all.
    pub isa: Isa,
    /// Threads to read, quantise and hash with.
    pub threads: usize,
    /// Folder for quantised models, so that a later start need not quantise again.
    pub cache: Option<PathBuf>,
    /// Called from any of the threads as loading goes on.
    pub progress: Option<&'a (dyn Fn(Progress) + Sync)>,
}

impl LoadOptions<'_> {
    /// The fastest instruction set, all processors, no cache.
    pub fn new(activations: Activations) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
        LoadOptions { activations, isa: Isa::best(), threads, cache: None, progress: None }
    }

    pub(crate) fn meter(&self, stage: Stage, total_bytes: u64) -> Meter<'_> {
        Meter { stage, total_bytes, done_bytes: AtomicU64::new(0), progress: self.progress }
    }
}

/// Counts bytes of one stage and reports them.
pub(crate) struct Meter<'a> {
    stage: Stage,
    total_bytes: u64,
    done_bytes: AtomicU64,
    progress: Option<&'a (dyn Fn(Progress) + Sync)>,
}

impl Meter<'_> {
    pub(crate) fn add(&self, bytes: u64) {
        let done_bytes = self.done_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(progress) = self.progress {
            progress(Progress { stage: self.stage, done_bytes, total_bytes: self.total_bytes });
        }
    }
}

impl Model {
    /// Loads the checkpoint in `folder`: from the cache if it holds these very files, otherwise tensor by tensor, each
    /// quantised as it is read, and then into the cache. [`Model::origin`] says which.
    ///
    /// # Errors
    /// A file is missing, damaged or changes meanwhile, a tensor is missing or not as config.json says, weights are not
    /// finite, or the checkpoint needs something this engine does not do. A damaged or unwritable cache is no error:
    /// see [`Origin`].
    pub fn load(folder: &Path, options: &LoadOptions<'_>) -> Result<Model, ModelError> {
        if !exact::float_environment_is_standard() {
            return Err(ModelError::FloatEnvironment);
        }
        let config = Config::read(folder)?;
        let plan = Plan::new(&config.shape);
        let files = Files::of(folder)?;
        let cache = options.cache.as_deref().map(Cache::at);
        let file_digest = known_digest(&files, cache.as_ref(), options)?;
        let mut complaint = None;
        let key = Cache::key(&file_digest, options.activations);
        match cache.as_ref().map(|cache| cache.read(&key, &config.shape, &plan, options)) {
            None | Some(Found::Nothing) => {}
            Some(Found::Damaged(what)) => complaint = Some(what),
            Some(Found::Model { weights, digest }) => {
                let origin = Origin::Cache { file_digest };
                return Ok(Model::of(config, plan, weights, options.activations, digest, origin));
            }
        }
        let weights = quantise(folder, &config, &plan, options)?;
        files.check_unchanged()?;
        let meter = options.meter(Stage::Digest, weights.bytes() as u64);
        let digest = digest::exact(&config.shape, &plan, &weights, options.activations, options.threads);
        meter.add(weights.bytes() as u64);
        if let Some(cache) = &cache
            && let Err(error) = cache.write(&key, &config.shape, &plan, &weights, &digest, options)
        {
            complaint = Some(format!("the quantised model was not kept: {error}"));
        }
        let origin = Origin::Checkpoint { file_digest, cache_complaint: complaint };
        Ok(Model::of(config, plan, weights, options.activations, digest, origin))
    }

    fn of(
        config: Config,
        plan: Plan,
        weights: Weights,
        activations: Activations,
        digest: [u8; 32],
        origin: Origin,
    ) -> Model {
        Model { shape: config.shape, plan, weights, activations, digest, origin }
    }
}

/// The file digest, each file's hash taken from the cache's index where that knows the file as it is now.
fn known_digest(files: &Files, cache: Option<&Cache>, options: &LoadOptions<'_>) -> Result<[u8; 32], ModelError> {
    let mut index = cache.map(Cache::read_index).unwrap_or_default();
    let meter = options.meter(Stage::Hash, files.files.iter().map(|(_, stamp)| stamp.bytes).sum());
    let mut hashes = vec![];
    for (_, stamp) in &files.files {
        let hash = match index.get(stamp) {
            Some(hash) => hash,
            None => {
                let hash = files::hash_file(&stamp.path, options.threads)?;
                index.insert(stamp, hash);
                hash
            }
        };
        meter.add(stamp.bytes);
        hashes.push(hash);
    }
    files.check_unchanged()?;
    if let Some(cache) = cache {
        cache.write_index(&index);
    }
    Ok(files.digest(&hashes))
}

fn quantise(folder: &Path, config: &Config, plan: &Plan, options: &LoadOptions<'_>) -> Result<Weights, ModelError> {
    let tensors = Tensors::open(folder)?;
    let slots = parts::slots(&config.shape, plan);
    let source = Source::new(config, plan, &tensors, options.isa)?;
    let bytes = slots.iter().map(|slot| source.check(slot)).collect::<Result<Vec<_>, _>>()?;
    if config.quantization == Quantization::Int8 && !tensors.hold_integers() {
        let what = "it says the weights are int8, but none is";
        return Err(ModelError::setting(&folder.join("config.json"), "quantization_config", what));
    }
    let meter = options.meter(Stage::Quantise, bytes.iter().sum());
    let parts = in_order_of_size(options.threads, &slots, |number, slot| {
        let part = source.read(slot)?;
        meter.add(bytes[number]);
        Ok(part)
    })?;
    let wrong = || ModelError::damaged(folder, "its tensors do not make up a model");
    parts::assemble(&config.shape, plan, parts).ok_or_else(wrong)
}

/// Runs a job per slot, largest first so that none is left to the end, and gives results in the order of the slots.
pub(crate) fn in_order_of_size<T: Send, E: Send>(
    threads: usize,
    slots: &[Slot],
    run: impl Fn(usize, &Slot) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let mut order: Vec<usize> = (0..slots.len()).collect();
    order.sort_by_key(|number| std::cmp::Reverse(slots[*number].rows * slots[*number].columns));
    let done = parallel::map(threads, order.len(), |job| run(order[job], &slots[order[job]]))?;
    let mut numbered: Vec<_> = order.into_iter().zip(done).collect();
    numbered.sort_by_key(|(number, _)| *number);
    Ok(numbered.into_iter().map(|(_, result)| result).collect())
}
