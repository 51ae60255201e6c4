//! Checkpoints by name: `org/name` or `org/name@revision` is fetched from the Hugging Face hub into its usual cache.
//!
//! Only what a model needs is fetched: configuration, tokenizer, chat template and safetensors.

use crate::ModelError;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Files fetched if the repository has them; the weights come besides.
const FILES: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "adapter_config.json",
    "adapter_model.safetensors",
];
const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
/// Bytes the list of a repository's files may have.
const LISTING_BYTES_MAX: u64 = 32 << 20;
/// Bytes one file may have.
const FILE_BYTES_MAX: u64 = 1 << 40;
const READ_BYTES: usize = 256 << 10;

/// Told as a file comes in: its name, bytes done, bytes in all.
pub type Watch<'a> = &'a dyn Fn(&str, u64, u64);

/// Where repositories come from and are kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hub {
    /// `https://huggingface.co`, or a mirror of it.
    pub endpoint: String,
    /// The cache: `models--org--name/snapshots/…` lie in it.
    pub cache: PathBuf,
    /// For repositories that need permission.
    pub token: Option<String>,
}

/// A repository at a revision.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Repository {
    name: String,
    revision: String,
}

#[derive(serde::Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(serde::Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
}

impl Hub {
    /// As the environment says: `HF_ENDPOINT`, `HF_HUB_CACHE` or `HF_HOME`, `HF_TOKEN`; otherwise huggingface.co and
    /// `~/.cache/huggingface/hub`.
    pub fn from_environment() -> Hub {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = variable("HOME").or_else(|| variable("USERPROFILE")).unwrap_or_else(|| ".".to_owned());
        let hugging_home =
            variable("HF_HOME").map_or_else(|| Path::new(&home).join(".cache/huggingface"), PathBuf::from);
        Hub {
            endpoint: variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned()),
            cache: variable("HF_HUB_CACHE").map_or_else(|| hugging_home.join("hub"), PathBuf::from),
            token: variable("HF_TOKEN"),
        }
    }

    /// The folder of a checkpoint or adapter: `argument` itself if it is one, else the repository of that name, fetched
    /// unless the cache has it.
    ///
    /// # Errors
    /// Neither a folder nor a repository's name, no connection (and nothing in the cache), no permission, or a
    /// repository without safetensors.
    pub fn resolve(&self, argument: &str, watch: Option<Watch<'_>>) -> Result<PathBuf, ModelError> {
        let folder = Path::new(argument);
        if folder.is_dir() {
            return Ok(folder.to_owned());
        }
        let repository = Repository::parse(argument)?;
        let listing = match self.list(&repository) {
            Ok(listing) => listing,
            Err(error) => return self.kept(&repository).ok_or(error),
        };
        let fail = |what: &str| ModelError::Hub { repository: argument.to_owned(), what: what.to_owned() };
        if listing.sha.is_empty() || !listing.sha.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(fail("the hub's answer is damaged; try again"));
        }
        let wanted = wanted(&listing.siblings).map_err(fail)?;
        let folder = self.folder(&repository).join("snapshots").join(&listing.sha);
        std::fs::create_dir_all(&folder).map_err(ModelError::write(&folder))?;
        for sibling in wanted {
            self.fetch(&repository, &listing.sha, sibling, &folder, watch)?;
        }
        let reference = self.folder(&repository).join("refs").join(&repository.revision);
        if let Some(parent) = reference.parent() {
            std::fs::create_dir_all(parent).map_err(ModelError::write(parent))?;
        }
        std::fs::write(&reference, &listing.sha).map_err(ModelError::write(&reference))?;
        Ok(folder)
    }

    fn folder(&self, repository: &Repository) -> PathBuf {
        self.cache.join(format!("models--{}", repository.name.replace('/', "--")))
    }

    /// What an earlier start fetched, whole.
    fn kept(&self, repository: &Repository) -> Option<PathBuf> {
        let folder = self.folder(repository);
        let reference = std::fs::read_to_string(folder.join("refs").join(&repository.revision));
        let sha = reference.unwrap_or_else(|_| repository.revision.clone());
        let snapshot = folder.join("snapshots").join(sha.trim());
        let model = snapshot.join("config.json").is_file()
            && crate::shard_paths(&snapshot).is_ok_and(|shards| shards.iter().all(|shard| shard.is_file()));
        let adapter = FILES[5..].iter().all(|name| snapshot.join(name).is_file());
        (model || adapter).then_some(snapshot)
    }

    fn list(&self, repository: &Repository) -> Result<Listing, ModelError> {
        let Repository { name, revision } = repository;
        let url = format!("{}/api/models/{name}/revision/{revision}?blobs=true", self.endpoint);
        let fail = |what: String| ModelError::Hub { repository: repository.to_string(), what };
        let mut response = self.get(&url).map_err(|error| fail(explain(&error, &self.endpoint)))?;
        let text = response.body_mut().with_config().limit(LISTING_BYTES_MAX).read_to_string();
        let text = text.map_err(|error| fail(explain(&error, &self.endpoint)))?;
        serde_json::from_str(&text).map_err(|error| fail(format!("the hub's answer is damaged ({error}); try again")))
    }

    fn get(&self, url: &str) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .user_agent(concat!("lockstep/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        let mut request = agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        request.call()
    }

    /// Fetches one file under a name of its own, then renames it.
    fn fetch(
        &self,
        repository: &Repository,
        sha: &str,
        sibling: &Sibling,
        folder: &Path,
        watch: Option<Watch<'_>>,
    ) -> Result<(), ModelError> {
        let name = &sibling.rfilename;
        let path = folder.join(name);
        let whole = |path: &Path| path.metadata().is_ok_and(|file| sibling.size.is_none_or(|size| size == file.len()));
        if whole(&path) {
            return Ok(());
        }
        let fail = |what: String| ModelError::Hub { repository: repository.to_string(), what };
        let url = format!("{}/{}/resolve/{sha}/{name}", self.endpoint, repository.name);
        let response = self.get(&url).map_err(|error| fail(explain(&error, &self.endpoint)))?;
        let mut body = response.into_body().into_with_config().limit(FILE_BYTES_MAX).reader();
        let beside = folder.join(format!(".{name}.{}.part", std::process::id()));
        let file = File::create(&beside).map_err(ModelError::write(&beside))?;
        let copied = copy(&mut body, file, |done| {
            if let Some(watch) = watch {
                watch(name, done, sibling.size.unwrap_or(done));
            }
        });
        let finished = match copied {
            Err(error) => Err(fail(format!("{name} broke off ({error}); start again to fetch the rest"))),
            Ok(()) if !whole(&beside) => Err(fail(format!("{name} came incomplete; start again to fetch the rest"))),
            Ok(()) => std::fs::rename(&beside, &path).map_err(ModelError::write(&path)),
        };
        if finished.is_err() {
            // The error that matters is already known.
            let _ = std::fs::remove_file(&beside);
        }
        finished
    }
}

