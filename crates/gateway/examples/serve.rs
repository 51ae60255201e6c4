//! Serves the demo model and its adapters: `cargo run --release -p lockstep-gateway --example serve -- FOLDER PORT`,
//! where FOLDER keeps the node's key and the receipts.

use engine::Engine;
use exact::{Activations, Isa};
use gateway::{Config, Limits, Server};
use model::{Adapter, LoadOptions, Model, Text};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(port)) = (arguments.next(), arguments.next()) else {
        return Err("give a folder and a port".into());
    };
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    let model = Arc::new(Model::load(&demo.join("base"), &LoadOptions::new(Activations::A8))?);
    let text = Arc::new(Text::load(&demo.join("base"))?);
    let mut adapters = BTreeMap::new();
    for name in ["triage", "extract", "sql", "reply", "spanish"] {
        let adapter = Adapter::load(&demo.join("adapters").join(name), &model, Isa::best())?;
        adapters.insert(name.to_owned(), Arc::new(adapter));
    }
    let threads = std::thread::available_parallelism()?.get();
    let config = engine::Config::for_memory(&model.shape, 1 << 30, threads, Isa::best());
    let engine = Arc::new(Engine::start(model, text, config)?);
    let limits = Limits::default();
    let server = Server::new(
        engine,
        Config { folder: folder.into(), base: "demo".into(), adapters, keys: gateway::Keys::default(), limits },
    )?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
        println!("point a client at http://{}/v1", listener.local_addr()?);
        server.serve(listener, std::future::pending()).await;
        Ok(())
    })
}
