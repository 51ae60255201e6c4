//! The books: accounts, postings, holds, prices and splits, one transaction.

use super::page::{Page, Visit, address};
use super::session::Viewer;
use super::statements;
use super::table::{Cell, Column, Table};
use super::words;
use crate::app::App;
use crate::billing::Billing;
use crate::error::ApiError;
use ledger::{AccountId, LedgerError, Posting};
use maud::html;
use std::sync::Arc;

/// Rows of a page.
const ROWS: u32 = 50;

pub(crate) fn away(error: LedgerError) -> ApiError {
    ApiError::ledger_away(error.to_string())
}

pub(crate) fn billing(app: &App) -> Result<&Arc<Billing>, ApiError> {
    app.billing.as_ref().ok_or_else(|| ApiError::not_found("this server keeps no ledger"))
}

/// Whether a visitor may see an account.
pub(crate) fn may_see(visit: &Visit, account: &AccountId) -> bool {
    match &visit.visitor.viewer {
        Viewer::Everything => true,
        Viewer::Customer(name) => AccountId::customer(name).as_ref() == Ok(account),
        Viewer::Nobody => false,
    }
}

fn link(account: &AccountId) -> Cell {
    Cell::Link(account.to_string(), address("/dashboard/account", "name", account.as_str()))
}

fn transaction_link(id: &str) -> Cell {
    Cell::Link(id.to_owned(), address("/dashboard/transaction", "id", id))
}

/// All accounts; a customer's own.
pub(crate) async fn show(app: Arc<App>, visit: Visit) -> Result<Page, ApiError> {
    if let Viewer::Customer(name) = &visit.visitor.viewer {
        let account = AccountId::customer(name).map_err(|error| ApiError::server(error.to_string()))?;
        return account_page(&app, &visit, &account).await;
    }
    let ledger = &billing(&app)?.ledger;
    let search = visit.field("search");
    let after = visit.field("after").map(str::parse::<AccountId>).transpose();
    let after = after.map_err(|error| ApiError::invalid("after", error.to_string()))?;
    let found = ledger.accounts(search, after.as_ref(), ROWS).await.map_err(away)?;
    let columns = [
        Column("account", "Account"),
        Column("balance_micros", "Balance"),
        Column("held_micros", "Held for requests"),
        Column("available_micros", "Available"),
        Column("floor_micros", "May go down to"),
        Column("owed_micros", "Owed"),
    ];
    let empty = "Accounts open with keys and with what they earn: lockstep up --api-keys FILE --prices FILE.";
    let mut accounts = Table::new("accounts", "Accounts", &columns, empty);
    for balance in &found {
        accounts.row(vec![
            link(&balance.account),
            Cell::Dollars(balance.balance.0),
            Cell::Dollars(balance.held.0),
            Cell::Dollars(balance.available().0),
            Cell::Dollars(balance.floor.0),
            Cell::Dollars(balance.owed.0),
        ]);
    }
    if let Some(last) = found.last().filter(|_| found.len() == ROWS as usize) {
        let mut more = address("/dashboard/ledger", "after", last.account.as_str());
        if let Some(search) = search {
            more.push_str(&address("", "search", search).replacen('?', "&", 1));
        }
        accounts.more = Some(more);
    }
    let (transactions, holds) = (transactions(&app, &visit).await?, holds(&app).await?);
    let statements = statements::all(&app).await?;
    let body = html! {
        form.row method="get" action="/dashboard/ledger" role="search" {
            div { label for="search" { "Account's name contains" }
                input id="search" name="search" type="search" maxlength="128" value=(search.unwrap_or_default()); }
            button type="submit" { "Find" }
        }
        (accounts.html())
        h2 { "Holds" }
        p.dim { "The most that a request under way can cost is kept away from other uses until it is settled." }
        (holds.html())
        h2 { "Transactions" }
        (transactions.html())
        h2 { "Statements" }
        p.dim { "The node signs how many accounts there are and what all balances add up to, zero if the books are sound. Each account can fetch the proof of its own "
            "balance, which says nothing of the others; the list of all balances is for an auditor, who adds them up." }
        (statements.html())
        @if visit.visitor.may_change {
            form method="post" action="/dashboard/statement/make" { (visit.token()) div.row { button.quiet type="submit" { "Make a statement now" } } }
        }
        h2 { "Prices and splits" }
        (prices(&app).html())
    };
    let lead = "Double entry in whole micro-dollars: every transaction adds up to zero, every operation happens once.";
    Ok(Page::new("Ledger", lead, body, vec![accounts, holds, transactions, statements, prices(&app)]))
}

