//! The pages: who sees what, what is shown and never run, and forms that only act for their own session.

mod support;

use gateway::{Keys, Limits};
use ledger::{AccountId, Hold, Ledger, Micros, Outcome, Settlement, Split, Usage};
use returns::{Device, Period};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use support::pages::{FORM, chat, encoded, look, shop, sign_in, visit};
use support::{BASE, Served, ask, demo, engine, wait_for, wait_until};

const PAGES: [&str; 8] = [
    "/dashboard",
    "/dashboard/playground",
    "/dashboard/receipts",
    "/dashboard/ledger",
    "/dashboard/adapters",
    "/dashboard/health",
    "/dashboard/statistics",
    "/dashboard/login",
];

#[test]
fn every_page_is_there_and_lets_nothing_foreign_in() {
    let folder = tempfile::tempdir().unwrap();
    let (served, ..) = shop(folder.path(), false, false);
    for path in PAGES {
        let page = served.get(path);
        assert_eq!(page.status, 200, "{path}: {}", page.text());
        let policy = &page.headers["content-security-policy"];
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(page.headers["x-content-type-options"], "nosniff");
        assert_eq!(page.headers["referrer-policy"], "no-referrer");
        assert_eq!(page.headers["cache-control"], "no-store");
        let cookie = &page.headers["set-cookie"];
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        let text = page.text();
        assert!(text.starts_with("<!DOCTYPE html>") && text.contains("<h1>"), "{path}");
        assert!(!text.contains("style=\"") && !text.contains("onclick"), "{path}: nothing inline");
    }
    for kind in ["css", "js"] {
        let text = served.get("/dashboard").text().to_owned();
        let at = text.split('"').find(|part| part.starts_with("/dashboard/assets/") && part.ends_with(kind)).unwrap();
        let asset = served.get(at);
        assert_eq!(asset.status, 200);
        assert!(asset.headers["cache-control"].contains("immutable"));
    }
    assert_eq!(served.get("/dashboard/assets/other.js").status, 404);
    assert_eq!(served.get("/dashboard/nowhere").status, 404);
    let root = served.send("GET", "/", &[("accept", "text/html,*/*")], b"");
    assert!(root.text().contains("href=\"/dashboard\""));
    assert!(served.get("/").text().starts_with("Lockstep serves"));
}

#[test]
fn without_keys_only_this_machine_sees_anything() {
    let folder = tempfile::tempdir().unwrap();
    let (served, ..) = shop(folder.path(), false, false);
    // A name of elsewhere that leads here.
    let mut stream = std::net::TcpStream::connect(served.address).unwrap();
    std::io::Write::write_all(
        &mut stream,
        b"GET /dashboard HTTP/1.1\r\nhost: evil.example:8000\r\nconnection: close\r\n\r\n",
    )
    .unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 303") && text.contains("/dashboard/login"), "{text}");
}

#[test]
fn hostile_names_and_prompts_are_shown_and_never_run() {
    let folder = tempfile::tempdir().unwrap();
    let hostile = "<script>alert(1)</script>";
    let engine = engine(|_| {});
    let mut adapters = demo().adapters.clone();
    adapters.insert(hostile.to_owned(), demo().adapters["sql"].clone());
    let served = Served::serving(engine, folder.path(), Limits::default(), adapters, Keys::default());
    let answer = served
        .post("/v1/chat/completions", &support::with(ask(hostile, hostile), json!({"max_tokens": 4, "temperature": 0})))
        .ok();
    let id = answer["receipt"]["id"].as_str().unwrap();
    let paths =
        ["/dashboard/adapters", "/dashboard/playground", "/dashboard/receipts", &format!("/dashboard/receipt?id={id}")];
    for path in paths {
        let page = served.get(path);
        assert_eq!(page.status, 200, "{}", page.text());
        assert!(page.text().contains("&lt;script&gt;alert(1)"), "{path}");
        assert!(!page.text().contains("<script>alert"), "{path}");
    }
    let schema = json!({"type": "object", "properties": {hostile: {"enum": [hostile]}}, "required": [hostile], "additionalProperties": false});
    let form = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    let asked = support::with(ask(BASE, "a"), json!({"max_tokens": 200, "temperature": 0, "response_format": form}));
    let formed = served.post("/v1/chat/completions", &asked).ok();
    assert!(support::content(&formed).contains(hostile), "{formed}");
    let page = served.get(&format!("/dashboard/receipt?id={}", formed["receipt"]["id"].as_str().unwrap()));
    assert!(page.text().contains("Form that the answer was held to") && !page.text().contains("<script>alert"));
    for query in ["search", "after", "period", "id", "name"] {
        for path in ["/dashboard", "/dashboard/ledger", "/dashboard/receipt", "/dashboard/account"] {
            let page = served.get(&format!("{path}?{query}=%3Cscript%3Ealert(1)%3C/script%3E"));
            assert!(!page.text().contains("<script>alert"), "{path} {query}");
        }
    }
}

