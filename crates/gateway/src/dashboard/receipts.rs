//! Receipts: the newest first, and one field by field with its place in the log.

use super::page::{Page, Visit, address};
use super::proof;
use super::session::Viewer;
use super::table::{Cell, Column, Table};
use super::verdict::buttons;
use super::walk;
use super::words;
use crate::app::App;
use crate::error::ApiError;
use crate::hex;
use crate::receipts::{nothing, opening, unreadable};
use crate::ticket::Ticket;
use ledger::{AccountId, Kind};
use maud::{Markup, html};
use receipt::{Bundle, Finish, Receipt, Statement};
use std::sync::Arc;
use tlog::{Head, Name, Proof, leaf_hash};

/// Rows of a page.
const ROWS: u64 = 25;

/// A receipt, and what is behind it if the visitor may see that.
pub(crate) struct Opened {
    pub(crate) receipt: Receipt,
    pub(crate) bytes: Vec<u8>,
    pub(crate) index: u64,
    pub(crate) bundle: Option<Bundle>,
    /// Why there is no bundle.
    pub(crate) closed: String,
    proof: Result<Proof, String>,
}

/// Reads a receipt. Its tokens are opened by the key in its id, and to whoever sees everything.
pub(crate) async fn open(app: &Arc<App>, visit: &Visit, id: &str) -> Result<Opened, ApiError> {
    let ticket = Ticket::parse(id.trim()).ok_or_else(nothing)?;
    let (app, everything) = (app.clone(), visit.sees_everything());
    let read = tokio::task::spawn_blocking(move || {
        let found = app.recorder.receipt(&ticket.name).map_err(|error| unreadable(&error))?;
        let (bytes, index) = found.ok_or_else(nothing)?;
        let receipt = Receipt::parse(&bytes).map_err(|_| nothing())?;
        let (mut bundle, mut closed) = (None, String::new());
        if ticket.key.is_some_and(|key| !app.recorder.opens(&key, &receipt.hash)) {
            return Err(nothing());
        }
        if ticket.key.is_some() || everything {
            match opening(&app, &receipt, &ticket) {
                Ok(found) => bundle = Some(found),
                Err(error) => closed = error.message,
            }
        } else {
            closed = "Its tokens open with the whole id that its client got, key included.".to_owned();
        }
        let proof = app.recorder.log().prove(index).map_err(|error| error.to_string());
        Ok(Opened { receipt, bytes, index, bundle, closed, proof })
    });
    read.await.map_err(|error| unreadable(&error))?
}

/// The list.
pub(crate) async fn list(app: Arc<App>, visit: Visit) -> Result<Page, ApiError> {
    let table = match &visit.visitor.viewer {
        Viewer::Customer(name) => of_customer(&app, &visit, name).await?,
        _ => of_log(&app, &visit).await?,
    };
    let log = app.recorder.log();
    let body = html! {
        form.row method="get" action="/dashboard/receipt" role="search" {
            div { label for="id" { "Receipt's id" } input id="id" name="id" type="search" required placeholder="rcpt-…" maxlength="200"; }
            button type="submit" { "Find" }
        }
        (table.html())
        @let live = |name: &'static str| visit.sees_everything().then_some(name);
        p.dim { "The log has " span data-live=[live("entries")] { (words::count(log.size())) } " entries, of which "
            span data-live=[live("receipts")] { (words::count(app.recorder.count())) } " are receipts. Its name is " code { (log.origin()) } ". Its newest signed head: "
            a href="/v1/log/checkpoint" { "checkpoint" } "." }
    };
    let lead = "Every answer leaves a signed receipt in a log that cannot take anything back. The receipt holds salted hashes: \
                it tells nothing without what opens it.";
    Ok(Page::new("Receipts and log", lead, body, vec![table]))
}

const COLUMNS: [Column; 7] = [
    Column("receipt", "Receipt"),
    Column("entry", "Entry"),
    Column("time", "Made"),
    Column("model", "Model"),
    Column("prompt_tokens", "Prompt tokens"),
    Column("answer_tokens", "Answer tokens"),
    Column("finish", "Ended"),
];
const EMPTY: &str = "Ask something: in the playground, or with any OpenAI client at /v1 on this address.";

fn row(app: &App, receipt: &Receipt, index: u64, id: String) -> Vec<Cell> {
    let claims = &receipt.claims;
    vec![
        Cell::Link(id.clone(), address("/dashboard/receipt", "id", &id)),
        Cell::Count(index),
        Cell::Moment(claims.time_seconds.saturating_mul(1_000_000) as i64),
        Cell::text(model(app, claims.adapter.as_ref())),
        Cell::Count(claims.prompt_tokens),
        Cell::Count(claims.output_tokens),
        Cell::text(finish(claims.finish)),
    ]
}

fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

/// The name of the adapter with a digest, as it is registered now.
fn model(app: &App, adapter: Option<&receipt::Hash>) -> String {
    let Some(digest) = adapter else { return app.base_name.clone() };
    let known = app.engine.adapters().list();
    let found = known.iter().find(|known| known.digest().as_ref() == Some(digest));
    found.map_or_else(|| format!("adapter {}", &hex::encode(digest)[..12]), |known| known.name().to_owned())
}

