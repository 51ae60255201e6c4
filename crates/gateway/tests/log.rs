//! The log of receipts: anybody can read it, receipts are in it, seeds are committed to in it, and openings last as long as
//! was promised.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use gateway::Limits;
use receipt::{Bundle, Monitor, Receipt, Statement, seed};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use support::{Answer, Served, ask, engine, wait_for, with};
use tlog::{LogError, Proof, Reader, Source};

fn serve(folder: &Path) -> Served {
    Served::with(engine(|_| {}), folder, Limits::default())
}

/// The log as a stranger fetches it.
struct Fetched<'a>(&'a Served);

impl Source for Fetched<'_> {
    fn get(&self, path: &str, _bytes_max: usize) -> Result<Vec<u8>, LogError> {
        let answer = self.0.get(&format!("/v1/log/{path}"));
        let why = format!("status {}", answer.status);
        if answer.status == 200 { Ok(answer.body) } else { Err(LogError::Fetch { what: path.to_owned(), why }) }
    }
}

fn node(served: &Served) -> [u8; 32] {
    let health = served.get("/health").ok();
    tlog::node_of(health["log"]["origin"].as_str().unwrap()).unwrap()
}

fn read(served: &Served) -> Reader<Fetched<'_>> {
    Reader::open(Fetched(served), &tlog::verifier_of(&node(served)).unwrap()).unwrap()
}

/// Reads the whole log and finds nothing wrong.
fn monitor(served: &Served) -> (Monitor, Vec<Statement>) {
    let (mut monitor, mut statements) = (Monitor::new(node(served)), vec![]);
    read(served)
        .entries(|_, entry| {
            statements.push(monitor.read(entry).unwrap());
            Ok(())
        })
        .unwrap();
    (monitor, statements)
}

fn short(more: Value) -> Value {
    with(with(ask("sql", "a"), json!({"max_tokens": 4})), more)
}

fn post(served: &Served, more: Value) -> Answer {
    let answer = served.post("/v1/chat/completions", &short(more));
    answer.ok();
    answer
}

fn url(answer: &Answer) -> String {
    answer.json()["receipt"]["url"].as_str().unwrap().to_owned()
}

fn bundle(served: &Served, answer: &Answer) -> (Bundle, Receipt) {
    let bundle = Bundle::from_bytes(&served.get(&url(answer)).body).unwrap();
    let receipt = bundle.check().unwrap();
    (bundle, receipt)
}

#[test]
fn every_receipt_is_in_a_log_that_only_grows() {
    let folder = tempfile::tempdir().unwrap();
    let mut heads = vec![];
    for _ in 0..3 {
        let served = serve(folder.path());
        let answer = post(&served, json!({}));
        let (bundle, receipt) = bundle(&served, &answer);
        let proof = served.get(&format!("/v1/receipts/{}?format=proof", receipt.id()));
        let proof = Proof::parse(&proof.body).unwrap();
        proof.verify(&bundle.receipt, &tlog::verifier_of(&receipt.node).unwrap()).unwrap();
        let reader = read(&served);
        assert_eq!(reader.entry(proof.index).unwrap(), bundle.receipt);
        heads.iter().for_each(|head| drop(reader.prove_consistency(head).unwrap()));
        heads.push(reader.head().clone());
        let (monitor, _) = monitor(&served);
        assert_eq!((monitor.receipts(), monitor.last()), (heads.len() as u64, Some(receipt.hash)));
        let size = reader.head().size;
        let tile = served.get(&format!("/v1/log/tile/entries/000.p/{size}"));
        assert!(tile.headers["cache-control"].contains("immutable") && tile.status == 200);
        for path in ["tile/0/000", "tile/entries/../checkpoint", "tile/9/000.p/1", "tail", "cosigned", ""] {
            assert_eq!(served.get(&format!("/v1/log/{path}")).status, 404, "{path}");
        }
        drop(reader);
        served.stop();
    }
}

#[test]
fn a_proof_of_one_receipt_is_none_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path());
    let first = bundle(&served, &post(&served, json!({})));
    let second = bundle(&served, &post(&served, json!({})));
    let proof = served.get(&format!("/v1/receipts/{}?format=proof", first.1.id()));
    let proof = Proof::parse(&proof.body).unwrap();
    let verifier = tlog::verifier_of(&node(&served)).unwrap();
    assert!(proof.verify(&first.0.receipt, &verifier).is_ok() && proof.verify(&second.0.receipt, &verifier).is_err());
}