#[test]
fn forms_act_only_with_the_token_of_their_own_session() {
    let folder = tempfile::tempdir().unwrap();
    let (served, ..) = shop(folder.path(), false, false);
    let ((own, token), (other, other_token)) = (visit(&served, None), visit(&served, None));
    assert_ne!(token, other_token);
    let unload = |cookie: Option<&str>, token: &str| {
        let body = encoded(&[("token", token), ("name", "sql")]);
        let mut headers = vec![FORM];
        headers.extend(cookie.map(|cookie| ("cookie", cookie)));
        served.send("POST", "/dashboard/adapters/unload", &headers, body.as_bytes()).status
    };
    for (cookie, token) in [
        (None, ""),
        (None, token.as_str()),
        (Some(own.as_str()), ""),
        (Some(own.as_str()), other_token.as_str()),
        (Some(other.as_str()), token.as_str()),
        (Some("lockstep=1"), token.as_str()),
    ] {
        assert_eq!(unload(cookie, token), 403);
    }
    assert!(served.engine.adapters().find("sql").is_some());
    assert_eq!(unload(Some(&own), &token), 303);
    assert!(served.engine.adapters().find("sql").is_none());
    let large = encoded(&[("token", &token), ("name", &"x".repeat(300 << 10))]);
    let refused = served.send("POST", "/dashboard/adapters/unload", &[FORM, ("cookie", &own)], large.as_bytes());
    assert_eq!(refused.status, 413);
}