async fn holds(app: &App) -> Result<Table, ApiError> {
    let columns = [
        Column("request", "Request"),
        Column("customer", "Customer"),
        Column("amount_micros", "At most"),
        Column("opened", "Since"),
        Column("expires", "Free again"),
    ];
    let mut table = Table::new(
        "holds",
        "Holds that have not ended",
        &columns,
        "They last as long as an answer does: none is under way.",
    );
    for hold in billing(app)?.ledger.holds(None, ROWS).await.map_err(away)? {
        let (opened, expires) = (Cell::Moment(hold.opened_at), Cell::Moment(hold.expires_at));
        table.row(vec![Cell::code(hold.id), link(&hold.customer), Cell::Dollars(hold.amount.0), opened, expires]);
    }
    Ok(table)
}

async fn transactions(app: &App, visit: &Visit) -> Result<Table, ApiError> {
    let columns = [
        Column("transaction", "Transaction"),
        Column("time", "When"),
        Column("kind", "Kind"),
        Column("account", "About"),
        Column("amount_micros", "Amount"),
        Column("undone_micros", "Undone"),
        Column("model", "Model"),
        Column("outcome", "Outcome"),
    ];
    let empty = "Ask something with a key (or in the playground), or pay something in.";
    let mut table = Table::new("transactions", "Transactions, newest first", &columns, empty);
    let found = billing(app)?.ledger.transactions(visit.number("before")?, ROWS).await.map_err(away)?;
    for entry in &found {
        let settled = entry.settled.as_ref();
        table.row(vec![
            transaction_link(&entry.id),
            Cell::Moment(entry.time),
            Cell::text(entry.kind.name()),
            entry.account.as_ref().map_or(Cell::None, link),
            Cell::Dollars(entry.amount.0),
            Cell::Dollars(entry.undone.0),
            settled.map_or(Cell::None, |settled| Cell::text(&*settled.model)),
            settled.map_or(Cell::None, |settled| Cell::text(settled.outcome.name())),
        ]);
    }
    let last = found.last().filter(|_| found.len() == ROWS as usize);
    table.more = last.map(|last| format!("/dashboard/ledger?before={}", last.number));
    Ok(table)
}

fn prices(app: &App) -> Table {
    let columns = [
        Column("model", "Model"),
        Column("prompt_micros", "Prompt"),
        Column("cached_micros", "Found computed"),
        Column("output_micros", "Answer"),
        Column("accepted_micros", "Right guesses"),
        Column("split", "Who earns what (parts per million)"),
    ];
    let empty = "Everything is free: give a list with lockstep up --prices FILE.";
    let mut table = Table::new("prices", "Prices for a million tokens", &columns, empty);
    let Some(billing) = &app.billing else { return table };
    let adapters = app.engine.adapters().list();
    let names = std::iter::once(app.base_name.as_str()).chain(adapters.iter().map(|adapter| adapter.name()));
    for name in names.take(200) {
        let Some(price) = billing.price(name) else { continue };
        table.row(vec![
            Cell::text(name),
            Cell::Dollars(price.prompt),
            Cell::Dollars(price.cached),
            Cell::Dollars(price.output),
            Cell::Dollars(price.accepted),
            Cell::text(billing.split(name).to_string()),
        ]);
    }
    table
}

/// One account.
pub(crate) async fn account(app: Arc<App>, visit: Visit) -> Result<Page, ApiError> {
    let name = visit.required("name")?;
    let account: AccountId = name.parse().map_err(|_| ApiError::not_found("there is no such account"))?;
    account_page(&app, &visit, &account).await
}