#[test]
fn a_seed_that_nobody_chose_was_committed_to_and_is_told_at_admission() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path());
    let mut seeds = vec![];
    for (number, nonce) in ["", "dice", "dice"].into_iter().enumerate() {
        let answer = post(&served, json!({"nonce": nonce}));
        let (bundle, receipt) = bundle(&served, &answer);
        let (claims, origin) = (&receipt.claims, bundle.opening.seed.as_ref().unwrap());
        assert_eq!((claims.seed_from_client, claims.seed_number), (false, Some(number as u64)));
        assert_eq!(&*origin.nonce, nonce.as_bytes());
        let told = format!("{number}:{}", hex(&origin.secret));
        assert_eq!(answer.headers["x-lockstep-seed"], told);
        let Statement::Seeds(list, signer) = Statement::parse(&read(&served).entry(origin.entry).unwrap()).unwrap()
        else {
            panic!("no commitment")
        };
        assert!(signer == receipt.node && list.commits(number as u64, &origin.secret));
        let request =
            seed::request_hash(&claims.base, claims.adapter.as_ref(), &bundle.opening.settings, &bundle.opening.prompt);
        assert_eq!(seed::derive(&origin.nonce, &origin.secret, &request), claims.seed);
        seeds.push(claims.seed);
    }
    assert!(seeds[1] != seeds[2], "the same nonce does not give the same seed");
    let chosen = post(&served, json!({"seed": 7}));
    assert!(!chosen.headers.contains_key("x-lockstep-seed"));
    assert!(bundle(&served, &chosen).1.claims.seed_from_client);
    let streamed = served.post("/v1/chat/completions", &short(json!({"stream": true})));
    assert!(streamed.headers["x-lockstep-seed"].starts_with("3:"));
    let both = served.post("/v1/chat/completions", &short(json!({"seed": 7, "nonce": "dice"})));
    assert_eq!((both.status, both.json()["error"]["param"].as_str()), (400, Some("nonce")));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the log says of each number of a seed.
fn fates(served: &Served) -> BTreeMap<u64, &'static str> {
    let (_, statements) = monitor(served);
    let mut fates = BTreeMap::new();
    for statement in &statements {
        match statement {
            Statement::Receipt(receipt) => drop(fates.insert(receipt.claims.seed_number.unwrap(), "used")),
            Statement::Aborted(aborted, _) => {
                for (first, count) in &aborted.ranges {
                    fates.extend((*first..first + count).map(|number| (number, "aborted")));
                }
            }
            _ => {}
        }
    }
    fates
}

#[test]
fn numbers_of_answers_that_were_dropped_are_logged_as_aborted() {
    // An answer that was complete before its client had gone is not dropped: then all begins anew.
    let (told, posts) = wait_for("three answers that are dropped", || {
        let folder = tempfile::tempdir().unwrap();
        let served = serve(folder.path());
        for _ in 0..3 {
            // Hangs up in the middle of a long answer.
            let body = with(ask("reply", "Hello"), json!({"max_tokens": 1900, "stream": true, "ignore_eos": true}));
            let mut stream = served.open(
                "POST",
                "/v1/chat/completions",
                &[("content-type", "application/json")],
                body.to_string().as_bytes(),
            );
            std::io::Read::read_exact(&mut stream, &mut [0; 200]).unwrap();
        }
        served.wait_until_idle();
        // What became of them is logged with the receipts that come next.
        let mut posts = 0;
        let told = wait_for("a fate of each", || {
            post(&served, json!({}));
            posts += 1;
            Some(fates(&served)).filter(|told| (0..3).all(|number| told.contains_key(&number)))
        });
        (0..3).all(|number| told[&number] == "aborted").then_some((told, posts))
    });
    let expected = [vec!["aborted"; 3], vec!["used"; posts]].concat();
    assert_eq!(told.into_values().collect::<Vec<_>>(), expected);
}

#[test]
fn auditors_get_what_opens_a_receipt_and_others_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path());
    let (whole, receipt) = bundle(&served, &post(&served, json!({})));
    let token = std::fs::read_to_string(folder.path().join("audit.token")).unwrap();
    let ask = |token: &str| {
        served.send("GET", &format!("/v1/receipts/{}", receipt.id()), &[("x-lockstep-audit", token)], b"")
    };
    assert_eq!(Bundle::from_bytes(&ask(token.trim()).body).unwrap(), whole);
    for wrong in ["", "0", &"0".repeat(64)] {
        let answer = ask(wrong);
        assert_eq!((answer.status, &answer.body), (200, &whole.receipt), "only the receipt");
    }
    let text = std::fs::read(folder.path().join("openings/00000000/openings")).unwrap();
    let prompt: Vec<u8> = whole.opening.prompt.iter().flat_map(|token| token.to_le_bytes()).collect();
    assert!(!text.windows(prompt.len()).any(|window| window == prompt), "tokens are readable on disk");
}

#[test]
fn an_opening_that_is_withheld_is_told_from_one_that_has_expired() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path());
    let answer = post(&served, json!({}));
    assert_eq!(bundle(&served, &answer).1.claims.opening_seconds, 30 * 24 * 3600);
    served.stop();
    std::fs::remove_dir_all(folder.path().join("openings")).unwrap();
    let served = serve(folder.path());
    let withheld = served.get(&url(&answer));
    assert!(withheld.status == 500 && withheld.text().contains("missing before its audit window ended"));
    // The receipt itself and its proof are still there.
    let name = url(&answer).rsplit_once('-').unwrap().0.to_owned();
    assert_eq!((served.get(&name).status, served.get(&format!("{name}?format=proof")).status), (200, 200));
    served.stop();

    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { audit_window: Duration::ZERO, ..Limits::default() };
    let served = Served::with(engine(|_| {}), folder.path(), limits);
    let answer = post(&served, json!({}));
    std::thread::sleep(Duration::from_millis(2100));
    let expired = served.get(&url(&answer));
    assert_eq!(expired.status, 410, "{}", expired.text());
    let receipt = Receipt::parse(&served.get(url(&answer).rsplit_once('-').unwrap().0).body).unwrap();
    assert_eq!(receipt.claims.opening_seconds, 0);
}