#[test]
fn keys_open_what_is_theirs_and_the_administrators_opens_all() {
    let folder = tempfile::tempdir().unwrap();
    let (served, ledger, runtime) = shop(folder.path(), true, true);
    for path in PAGES.iter().filter(|path| !path.ends_with("login")) {
        let page = served.get(path);
        assert_eq!((page.status, page.headers["location"].as_str()), (303, "/dashboard/login"), "{path}");
    }
    let (own, csrf) = visit(&served, None);
    let body = encoded(&[("token", &csrf), ("key", "wrong")]);
    assert_eq!(served.send("POST", "/dashboard/login", &[FORM, ("cookie", &own)], body.as_bytes()).status, 401);

    let of_ada = chat(&served, "ada", "sql", "How many orders were placed in Graz?");
    let of_bob = chat(&served, "bob", "triage", "My lamp arrived broken");
    let settled = || runtime.block_on(ledger.settlements(0, i64::MAX, None, 9)).unwrap().len();
    wait_until("both settlements", || settled() == 2);
    let name = |answer: &Value| answer["receipt"]["id"].as_str().unwrap().to_owned();
    let without_key = |id: &str| id.rsplit_once('-').unwrap().0.to_owned();
    let ada = sign_in(&served, "ada");
    for path in [
        "/dashboard",
        "/dashboard/adapters",
        "/dashboard/health",
        "/dashboard/live",
        "/dashboard/account?name=customer:zed",
    ] {
        assert!([403, 404].contains(&look(&served, &ada, path).status), "{path}");
    }
    assert_eq!(look(&served, &ada, "/dashboard/account?name=customer:bob").status, 404);
    assert!(look(&served, &ada, "/dashboard/ledger").text().contains("customer:ada"));
    let list = look(&served, &ada, "/dashboard/receipts");
    assert!(
        list.text().contains(&name(&of_ada)) && !list.text().contains(&without_key(&name(&of_bob))),
        "{}",
        list.text()
    );
    let own = look(&served, &ada, &format!("/dashboard/receipt?id={}", name(&of_ada)));
    assert!(own.text().contains("How many orders were placed in Graz?"));
    let others = look(&served, &ada, &format!("/dashboard/receipt?id={}", without_key(&name(&of_bob))));
    assert!(others.status == 200 && !others.text().contains("My lamp arrived broken"));
    let ending = runtime.block_on(ledger.transactions(None, 50)).unwrap();
    let foreign = ending
        .iter()
        .find(|entry| entry.account.as_ref().is_some_and(|account| account.as_str() == "customer:bob"))
        .unwrap();
    assert_eq!(look(&served, &ada, &format!("/dashboard/transaction?id={}", foreign.id)).status, 404);

    // A customer changes no adapters where there is an administrator.
    let (_, csrf) = visit(&served, Some(&ada));
    let body = encoded(&[("token", &csrf), ("name", "sql")]);
    assert_eq!(
        served.send("POST", "/dashboard/adapters/unload", &[FORM, ("cookie", &ada)], body.as_bytes()).status,
        403
    );

    let root = sign_in(&served, "root");
    for path in PAGES {
        assert_eq!(look(&served, &root, path).status, 200, "{path}");
    }
    let opened = look(&served, &root, &format!("/dashboard/receipt?id={}", without_key(&name(&of_bob))));
    assert!(opened.text().contains("My lamp arrived broken"));
    let (_, csrf) = visit(&served, Some(&root));
    let out =
        served.send("POST", "/dashboard/logout", &[FORM, ("cookie", &root)], encoded(&[("token", &csrf)]).as_bytes());
    assert_eq!(out.status, 303);
    assert_eq!(look(&served, &root, "/dashboard").status, 303, "the session has ended");
    // Programs send their key as everywhere else.
    let files = served.send("GET", "/dashboard/statistics?format=json", &[("authorization", "Bearer ada")], b"");
    assert!(files.ok()["workload"].is_array());
}

#[test]
fn the_check_finds_answers_true_and_names_the_first_token_of_a_lie() {
    let folder = tempfile::tempdir().unwrap();
    let (served, ..) = shop(folder.path(), false, false);
    let (own, csrf) = visit(&served, None);
    let asked = encoded(&[
        ("token", &csrf),
        ("model", "triage"),
        ("model", BASE),
        ("prompt", "My lamp arrived broken"),
        ("tokens", "16"),
    ]);
    let page = served.send("POST", "/dashboard/playground", &[FORM, ("cookie", &own)], asked.as_bytes());
    assert_eq!(page.status, 200, "{}", page.text());
    let ids: Vec<&str> = page.text().split('"').filter(|part| part.starts_with("rcpt-")).collect();
    let id = ids[0].to_owned();
    assert!(ids.iter().any(|other| **other != *id), "two models, two receipts");
    let act = |how: &str, other: &str| {
        let body = encoded(&[("token", &csrf), ("id", &id), ("how", how), ("other", other)]);
        let answer =
            served.send("POST", "/dashboard/check", &[FORM, ("cookie", &own), ("x-inline", "1")], body.as_bytes());
        assert_eq!(answer.status, 200, "{how}: {}", answer.text());
        answer.text().to_owned()
    };
    let before = served.engine.counters().time.audit;
    let honest = act("check", "");
    assert!(honest.contains("Equal.") && honest.contains("verdict equal"), "{honest}");
    served.engine.settle_time();
    assert!(served.engine.counters().time.audit > before, "it was computed");
    let bundle = served.get(&format!("/v1/receipts/{id}?format=json")).ok();
    let middle = bundle["opening"]["output"].as_array().unwrap().len() / 2;
    let lie = act("answer", "");
    assert!(lie.contains("Caught.") && lie.contains(&format!("number <strong>{middle}</strong>")), "{lie}");
    assert!(!lie.contains("From position"), "the trace was computed anew, and fits the lie: {lie}");
    let trace = act("trace", "");
    assert!(
        trace.contains("Every token is what the model draws") && trace.contains(&format!("From position {middle} ")),
        "{trace}"
    );
    assert!(act("short", "").contains("Caught."));
    let swapped = act("swap", "sql");
    assert!(swapped.contains("Caught.") && swapped.contains("From position 0 "), "{swapped}");
    // The lies are nobody's: the log holds no more receipts than there were answers.
    assert_eq!(served.get("/health").ok()["receipts"], 2);
    let same = encoded(&[("token", &csrf), ("id", &id), ("how", "swap"), ("other", "triage")]);
    assert_eq!(served.send("POST", "/dashboard/check", &[FORM, ("cookie", &own)], same.as_bytes()).status, 400);
}

