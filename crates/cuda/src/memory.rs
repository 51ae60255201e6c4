//! What goes where, decided from the memory that is free when an executor starts, and never more than that.

use crate::areas::{Limits, Sizes};
use crate::launcher::DeviceError;

/// How much of the free memory goes to what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryPlan {
    /// Bytes free at the start.
    pub free: usize,
    /// Bytes of weights.
    pub weights: usize,
    /// Bytes a step works in.
    pub work: usize,
    /// Bytes kept for adapters.
    pub adapters: usize,
    /// Pages.
    pub pages: usize,
    /// Bytes of one page.
    pub page_bytes: usize,
    /// The most of one pass.
    pub limits: Limits,
}

/// Share of what remains beside weights that steps may work in at most.
const WORK_SHARE: usize = 4;
/// Share of what then remains that is kept for adapters.
const ADAPTER_SHARE: usize = 4;
/// Kept free for the driver, graphs and other programs: a thirty-second of all, 64 MiB at least.
const RESERVE_SHARE: usize = 32;

/// What is wanted; none leaves it to the plan.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) pages: Option<usize>,
    pub(crate) adapter_bytes: Option<usize>,
}

/// Divides `free` bytes. `sizes.limits.rows` is the most rows wanted; fewer if memory is short.
pub(crate) fn plan(
    free: usize,
    weights: usize,
    page_bytes: usize,
    mut sizes: Sizes<'_>,
    wishes: Wishes,
) -> Result<MemoryPlan, DeviceError> {
    let reserve = (free / RESERVE_SHARE).max((64 << 20).min(free / 8));
    let Some(rest) = free.checked_sub(weights + reserve) else { return Err(DeviceError::Memory(weights + reserve)) };
    while sizes.limits.rows > 16 && sizes.total() > rest / WORK_SHARE {
        sizes.limits.rows /= 2;
        sizes.limits.logit_rows = sizes.limits.logit_rows.min(sizes.limits.rows);
    }
    let work = sizes.total();
    let Some(rest) = rest.checked_sub(work) else { return Err(DeviceError::Memory(work)) };
    let adapters = wishes.adapter_bytes.unwrap_or(rest / ADAPTER_SHARE).min(rest);
    let most = (rest - adapters) / page_bytes;
    let pages = wishes.pages.map_or(most, |pages| pages.min(most));
    if pages == 0 {
        return Err(DeviceError::Memory(page_bytes));
    }
    Ok(MemoryPlan { free, weights, work, adapters, pages, page_bytes, limits: sizes.limits })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::DeviceWeights;
    use exact::Activations;
    use model::{Plan, Shape};

    fn divide(free: usize) -> Result<MemoryPlan, DeviceError> {
        let shape = Shape::llama_1_24b();
        let plan_of = Plan::new(&shape);
        let limits = Limits { rows: 2048, logit_rows: 256, positions: 8192, part_bytes: 64 << 20, trace: true };
        let sizes = Sizes { shape: &shape, plan: &plan_of, activations: Activations::A8, limits, shared_max: 99 << 10 };
        plan(free, DeviceWeights::bytes_of(&shape, &plan_of), 2 << 20, sizes, Wishes::default())
    }

    #[test]
    fn what_is_planned_is_never_more_than_what_is_free() {
        for gigabytes in [2, 3, 4, 6, 8, 24, 80, 141] {
            let free = gigabytes << 30;
            match divide(free) {
                Ok(plan) => {
                    assert!(plan.weights + plan.work + plan.adapters + plan.pages * plan.page_bytes <= free);
                    assert!(plan.pages > 0 && plan.limits.rows >= 16);
                }
                Err(error) => assert!(gigabytes < 3, "{gigabytes} GiB: {error}"),
            }
        }
        assert!(divide(1 << 30).is_err());
        assert_eq!(divide(141 << 30).unwrap().limits.rows, 2048);
        assert!(divide(3 << 30).unwrap().limits.rows < 2048);
    }
}