async fn of_log(app: &Arc<App>, visit: &Visit) -> Result<Table, ApiError> {
    let before = visit.number::<u64>("before")?.unwrap_or(u64::MAX);
    let app = app.clone();
    let read = tokio::task::spawn_blocking(move || {
        let log = app.recorder.log();
        let end = before.min(log.size());
        let start = end.saturating_sub(ROWS);
        let mut table = Table::new("receipts", "Entries of the log, newest first", &COLUMNS, EMPTY);
        for index in (start..end).rev() {
            let entry = log.entry(index).map_err(|error| unreadable(&error))?;
            match Statement::parse(&entry) {
                Ok(Statement::Receipt(receipt)) => {
                    let id = receipt.id();
                    table.row(row(&app, &receipt, index, id));
                }
                Ok(statement) => {
                    let (what, time) = match &statement {
                        Statement::Seeds(seeds, _) => ("commitment to secrets of seeds", seeds.time_seconds),
                        Statement::Aborted(aborted, _) => ("numbers of seeds given up", aborted.time_seconds),
                        _ => ("another statement", 0),
                    };
                    let time = Cell::Moment(time.saturating_mul(1_000_000) as i64);
                    let rest = [Cell::None, Cell::None, Cell::None, Cell::None];
                    table.row([vec![Cell::text(what), Cell::Count(index), time], rest.to_vec()].concat());
                }
                Err(error) => return Err(unreadable(&error)),
            }
        }
        table.more = (start > 0).then(|| format!("/dashboard/receipts?before={start}"));
        Ok(table)
    });
    read.await.map_err(|error| unreadable(&error))?
}

/// Answers that a customer was charged for.
async fn of_customer(app: &Arc<App>, visit: &Visit, name: &str) -> Result<Table, ApiError> {
    let mut table = Table::new("receipts", "Your answers that were charged, newest first", &COLUMNS, EMPTY);
    let Some(billing) = &app.billing else { return Ok(table) };
    let account = AccountId::customer(name).map_err(|error| ApiError::server(error.to_string()))?;
    let away = |error: ledger::LedgerError| ApiError::ledger_away(error.to_string());
    let postings = billing.ledger.postings(&account, visit.number("before")?, ROWS as u32).await.map_err(away)?;
    for posting in postings.iter().filter(|posting| posting.kind == Kind::Settle) {
        let found = billing.ledger.transaction(&posting.id).await.map_err(away)?;
        let reference = found.and_then(|(entry, _)| entry.reference);
        let Some(name) = reference.as_deref().and_then(hex::decode::<16>) else { continue };
        if let Some((receipt, index)) = receipt_of(app, name).await? {
            let id = app.recorder.ticket(&receipt.hash).id();
            table.row(row(app, &receipt, index, id));
        }
    }
    let full = postings.len() as u64 == ROWS;
    let last = postings.last().filter(|_| full);
    table.more = last.map(|posting| format!("/dashboard/receipts?before={}", posting.number));
    Ok(table)
}

async fn receipt_of(app: &Arc<App>, name: Name) -> Result<Option<(Receipt, u64)>, ApiError> {
    let app = app.clone();
    let read = tokio::task::spawn_blocking(move || app.recorder.receipt(&name)).await;
    let found = read.map_err(|error| unreadable(&error))?.map_err(|error| unreadable(&error))?;
    Ok(found.and_then(|(bytes, index)| Some((Receipt::parse(&bytes).ok()?, index))))
}

/// One receipt.
pub(crate) async fn one(app: Arc<App>, visit: Visit) -> Result<Page, ApiError> {
    let id = visit.required("id")?.trim().to_owned();
    let opened = open(&app, &visit, &id).await?;
    let table = fields(&app, &opened);
    let file = |format: &str| format!("/v1/receipts/{id}?format={format}");
    let body = html! {
        section.panel data-around="yes" {
            @match &opened.bundle {
                Some(bundle) => { (said(&app, bundle)) h2 { "Is it true?" } (buttons(&app, &visit, &id)) }
                None => { p { (opened.closed) } }
            }
        }
        @if opened.bundle.is_some() {
            h2 { "If you cannot compute it all again" }
            @if visit.sees_everything() { section.panel data-around="yes" { (walk::buttons(&app, &visit, &id)) } }
            @else { p.dim { "On a machine of your own, " code { "lockstep verify --light" } " checks an answer without the model's weights, and " code { "lockstep dispute" }
                " takes it before a referee who has no model at all." } }
        }
        h2 { "Field by field" }
        dl.fields {
            @for row in &table.rows { @if let [Cell::Text(name), Cell::Text(value) | Cell::Code(value), Cell::Text(means)] = &row[..] {
                dt { (name) } dd { code { (value) } small { (means) } }
            } }
        }
        h2 { "Its place in the log" }
        (place(&app, &opened))
        p { "As files: " a href=(file("json")) { "JSON" } ", " a href=(file("cbor")) { "CBOR (for lockstep verify)" } ", "
            a href=(file("proof")) { "proof of inclusion" } "." }
        p.dim { "Check it anywhere: " code { "lockstep verify answer.receipt --log http://THIS-ADDRESS/v1/log" } }
    };
    let lead = "What the node signed about one answer. Whoever doubts it computes the answer again.";
    Ok(Page::new("Receipt", lead, body, vec![table]))
}

