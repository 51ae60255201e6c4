//! What pages prove: statements of balances, disputes walked, light checks; and pins.

#![expect(clippy::unwrap_used, reason = "test")]

mod support;

use ledger::{AccountId, BalanceProof, Leaves, Micros};
use serde_json::json;
use support::pages::{FORM, chat, encoded, look, shop, sign_in, visit};
use support::{BASE, Served, wait_until};

/// Sends a form as a script does; gives what came.
fn act(served: &Served, (cookie, token): (&str, &str), path: &str, fields: &[(&str, &str)]) -> String {
    let body = encoded(&[&[("token", token)], fields].concat());
    let answer = served.send("POST", path, &[FORM, ("cookie", cookie), ("x-inline", "1")], body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().to_owned()
}

/// The link to a file of the newest statement on a page.
fn link(page: &str, what: &str) -> String {
    let start = format!("what={what}");
    let link =
        page.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).find(|link| link.contains(&start));
    link.unwrap_or_else(|| unreachable!("no link to {what}: {page}")).replace("&amp;", "&")
}

#[test]
fn a_customer_gets_the_proof_of_its_own_balance_and_an_auditor_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let (served, ledger, runtime) = shop(folder.path(), true, true);
    let ada: AccountId = "customer:ada".parse().unwrap();
    runtime.block_on(ledger.deposit("pay-1", &ada, Micros(7_000_000))).unwrap();
    let (root, own) = (sign_in(&served, "root"), sign_in(&served, "ada"));
    assert!(
        look(&served, &own, "/dashboard/ledger")
            .text()
            .contains("Proofs of this balance, newest first</strong>: nothing yet")
    );
    let make = |cookie: &str| {
        let (_, csrf) = visit(&served, Some(cookie));
        let body = encoded(&[("token", &csrf)]);
        served.send("POST", "/dashboard/statement/make", &[FORM, ("cookie", cookie)], body.as_bytes()).status
    };
    assert_eq!((make(&own), make(&root)), (403, 303));

    let node: [u8; 32] = {
        let all = look(&served, &root, &link(look(&served, &root, "/dashboard/ledger").text(), "balances"));
        assert!(all.headers["content-disposition"].starts_with("attachment"));
        let leaves = Leaves::parse(all.text()).unwrap();
        let said = leaves.verify(None).unwrap();
        assert_eq!((said.sum, said.accounts), (Micros::ZERO, leaves.leaves.len() as u64));
        said.node
    };
    let page = look(&served, &own, "/dashboard/ledger");
    let proof = link(page.text(), "proof");
    let read = BalanceProof::parse(look(&served, &own, &proof).text()).unwrap();
    read.verify(Some(&ada), Some(&node)).unwrap();
    assert_eq!(read.leaf.balance, Micros(7_000_000));
    // Of others it gets nothing.
    assert_eq!(look(&served, &own, &proof.replace("ada", "bob")).status, 404);
    assert_eq!(look(&served, &own, &proof.replace("what=proof", "what=balances")).status, 403);
    assert_eq!(look(&served, &root, &proof.replace("ada", "bob")).status, 200);
    assert_eq!(look(&served, &root, &proof.replace("customer%3Aada", "author%3Azed")).status, 404);
    assert_eq!(look(&served, &own, "/dashboard/statement?time=5&what=statement").status, 404);
    assert_eq!(look(&served, &own, "/dashboard/statement?time=../x&what=statement").status, 400);
    let balances = std::fs::read_dir(folder.path().join("node").join("statements")).unwrap();
    for file in
        balances.map(|file| file.unwrap()).filter(|file| file.path().extension().is_some_and(|kind| kind == "balances"))
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_dispute_is_walked_to_the_row_that_is_false() {
    let folder = tempfile::tempdir().unwrap();
    let (served, ..) = shop(folder.path(), false, false);
    let answer = chat(&served, "", "sql", "How many orders were placed in Graz?");
    let id = answer["receipt"]["id"].as_str().unwrap();
    let (own, csrf) = visit(&served, None);
    let dispute = |how: &str, other: &str| {
        act(&served, (&own, &csrf), "/dashboard/dispute", &[("id", id), ("how", how), ("other", other)])
    };
    let sum = dispute("sum", "");
    assert!(sum.contains("The node lied.") && sum.contains("dot products of model.layers."), "{sum}");
    let says = |page: &str, who: &str| -> i64 {
        let (_, rest) = page.split_once(&format!("<dt>{who}</dt><dd><code>")).unwrap();
        rest.split('<').next().unwrap().parse().unwrap()
    };
    let (node, doubter, referee) =
        (says(&sum, "The node says"), says(&sum, "The doubter has"), says(&sum, "The referee gets"));
    assert_eq!((node, doubter), (referee + 1, referee));
    assert!(sum.contains(&format!(" = <strong>{referee}</strong>")), "the products add up to it: {sum}");
    assert!(sum.contains("go right") && sum.contains("go left"));

    let token = dispute("answer", "");
    assert!(token.contains("The node lied.") && token.contains("the drawn token"), "{token}");
    let swap = dispute("swap", "reply");
    assert!(swap.contains("The node lied.") && swap.contains("the adapter's first half in model.layers.0"), "{swap}");
    // One of another rank cannot even show a trace of the right shape.
    assert!(dispute("swap", "triage").contains("The node lied."));
    let honest = dispute("nobody", "");
    assert!(honest.contains("The node is right.") && !honest.contains("The node lied."), "{honest}");
    assert!(!honest.contains("go left"), "they agree everywhere");
    // No lie carries the node's signature, and none is kept.
    assert_eq!(served.get("/health").ok()["receipts"], 1);
}

