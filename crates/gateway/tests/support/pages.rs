//! What tests of the pages share: a server with a ledger, sessions, forms.

use super::{Answer, BASE, Served, ask, demo, engine};
use gateway::{Billing, Config, Keys, Limits, Server, Target};
use ledger::{Ledger, PriceList};
use returns::Device;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

pub const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// A server with a ledger and prices; with keys for ada and bob, or open.
pub fn shop(folder: &Path, keyed: bool, admin: bool) -> (Served, Ledger, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let database = format!("sqlite:{}", folder.join("ledger.sqlite").display()).parse().unwrap();
    let ledger = runtime.block_on(Ledger::open(ledger::Config::new(database, folder.join("spool")))).unwrap();
    let prices = r#"{"version": 3, "default": {"prompt": 1000000, "output": 3000000}}"#;
    let billing = Billing::new(ledger.clone()).with_prices(PriceList::parse(prices).unwrap());
    // However slow this machine is, no answer is late.
    let hour = Duration::from_secs(3600);
    let billing = billing.with_targets(Target { first: hour, each: hour }, BTreeMap::new());
    let keys = if keyed {
        let line = |name: &str| format!("{name} {} budget=5\n", blake3::hash(name.as_bytes()).to_hex());
        std::fs::write(folder.join("keys"), line("ada") + &line("bob")).unwrap();
        Keys::read(&folder.join("keys")).unwrap()
    } else {
        Keys::default()
    };
    let (engine, adapters) = (engine(|_| {}), demo().adapters.clone());
    let config = Config { folder: folder.join("node"), base: BASE.into(), adapters, keys, limits: Limits::default() };
    let server = Server::new(engine.clone(), config).unwrap().with_device(Device::known().remove(0));
    let server = if admin { server.with_admin_key("root") } else { server };
    let server = runtime.block_on(server.with_billing(billing)).unwrap();
    (Served::running(engine, server), ledger, runtime)
}

pub fn chat(served: &Served, key: &str, model: &str, text: &str) -> Value {
    let bearer = format!("Bearer {key}");
    let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
    let mut body = ask(model, text);
    body["max_tokens"] = json!(12);
    body["temperature"] = json!(0);
    served.send("POST", "/v1/chat/completions", &headers, body.to_string().as_bytes()).ok()
}

pub fn cookie(answer: &Answer) -> String {
    answer.headers["set-cookie"].split(';').next().unwrap().to_owned()
}

pub fn token(page: &Answer) -> String {
    let (_, rest) = page.text().split_once(r#"name="token" value=""#).unwrap();
    rest.split('"').next().unwrap().to_owned()
}

pub fn encoded(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

/// A cookie, and the token of the forms that belong to it.
pub fn visit(served: &Served, cookie_before: Option<&str>) -> (String, String) {
    let headers: Vec<(&str, &str)> = cookie_before.iter().map(|cookie| ("cookie", *cookie)).collect();
    let page = served.send("GET", "/dashboard/login", &headers, b"");
    let own = cookie_before.map_or_else(|| cookie(&page), str::to_owned);
    let token = if page.text().contains("name=\"token\"") {
        token(&page)
    } else {
        token(&served.send("GET", "/dashboard/playground", &[("cookie", &own)], b""))
    };
    (own, token)
}

/// Signs in; gives the session's cookie.
pub fn sign_in(served: &Served, key: &str) -> String {
    let (own, token) = visit(served, None);
    let body = encoded(&[("token", &token), ("key", key)]);
    let done = served.send("POST", "/dashboard/login", &[FORM, ("cookie", &own)], body.as_bytes());
    assert_eq!(done.status, 303, "{}", done.text());
    cookie(&done)
}

pub fn look(served: &Served, cookie: &str, path: &str) -> Answer {
    served.send("GET", path, &[("cookie", cookie)], b"")
}
