//! The figures, as OpenMetrics: what the manager itself does (`vantage_manager_*`, `own`), what is known of each check
//! (`vantage_check_*`, `checks`), and the numbers of each report by the contract's descriptors (`vantage_<kind>_*`, `reports`).
//!
//! They are made at the scrape, from one snapshot of the desk, so that the series of a check end with the check. Their number is
//! bounded: for each check and monitor four outcomes, the reasons that occurred (at most one series for each of the contract's), at most 16
//! phases, and one series for each number of the kind's report, of which the contract sets the number; text and repeated fields give none.

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Registry};

use crate::desk::Desk;

mod checks;
mod own;
mod reports;
mod sheet;

use sheet::Sheet;

/// Adds the figures of a desk to those that `/metrics` shows.
pub fn register(desk: Desk, figures: &mut Registry) {
    figures.register_collector(Box::new(Figures { desk }));
}

#[derive(Debug)]
struct Figures {
    desk: Desk,
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let (snapshot, mut sheet) = (self.desk.snapshot(), Sheet::default());
        own::write(&self.desk, &snapshot.links, &mut sheet);
        for check in &snapshot.checks {
            checks::write(check, &mut sheet);
        }
        sheet.encode(encoder)
    }
}

#[cfg(test)]
mod tests;