#[test]
fn a_light_check_holds_and_finds_one_false_sum() {
    let folder = tempfile::tempdir().unwrap();
    let (served, ..) = shop(folder.path(), false, false);
    let answer = chat(&served, "", "triage", "My lamp arrived broken");
    let id = answer["receipt"]["id"].as_str().unwrap();
    let (own, csrf) = visit(&served, None);
    let light = |how: &str| act(&served, (&own, &csrf), "/dashboard/light", &[("id", id), ("how", how)]);
    let honest = light("light");
    assert!(honest.contains("Holds.") && honest.contains("verdict equal"), "{honest}");
    let sum = light("sum");
    assert!(sum.contains("Caught.") && sum.contains("The sums are of model.layers."), "{sum}");
    let token = light("answer");
    assert!(token.contains("Caught.") && token.contains("the sampler draws"), "{token}");
}

#[test]
fn customers_are_sent_to_a_machine_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let (served, ..) = shop(folder.path(), true, true);
    let answer = chat(&served, "ada", BASE, "Hello");
    let id = answer["receipt"]["id"].as_str().unwrap();
    let own = sign_in(&served, "ada");
    assert!(look(&served, &own, &format!("/dashboard/receipt?id={id}")).text().contains("lockstep verify --light"));
    let (_, csrf) = visit(&served, Some(&own));
    for path in ["/dashboard/dispute", "/dashboard/light"] {
        let body = encoded(&[("token", &csrf), ("id", id)]);
        assert_eq!(served.send("POST", path, &[FORM, ("cookie", &own)], body.as_bytes()).status, 403);
    }
}

#[test]
fn an_adapter_is_pinned_and_unpinned_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (served, ..) = shop(folder.path(), false, false);
    let (own, csrf) = visit(&served, None);
    let state = |wanted: &str| {
        wait_until(wanted, || {
            let rows = served.get("/dashboard/adapters?format=json").ok();
            let row = rows["adapters"].as_array().unwrap().iter().find(|row| row["model"] == "sql").unwrap();
            row["state"] == wanted
        });
    };
    state("in the server's memory until asked for");
    let change = |how: &str| {
        let body = encoded(&[("token", &csrf), ("name", "sql")]);
        let path = format!("/dashboard/adapters/{how}");
        assert_eq!(served.send("POST", &path, &[FORM, ("cookie", &own)], body.as_bytes()).status, 303);
    };
    change("pin");
    state("pinned, resident");
    change("unpin");
    state("resident");
    let body = json!({"lora_name": "sql"});
    assert_eq!(served.post("/v1/pin_lora_adapter", &body).ok()["pinned"], true);
    state("pinned, resident");
    assert_eq!(served.post("/v1/unpin_lora_adapter", &body).ok()["pinned"], false);
    assert_eq!(served.post("/v1/pin_lora_adapter", &json!({"lora_name": "nobody"})).status, 404);

    let folder = tempfile::tempdir().unwrap();
    let keyed = Served::keyed(support::engine(|_| {}), folder.path(), "secret");
    assert_eq!(keyed.post("/v1/pin_lora_adapter", &body).status, 401);
}