fn copy(from: &mut impl Read, mut to: File, watch: impl Fn(u64)) -> io::Result<()> {
    let mut buffer = vec![0u8; READ_BYTES];
    let mut done = 0;
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return to.sync_all();
        }
        to.write_all(&buffer[..count])?;
        done += count as u64;
        watch(done);
    }
}

/// The files to fetch out of those there are; an error says what is wrong with the repository.
fn wanted(siblings: &[Sibling]) -> Result<Vec<&Sibling>, &'static str> {
    let has = |name: &str| siblings.iter().any(|sibling| sibling.rfilename == name);
    let single = has(SINGLE);
    let is_wanted = |name: &str| {
        let shard = name.starts_with("model-") && name.ends_with(".safetensors") && !name.contains(['/', '\\']);
        FILES.contains(&name) || name == SINGLE || !single && (name == INDEX || shard)
    };
    if single || has(INDEX) || has("adapter_model.safetensors") {
        return Ok(siblings.iter().filter(|sibling| is_wanted(&sibling.rfilename)).collect());
    }
    if siblings.iter().any(|sibling| sibling.rfilename.ends_with(".bin")) {
        return Err("it has pickled weights only, which can run code; convert them to safetensors");
    }
    Err("it has no safetensors weights")
}

fn explain(error: &ureq::Error, endpoint: &str) -> String {
    match error {
        ureq::Error::StatusCode(401 | 403) => {
            "it needs permission: accept its terms on the hub and set HF_TOKEN".to_owned()
        }
        ureq::Error::StatusCode(404) => "there is no such repository or revision".to_owned(),
        ureq::Error::StatusCode(status) => format!("the hub answers {status}; try again later"),
        error => format!(
            "there is no such folder here, and {endpoint} cannot be reached ({error}); fetch it where there is a \
             connection and pass the folder"
        ),
    }
}

