//! Prompt and decode speed of random weights.
use cpu::{Config, Executor, Pages, Segment, Wanted};
use exact::{Activations, Isa};
use model::{Adapter, Model, Shape};
use std::sync::Arc;
use std::time::Instant;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let activations: Activations = args[1].parse().unwrap();
    let isa: Isa = args[2].parse().unwrap();
    let t = Instant::now();
    let model = Arc::new(Model::random(Shape::llama_1_24b(), activations, 1));
    println!("made in {:?}, {} MB", t.elapsed(), model.weights.bytes() >> 20);
    let mut ex = Executor::new(model.clone(), Config { threads: 2, isa, trace: false }).unwrap();
    let mut pages = Pages::new(&model.shape, 256);
    let tokens: Vec<u32> = (0..512).map(|i| i * 37 % 128256).collect();
    let ids: Vec<u32> = (0..256).collect();
    for _ in 0..8 {
        let t = Instant::now();
        ex.step(&mut pages, &[Segment { tokens: &tokens, start: 0, pages: &ids, adapter: None, wanted: Wanted::Last }]);
        println!("prompt 512: {:.1} tok/s", 512.0 / t.elapsed().as_secs_f64());
    }
    for _ in 0..8 {
        let t = Instant::now();
        for i in 0..16 {
            ex.step(&mut pages, &[Segment { tokens: &[5], start: 512 + i, pages: &ids, adapter: None, wanted: Wanted::Last }]);
        }
        println!("decode: {:.2} tok/s", 16.0 / t.elapsed().as_secs_f64());
    }
    if std::env::args().count() > 3 { return; }
    let adapters: Vec<Adapter> = (0..16).map(|i| Adapter::random(&model.plan, 16, i)).collect();
    for with in [false, true, false, true] {
        let t = Instant::now();
        for i in 0..8 {
            let segments: Vec<Segment<'_>> = (0..16)
                .map(|s| Segment {
                    tokens: &[5],
                    start: 64 + i,
                    pages: &ids[s * 2..],
                    adapter: with.then_some(&adapters[s]),
                    wanted: Wanted::Last,
                })
                .collect();
            ex.step(&mut pages, &segments);
        }
        println!("decode 16 adapters={with}: {:.2} tok/s", 128.0 / t.elapsed().as_secs_f64());
    }
}