#[test]
fn lists_go_on_page_by_page() {
    let folder = tempfile::tempdir().unwrap();
    let (served, ..) = shop(folder.path(), false, false);
    for _ in 0..30 {
        served.post("/v1/completions", &json!({"model": BASE, "prompt": "a", "max_tokens": 1})).ok();
    }
    let (mut path, mut entries) = ("/dashboard/receipts".to_owned(), Vec::new());
    loop {
        let separator = if path.contains('?') { '&' } else { '?' };
        let rows = served.get(&format!("{path}{separator}format=json")).ok();
        entries.extend(rows["receipts"].as_array().unwrap().iter().map(|row| row["entry"].as_u64().unwrap()));
        let page = served.get(&path);
        let Some((_, rest)) = page.text().split_once("class=\"more\" href=\"") else { break };
        path = rest.split('"').next().unwrap().to_owned();
    }
    let size = served.get("/health").ok()["log"]["size"].as_u64().unwrap();
    assert!(size > 30);
    assert_eq!(entries, (0..size).rev().collect::<Vec<_>>());
    let csv = served.get("/dashboard/receipts?format=csv");
    assert_eq!(csv.headers["content-type"], "text/csv; charset=utf-8");
    assert!(csv.text().starts_with("receipt,entry,time,model,"));
    assert_eq!(csv.text().lines().count(), 26);
    assert_eq!(served.get("/dashboard/receipts?format=csv&table=none").status, 404);
}

/// Another node's answer in the same ledger, which is not this node's work.
#[expect(clippy::unwrap_used, reason = "test")]
async fn work_of_another(ledger: &Ledger) {
    let (id, customer) = ("elsewhere".to_owned(), AccountId::customer("ada").unwrap());
    let amount = Micros(7);
    ledger.hold(Hold { id: id.clone(), customer, amount, expires_at: i64::MAX / 2 }).await.unwrap();
    let settlement = Settlement {
        hold: id,
        amount,
        operator: gateway::operator(&[3; 32]).unwrap(),
        split: Split::standard(),
        usage: Usage { prompt: 1, cached: 0, output: 1, accepted: 0 },
        model: "sql".to_owned(),
        price: 1,
        receipt: Some("a-receipt-of-elsewhere".to_owned()),
        outcome: Outcome::Paid,
        first_token_ms: Some(1),
        total_ms: 2,
        late: false,
    };
    ledger.settle(settlement).await.unwrap();
}

