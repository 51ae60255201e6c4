//! Tables: defined once, shown as HTML, given as CSV or JSON.
//!
//! What a page shows in tables is all it knows, so `?format=csv` and `?format=json` give everything shown. Numbers are
//! rounded for people only: files have whole numbers, with their unit in the column's name.

use super::words;
use maud::{Markup, html};
use serde_json::{Map, Value, json};

/// One value.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    None,
    Text(String),
    /// Text that changes while one looks, by the name under which it is sent.
    Live(&'static str, String),
    /// Digests, ids, splits: in a type where letters do not blur.
    Code(String),
    /// Text that leads somewhere.
    Link(String, String),
    Count(u64),
    /// Micro-dollars.
    Dollars(i64),
    Bytes(u64),
    /// Microseconds since 1970.
    Moment(i64),
    Nanoseconds(u64),
    Milliseconds(u64),
    /// Parts per million.
    Share(u64),
}

impl Cell {
    pub(crate) fn text(text: impl Into<String>) -> Cell {
        Cell::Text(text.into())
    }

    pub(crate) fn code(text: impl Into<String>) -> Cell {
        Cell::Code(text.into())
    }

    fn is_number(&self) -> bool {
        !matches!(self, Cell::None | Cell::Text(_) | Cell::Live(..) | Cell::Code(_) | Cell::Link(..) | Cell::Moment(_))
    }

    fn html(&self) -> Markup {
        html! {
            @match self {
                Cell::None => { span.dim { "–" } }
                Cell::Text(text) => { (text) }
                Cell::Live(name, text) => { span data-live=(name) { (text) } }
                Cell::Code(text) => { code title=(text) { (words::short(text)) } }
                Cell::Link(text, to) => { a href=(to) title=(text) { (words::name(text)) } }
                Cell::Count(count) => { (words::count(*count)) }
                Cell::Dollars(micros) => { (words::dollars(*micros)) }
                Cell::Bytes(bytes) => { (words::bytes(*bytes)) }
                Cell::Moment(time) => { (words::moment(*time)) }
                Cell::Nanoseconds(time) => { (words::duration(*time)) }
                Cell::Milliseconds(time) => { (words::count(*time)) " ms" }
                Cell::Share(ppm) => { (words::share(*ppm)) }
            }
        }
    }

    fn json(&self) -> Value {
        match self {
            Cell::None => Value::Null,
            Cell::Text(text) | Cell::Live(_, text) | Cell::Code(text) | Cell::Link(text, _) => json!(text),
            Cell::Count(number)
            | Cell::Bytes(number)
            | Cell::Nanoseconds(number)
            | Cell::Milliseconds(number)
            | Cell::Share(number) => json!(number),
            Cell::Dollars(number) | Cell::Moment(number) => json!(number),
        }
    }

    fn csv(&self) -> String {
        let text = match self.json() {
            Value::Null => return String::new(),
            Value::String(text) => text,
            other => return other.to_string(),
        };
        // A spreadsheet would compute what begins like a formula.
        let text = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text };
        if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
    }
}

/// What a column is called: in files, and for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column(pub(crate) &'static str, pub(crate) &'static str);

/// A table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// Its name in files.
    pub(crate) name: &'static str,
    pub(crate) caption: String,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Vec<Cell>>,
    /// What to do to have rows.
    pub(crate) empty: &'static str,
    /// Where the next page is.
    pub(crate) more: Option<String>,
}

impl Table {
    pub(crate) fn new(
        name: &'static str,
        caption: impl Into<String>,
        columns: &[Column],
        empty: &'static str,
    ) -> Table {
        Table { name, caption: caption.into(), columns: columns.to_vec(), rows: vec![], empty, more: None }
    }

    pub(crate) fn row(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    pub(crate) fn html(&self) -> Markup {
        let is_number = |column: usize| {
            let known = self.rows.iter().find_map(|row| row.get(column).filter(|cell| !matches!(cell, Cell::None)));
            known.is_some_and(Cell::is_number)
        };
        let numbers: Vec<bool> = (0..self.columns.len()).map(is_number).collect();
        html! {
            @if self.rows.is_empty() {
                div.empty { p { strong { (self.caption) } ": nothing yet." } p { (self.empty) } }
            } @else {
                div.scroll tabindex="0" role="region" aria-label=(self.caption) {
                    table {
                        caption { (self.caption) }
                        thead { tr {
                            @for (column, number) in self.columns.iter().zip(&numbers) {
                                th scope="col" class=[number.then_some("number")] { (column.1) }
                            }
                        } }
                        tbody {
                            @for row in &self.rows {
                                tr {
                                    @for ((place, cell), number) in row.iter().enumerate().zip(&numbers) {
                                        @if place == 0 { th scope="row" { (cell.html()) } }
                                        @else { td class=[number.then_some("number")] { (cell.html()) } }
                                    }
                                }
                            }
                        }
                    }
                }
                @if let Some(more) = &self.more { p { a.more href=(more) { "More: " (self.caption) } } }
            }
        }
    }

    pub(crate) fn json(&self) -> Value {
        let row = |row: &Vec<Cell>| {
            let pairs = self.columns.iter().zip(row).map(|(column, cell)| (column.0.to_owned(), cell.json()));
            Value::Object(pairs.collect::<Map<_, _>>())
        };
        Value::Array(self.rows.iter().map(row).collect())
    }

    pub(crate) fn csv(&self) -> String {
        let mut text = self.columns.iter().map(|column| column.0).collect::<Vec<_>>().join(",");
        text.push_str("\r\n");
        for row in &self.rows {
            text.push_str(&row.iter().map(Cell::csv).collect::<Vec<_>>().join(","));
            text.push_str("\r\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_the_same_in_every_form_and_nothing_in_it_runs() {
        let mut table = Table::new("t", "T", &[Column("name", "Name"), Column("cost_micros", "Cost")], "");
        table.row(vec![Cell::text("<script>\"a\", b"), Cell::Dollars(1_500_000)]);
        table.row(vec![Cell::text("=1+1"), Cell::None]);
        assert_eq!(table.csv(), "name,cost_micros\r\n\"<script>\"\"a\"\", b\",1500000\r\n'=1+1,\r\n");
        assert_eq!(table.json()[0]["cost_micros"], 1_500_000);
        let html = table.html().into_string();
        assert!(html.contains("&lt;script&gt;") && !html.contains("<script>") && html.contains("$1.50"), "{html}");
    }
}