fn said(app: &App, bundle: &Bundle) -> Markup {
    let text = |tokens: &[u32]| app.engine.text().decode(tokens, true).unwrap_or_default();
    html! {
        h3 { "Prompt" } pre { (app.engine.text().decode(&bundle.opening.prompt, false).unwrap_or_default()) }
        h3 { "Answer" } pre { (text(&bundle.opening.output)) }
        @if let Some(form) = &bundle.opening.settings.shaping.form {
            h3 { "Form that the answer was held to (" (form.kind) ")" } pre { (form.source) }
        }
    }
}

fn fields(app: &App, opened: &Opened) -> Table {
    let columns = [Column("field", "Field"), Column("value", "Value"), Column("means", "What it is")];
    let mut table = Table::new("fields", "What the receipt binds", &columns, "");
    let (receipt, claims) = (&opened.receipt, &opened.receipt.claims);
    let optional = |hash: &Option<receipt::Hash>| hash.as_ref().map_or("none".to_owned(), |hash| hex::encode(hash));
    let seed = match claims.seed_number {
        Some(number) => format!("{} (number {number} of the node's committed secrets)", claims.seed),
        None => format!("{} (chosen by the client)", claims.seed),
    };
    let rows: Vec<(&str, String, &str)> = vec![
        ("id", receipt.id(), "how the receipt is found; it begins the hash of its bytes"),
        ("node", hex::encode(&receipt.node), "the key that signed it: a node is a key"),
        ("number", claims.number.to_string(), "how many receipts the node had made before"),
        ("previous", optional(&claims.previous), "hash of the receipt before: leaving one out shows"),
        ("time", words::moment(claims.time_seconds.saturating_mul(1_000_000) as i64), "when it was made"),
        (
            "arithmetic",
            format!("version {}, {}", claims.arithmetic, claims.activations.name()),
            "how numbers are computed, to the bit",
        ),
        ("base", hex::encode(&claims.base), "digest of the base model's weights as they are computed with"),
        (
            "adapter",
            format!("{} ({})", optional(&claims.adapter), model(app, claims.adapter.as_ref())),
            "digest of the adapter, and its name here now",
        ),
        ("tokenizer", optional(&claims.tokenizer), "digest of what turned text into tokens"),
        ("template", optional(&claims.template), "digest of what turned the conversation into a prompt"),
        (
            "prompt",
            format!("{} ({} tokens)", hex::encode(&claims.prompt), claims.prompt_tokens),
            "salted hash of its tokens",
        ),
        ("settings", hex::encode(&claims.settings), "salted hash of temperature, stops, penalties, form and the rest"),
        (
            "output",
            format!("{} ({} tokens)", hex::encode(&claims.output), claims.output_tokens),
            "salted hash of the answer's tokens",
        ),
        ("finish", finish(claims.finish).to_owned(), "why the answer ended: a stop, or the length asked for"),
        ("seed", seed, "what the draws are made from"),
        (
            "trace",
            hex::encode(&claims.trace),
            "salted root over a hash of every position's keys, values and hidden state",
        ),
        ("price", claims.price.to_string(), "version of the price list; 0 is none"),
        (
            "opening",
            format!("{} days", claims.opening_seconds / 86_400),
            "for how long the node owes what opens this receipt",
        ),
    ];
    for (name, value, means) in rows {
        table.row(vec![Cell::text(name), Cell::code(value), Cell::text(means)]);
    }
    table
}

fn place(app: &App, opened: &Opened) -> Markup {
    let proof = match &opened.proof {
        Ok(proof) => proof,
        Err(error) => return html! { p.verdict.differs { "The proof cannot be read: " (error) } },
    };
    let head = app.recorder.log().verifier().and_then(|key| proof.verify(&opened.bytes, &key));
    let Ok(Head { size, root, .. }) = head else { return html! { p.verdict.differs { "The proof does not hold." } } };
    let (drawn, holds) = proof::tree(leaf_hash(&opened.bytes), opened.index, size, &proof.hashes, &root);
    html! {
        div class=(if holds { "verdict equal" } else { "verdict differs" }) { p {
            @if holds { strong { "In the log." } } @else { strong { "Not in the log." } }
            " Entry " (words::count(opened.index)) " of " (words::count(size)) ". The receipt's own hash (bottom, thick), each time joined with a hash that the "
            "proof gives (dashed), leads to the root that the log's head signs: " code { (hex::encode(&root)) }
        } }
        (drawn)
    }
}
