//! Clients sign for their answers, once each, and find what they signed again.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use receipt::{Bundle, COUNTERSIGNATURE_CONTENT_TYPE, Countersignature, Receipt, SigningKey};
use serde_json::json;
use support::{Answer, Served, ask, with};

/// An answer's receipt, its address with the key and without.
fn answer(served: &Served) -> (Receipt, String, String) {
    let answer = served.post("/v1/chat/completions", &with(ask("sql", "a"), json!({"max_tokens": 2}))).ok();
    let url = answer["receipt"]["url"].as_str().unwrap().to_owned();
    let receipt = Bundle::from_bytes(&served.get(&url).body).unwrap().check().unwrap();
    let public = format!("/v1/receipts/{}", receipt.id());
    (receipt, url + "/countersignature", public + "/countersignature")
}

fn hand_in(served: &Served, path: &str, bytes: &[u8]) -> Answer {
    served.send("POST", path, &[("content-type", COUNTERSIGNATURE_CONTENT_TYPE)], bytes)
}

fn client(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

#[test]
fn the_first_countersignature_of_a_receipt_stays_also_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path());
    let (receipt, path, _) = answer(&served);
    assert_eq!(served.get(&path).status, 404);
    let first = Countersignature::sign(&client(1), &receipt.hash, 1_790_000_000);
    let told = hand_in(&served, &path, &first);
    assert_eq!((told.status, told.json()["receipt"].as_str()), (201, Some(receipt.id().as_str())));
    // The same client again, later: fine, and nothing changes. Another client: too late.
    let again = Countersignature::sign(&client(1), &receipt.hash, 1_790_000_009);
    assert_eq!(hand_in(&served, &path, &again).status, 200);
    let other = Countersignature::sign(&client(2), &receipt.hash, 1_790_000_000);
    let refused = hand_in(&served, &path, &other);
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (409, Some("countersigned_before")));
    assert_eq!(served.get(&path).body, first);
    served.stop();
    let served = Served::start(folder.path());
    let kept = served.get(&path);
    assert_eq!((kept.status, kept.body), (200, first));
}

#[test]
fn only_the_client_hands_in_and_only_what_is_signed_for_this_receipt() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path());
    let (receipt, path, public) = answer(&served);
    let (other, ..) = answer(&served);
    let good = Countersignature::sign(&client(1), &receipt.hash, 1);
    let for_other = Countersignature::sign(&client(1), &other.hash, 1);
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    for bytes in [&for_other[..], &forged, &good[1..], b"", b"{}"] {
        let refused = hand_in(&served, &path, bytes);
        assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (400, Some("invalid_countersignature")));
    }
    assert_eq!(hand_in(&served, &path, &[0; 4000]).status, 413);
    // Whoever reads the log knows the receipt's name, but is not the client.
    assert_eq!(hand_in(&served, &public, &good).status, 404);
    assert_eq!(served.send("POST", &path, &[("content-type", "text/plain")], &good).status, 415);
    assert_eq!(served.get(&path).status, 404);
    assert_eq!(hand_in(&served, &path, &good).status, 201);
    assert_eq!(served.get(&public).status, 404);
    // Auditors may see it.
    let token = std::fs::read_to_string(folder.path().join("audit.token")).unwrap();
    assert_eq!(served.send("GET", &public, &[("x-lockstep-audit", token.trim())], b"").body, good);
}

#[test]
fn of_clients_who_hand_in_at_once_one_is_kept_and_the_others_hear_so() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path());
    let (receipt, path, _) = answer(&served);
    let status =
        |number: u8| hand_in(&served, &path, &Countersignature::sign(&client(number), &receipt.hash, 1)).status;
    let mut all: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..9).map(|number| scope.spawn(move || status(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    all.sort_unstable();
    assert_eq!(all, [&[201][..], &[409; 7]].concat());
    assert!(Countersignature::parse(&served.get(&path).body).is_ok());
    let left = std::fs::read_dir(folder.path().join("countersigned"))
        .unwrap()
        .flat_map(|sub| std::fs::read_dir(sub.unwrap().path()).unwrap());
    assert_eq!(left.count(), 1, "nothing half written is left");
}