#[test]
fn the_overview_says_what_the_report_says() {
    let folder = tempfile::tempdir().unwrap();
    let (served, ..) = shop(folder.path(), true, true);
    chat(&served, "ada", "sql", "How many orders were placed in Graz?");
    chat(&served, "bob", BASE, "Hello");
    // The last record of the device's time is written at the end.
    served.stop();
    let (served, ledger, runtime) = shop(folder.path(), true, true);
    runtime.block_on(work_of_another(&ledger));
    let root = [("authorization", "Bearer root")];
    let records = folder.path().join("node").join("device");
    let key = tlog::node_of(served.get("/health").ok()["log"]["origin"].as_str().unwrap()).unwrap();
    let operator = gateway::operator(&key).unwrap();
    let (page, report) = wait_for("a page that is up to date", || {
        let all = returns::read(&records, 0, u64::MAX).unwrap();
        let period = Period { from: all[0].from, to: all[all.len() - 1].to, devices: 1 };
        let (operator, records, device) = (operator.clone(), records.clone(), Device::known().remove(0));
        let node = gateway::Node { operator, records, period, device };
        let report = runtime.block_on(gateway::report(&ledger, &[node], |_, _| true)).unwrap().remove(0);
        let page = served.send("GET", "/dashboard?format=json", &root, b"").ok();
        let to = page["returns"].as_array().unwrap().iter().find(|row| row["line"] == "to").unwrap()["period"].as_u64();
        (to == Some(report.period.to) && !page["answers"].as_array().unwrap().is_empty()).then_some((page, report))
    });
    let line = |name: &str| {
        page["returns"].as_array().unwrap().iter().find(|row| row["line"] == name).unwrap()["period"].clone()
    };
    let returns = report.returns();
    assert!(returns.revenue > 0);
    assert_eq!(line("revenue_micros"), returns.revenue);
    assert_eq!(line("cash_margin_micros"), returns.cash_margin);
    assert_eq!(line("economic_profit_micros"), returns.economic_profit);
    assert_eq!(line("operator_revenue_micros"), returns.operator_revenue);
    assert_eq!(line("goodput_per_dollar"), json!(returns.goodput_per_dollar));
    let good = &page["answers"][0];
    let known = report.work["good"];
    assert_eq!((good["answers"].as_u64(), good["charged_micros"].as_i64()), (Some(known.answers), Some(known.amount)));
    for ((name, nanoseconds), row) in report.time.kinds().iter().zip(page["time"].as_array().unwrap()) {
        assert_eq!((row["kind"].as_str(), row["nanoseconds"].as_u64()), (Some(*name), Some(*nanoseconds)));
    }
}

#[test]
fn a_refund_changes_what_was_summed_before() {
    let folder = tempfile::tempdir().unwrap();
    let (served, ledger, runtime) = shop(folder.path(), true, true);
    chat(&served, "ada", "sql", "How many orders were placed in Graz?");
    let root = [("authorization", "Bearer root")];
    let good =
        || served.send("GET", "/dashboard?format=json", &root, b"").ok()["answers"][0]["charged_micros"].as_i64();
    wait_until("a charge", || good().is_some_and(|charged| charged > 0));
    let settled = runtime.block_on(ledger.settlements(0, i64::MAX, None, 9)).unwrap().remove(0);
    let (settlement, amount) = (settled.id.clone(), settled.amount);
    runtime.block_on(ledger.order("refund-1", ledger::What::Refund { settlement, amount }, "")).unwrap();
    wait_until("its refund", || good() == Some(0));
}

#[test]
fn live_numbers_come_as_events_and_end_with_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let (served, ..) = shop(folder.path(), false, false);
    let mut stream = served.open("GET", "/dashboard/live", &[], b"");
    let mut read = Vec::new();
    while !read.windows(2).any(|two| two == b"}\n") {
        let mut bytes = [0; 1024];
        let count = std::io::Read::read(&mut stream, &mut bytes).unwrap();
        assert!(count > 0);
        read.extend_from_slice(&bytes[..count]);
    }
    assert!(String::from_utf8_lossy(&read).contains("\"running\":"));
    let start = Instant::now();
    served.stop();
    assert!(start.elapsed() < Duration::from_secs(20), "the stream held the server up");
}