async fn account_page(app: &Arc<App>, visit: &Visit, account: &AccountId) -> Result<Page, ApiError> {
    let nothing = || ApiError::not_found("there is no such account");
    if !may_see(visit, account) {
        return Err(nothing());
    }
    let ledger = &billing(app)?.ledger;
    let balance = ledger.balance(account).await.map_err(away)?.ok_or_else(nothing)?;
    let payable = ledger.payable(account).await.map_err(away)?;
    let postings = ledger.postings(account, visit.number("before")?, ROWS).await.map_err(away)?;
    let (table, statements) = (postings_table(account, &postings), statements::of_account(app, account).await?);
    let body = html! {
        ul.cards {
            li.card { p { "Balance" } p.figure { (words::dollars(balance.balance.0)) } small { "What is on it; below zero is debt" } }
            li.card { p { "Held" } p.figure { (words::dollars(balance.held.0)) } small { "Kept for requests under way" } }
            li.card { p { "Available" } p.figure { (words::dollars(balance.available().0)) } small { "May be spent or held, credit down to " (words::dollars(balance.floor.0)) " included" } }
            li.card { p { "Can be paid out" } p.figure { (words::dollars(payable.0)) } small { "Without what was earned within the audit window" } }
        }
        (table.html())
        h2 { "Proof of this balance" }
        p.dim { "A statement is signed by the node and covers all accounts; the proof shows this account's balance in it and nothing of the others. Anybody checks it without "
            "the node: " code { "lockstep statement verify FILE --account " (account) " --node " (crate::hex::encode(&app.recorder.node())) } }
        (statements.html())
    };
    let lead = format!("Opened {}. Postings add up to the balance.", words::moment(balance.opened_at));
    Ok(Page::new(account.to_string(), lead, body, vec![table, statements]))
}

fn postings_table(account: &AccountId, postings: &[Posting]) -> Table {
    let columns = [
        Column("transaction", "Transaction"),
        Column("time", "When"),
        Column("kind", "Kind"),
        Column("amount_micros", "Amount"),
    ];
    let empty = "Nothing was posted yet: postings come with answers that are charged, deposits and payouts.";
    let mut table = Table::new("postings", "Postings, newest first", &columns, empty);
    for posting in postings {
        let (time, kind) = (Cell::Moment(posting.time), Cell::text(posting.kind.name()));
        table.row(vec![transaction_link(&posting.id), time, kind, Cell::Dollars(posting.amount.0)]);
    }
    let last = postings.last().filter(|_| postings.len() == ROWS as usize);
    let more =
        |last: &Posting| format!("{}&before={}", address("/dashboard/account", "name", account.as_str()), last.number);
    table.more = last.map(more);
    table
}

/// One transaction.
pub(crate) async fn transaction(app: Arc<App>, visit: Visit) -> Result<Page, ApiError> {
    let nothing = || ApiError::not_found("there is no such transaction");
    let id = visit.required("id")?;
    let (entry, lines) = billing(&app)?.ledger.transaction(id).await.map_err(away)?.ok_or_else(nothing)?;
    if !visit.sees_everything() && !entry.account.as_ref().is_some_and(|account| may_see(&visit, account)) {
        return Err(nothing());
    }
    let columns = [Column("account", "Account"), Column("amount_micros", "Amount")];
    let mut table = Table::new("postings", "Its postings: they add up to zero", &columns, "It moved no money.");
    for (account, amount) in &lines {
        table.row(vec![link(account), Cell::Dollars(amount.0)]);
    }
    let receipt = entry.reference.as_ref().map(|reference| format!("rcpt-{reference}"));
    let body = html! {
        dl.fields {
            dt { "Kind" } dd { (entry.kind.name()) }
            dt { "When" } dd { (words::moment(entry.time)) }
            dt { "Amount" } dd { (words::dollars(entry.amount.0)) small { "of it undone later: " (words::dollars(entry.undone.0)) } }
            @if !entry.note.is_empty() { dt { "Note" } dd { (entry.note) } }
            @if let Some(settled) = &entry.settled {
                dt { "Model" } dd { (settled.model) }
                dt { "Outcome" } dd { (settled.outcome.name()) @if settled.late { ", slower than the model's target" } }
                dt { "Tokens" } dd { (settled.usage.prompt) " of the prompt, " (settled.usage.cached) " of them found computed; "
                    (settled.usage.output) " of the answer, " (settled.usage.accepted) " of them right guesses" }
                dt { "Took" } dd { (settled.total_ms) " ms" @if let Some(first) = settled.first_token_ms { ", " (first) " ms to the first token" } }
                dt { "Held before" } dd { (words::dollars(settled.held.0)) small { "the most it could have cost" } }
                dt { "Split" } dd { (settled.split) small { "who earns what, in parts per million" } }
                dt { "Price list" } dd { "version " (settled.price) }
                @if let Some(receipt) = &receipt { dt { "Receipt" } dd { a href=(address("/dashboard/receipt", "id", receipt)) { (receipt) } } }
            } @else if let Some(reference) = &entry.reference { dt { "Undoes" } dd { a href=(address("/dashboard/transaction", "id", reference)) { (reference) } } }
        }
        (table.html())
    };
    Ok(Page::new(format!("Transaction {}", words::short(id)), "", body, vec![table]))
}
