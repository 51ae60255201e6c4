//! A disk that is really full, where this process may mount a small one; elsewhere there is nothing to see here.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use gateway::Limits;
use model::AdapterCache;
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use support::{BASE, Served, ask, engine, with};

/// A file system of two megabytes; gone when dropped.
struct Small<'a>(&'a Path);

impl Small<'_> {
    fn mount(path: &Path) -> Option<Small<'_>> {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=2m", "none"]).arg(path).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success()).then_some(Small(path))
    }

    /// Leaves no byte free; gives the file that takes them.
    fn fill(&self) -> std::path::PathBuf {
        let path = self.0.join("filler");
        let mut file = File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(self.0).status();
    }
}

#[test]
fn a_disk_that_is_full_is_told_and_once_there_is_room_the_server_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Small::mount(folder.path()) else {
        println!("skipped: no file system can be mounted here");
        return;
    };
    let engine = engine(|_| {});
    assert!(engine.adapters().keep_forms(AdapterCache::new(&folder.path().join("forms"), 64 << 20)));
    let served = Served::with(engine.clone(), &folder.path().join("node"), Limits::default());
    let request = with(ask("sql", "a"), json!({"max_tokens": 1}));
    let ask_once = || served.post("/v1/chat/completions", &request);
    let mut told = vec![ask_once().ok()];
    let filler = disk.fill();
    // What was begun before may still fit into its last block.
    let refused = loop {
        let answer = ask_once();
        if answer.status != 200 {
            break answer;
        }
        told.push(answer.json());
        assert!(told.len() < 1000, "the disk does not fill");
    };
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (500, &json!("receipt_failed")),
        "{}",
        refused.text()
    );
    assert_eq!(served.get("/health").status, 503);
    // An adapter whose form cannot be kept is loaded all the same.
    let sql = support::folder().join("adapters/sql");
    engine.add_adapter("fresh", &sql, false).unwrap();
    // What was acknowledged is there, before there is room and after.
    let kept = |told: &[serde_json::Value]| {
        for answer in told {
            assert_eq!(served.get(answer["receipt"]["url"].as_str().unwrap()).status, 200);
        }
    };
    kept(&told);
    std::fs::remove_file(filler).unwrap();
    told.push(ask_once().ok());
    told.push(served.post("/v1/chat/completions", &with(ask("fresh", "a"), json!({"max_tokens": 1}))).ok());
    kept(&told);
    let health = served.get("/health").ok();
    assert_eq!(health["receipts"], told.len());
    assert_eq!(served.post("/v1/chat/completions", &with(ask(BASE, "b"), json!({"max_tokens": 1}))).status, 200);
    drop(served);
    drop(disk);
}
