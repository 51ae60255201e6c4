//! What each request is, from the seed alone.

use ledger::{AccountId, Hold, Micros, Outcome, Settlement, Split, Usage};

/// Customers who ask.
pub(crate) const CUSTOMERS: u64 = 200;
const NODES: u64 = 8;
const MODELS: u64 = 50;
/// Holds that never expire.
const NEVER: i64 = 1 << 60;

/// A small generator (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }
}

pub(crate) fn customer(number: u64) -> AccountId {
    AccountId::customer(&format!("c{number}")).unwrap()
}

/// What every customer has at first.
pub(crate) fn deposit_of() -> Micros {
    Micros::MAX
}

/// One request.
pub(crate) struct Request {
    id: String,
    customer: u64,
    node: u64,
    model: u64,
    held: i64,
    cost: i64,
    fate: u64,
}

impl Request {
    pub(crate) fn of(seed: u64, gateway: u64, number: u64) -> Request {
        let mut random = Random(seed.wrapping_mul(1_000_003) ^ (gateway << 48) ^ number);
        let held = 100 + random.below(100_000) as i64;
        Request {
            id: format!("g{gateway}-{number}"),
            customer: random.below(CUSTOMERS),
            node: random.below(NODES),
            model: random.below(MODELS),
            held,
            // Enough that each of five gets something.
            cost: 100 + random.below(held as u64 - 99) as i64,
            fate: random.below(100),
        }
    }

    pub(crate) fn hold(&self) -> Hold {
        Hold { id: self.id.clone(), customer: customer(self.customer), amount: Micros(self.held), expires_at: NEVER }
    }

    /// None if it is released.
    pub(crate) fn settlement(&self) -> Option<Settlement> {
        let outcome = match self.fate {
            0..4 => return None,
            4..6 => Outcome::Free,
            6..8 => Outcome::Failed,
            8..10 => Outcome::Late,
            _ => Outcome::Paid,
        };
        let split: Split = "operator=700000,author:bo=150000,network=100000,insurance=50000".parse().unwrap();
        Some(Settlement {
            hold: self.id.clone(),
            amount: Micros(self.cost),
            operator: AccountId::operator(&format!("node-{}", self.node)).unwrap(),
            split,
            usage: Usage { prompt: 500, cached: 64, output: 100, accepted: 3 },
            model: format!("adapter-{}", self.model),
            price: 1,
            receipt: Some("rcpt-0123456789abcdef0123456789abcdef".to_owned()),
            outcome,
            first_token_ms: Some(30),
            total_ms: 400,
            late: outcome == Outcome::Late,
        })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}