impl Repository {
    fn parse(argument: &str) -> Result<Repository, ModelError> {
        let (name, revision) = argument.split_once('@').unwrap_or((argument, "main"));
        let plain = |part: &str| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            !part.is_empty() && part.len() <= 96 && !part.starts_with('.') && part.bytes().all(known)
        };
        let named = name.split_once('/').is_some_and(|(owner, name)| plain(owner) && plain(name));
        if !named || !plain(revision) {
            let what = "there is no such folder, and a repository's name looks like org/name or org/name@revision";
            return Err(ModelError::Hub { repository: argument.to_owned(), what: what.to_owned() });
        }
        Ok(Repository { name: name.to_owned(), revision: revision.to_owned() })
    }
}

impl std::fmt::Display for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.name, self.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn siblings(names: &[&str]) -> Vec<Sibling> {
        names.iter().map(|name| Sibling { rfilename: (*name).to_owned(), size: Some(1) }).collect()
    }

    #[test]
    fn only_what_a_model_needs_is_fetched() {
        let sharded = siblings(&[
            "README.md",
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            INDEX,
            "consolidated.safetensors",
            "original/model-1.safetensors",
            "../model-9.safetensors",
        ]);
        let names: Vec<_> = wanted(&sharded).unwrap().iter().map(|sibling| sibling.rfilename.as_str()).collect();
        assert_eq!(
            names,
            ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", INDEX]
        );
        let both = siblings(&["config.json", SINGLE, INDEX, "model-00001-of-00001.safetensors"]);
        assert_eq!(wanted(&both).unwrap().len(), 2);
        assert!(wanted(&siblings(&["config.json", "pytorch_model.bin"])).err().unwrap().contains("pickled"));
        assert!(wanted(&siblings(&["config.json"])).is_err());
    }

    #[test]
    fn names_of_repositories_are_checked() {
        let parsed = Repository::parse("org/name.1@v2").unwrap();
        assert_eq!((parsed.name.as_str(), parsed.revision.as_str()), ("org/name.1", "v2"));
        for wrong in ["name", "a/b/c", "../x", "a/..", "org/name@../x", "org/na me", "/x", "x/", "org/name@"] {
            assert!(Repository::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn without_a_connection_the_cache_serves_or_the_error_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let endpoint = "http://127.0.0.1:9".to_owned();
        let hub = Hub { endpoint, cache: folder.path().to_owned(), token: None };
        let error = hub.resolve("org/name", None).unwrap_err().to_string();
        assert!(error.contains("cannot be reached") && error.contains("pass the folder"), "{error}");
        let kept = folder.path().join("models--org--name/snapshots/abc");
        std::fs::create_dir_all(&kept).unwrap();
        std::fs::create_dir_all(folder.path().join("models--org--name/refs")).unwrap();
        std::fs::write(folder.path().join("models--org--name/refs/main"), "abc\n").unwrap();
        std::fs::write(kept.join("config.json"), "{}").unwrap();
        assert!(hub.resolve("org/name", None).is_err(), "weights are missing");
        std::fs::write(kept.join(SINGLE), "").unwrap();
        assert_eq!(hub.resolve("org/name", None).unwrap(), kept);
        assert_eq!(hub.resolve(kept.to_str().unwrap(), None).unwrap(), kept);
    }
}
