//! `vantage-monitor probe KIND TARGET`: one probe, from here or from a monitor, told to a person or as JSON.
//!
//! Nothing here knows a kind: options, their help and the report come from the contract's descriptors, so that a new kind works at once.

mod args;
mod build;
mod here;
mod show;
mod there;

use std::time::Duration;

use jiff::tz::TimeZone;
use vantage_contract::{
    json,
    v1::{Outcome, ProbeResult},
};
use vantage_daemon::exit::{Exit, Fatal};
use vantage_probes::Plan;

pub(crate) use args::ProbeArgs;

use crate::{
    client::{Link, Trust},
    output::{Output, print},
};

/// What the check of a single probe is called.
const CHECK_NAME: &str = "probe";

/// Runs the probe and shows its result. The exit code is the outcome: 0 passed, 1 failed, 2 undetermined or skipped.
pub(crate) async fn run(args: &ProbeArgs) -> Result<Exit, Fatal> {
    let check = build::check(&args.kind, &args.target, &args.settings).map_err(|why| Fatal::new(Exit::Usage, why))?;
    let probe = check.probe.clone().unwrap_or_default();
    // Parsed here also where it runs elsewhere: what is wrong with it is the user's slip, and no result.
    let plan = Plan::parse(&probe).map_err(|invalid| Fatal::new(Exit::Usage, invalid.to_string()))?;
    let result = match &args.common.at {
        None => {
            if args.common.trust != Trust::default() {
                tracing::warn!("the probe runs from here: what tells how a monitor is trusted counts only with --at");
            }
            here::run(&check).await
        }
        Some(at) => {
            let link = Link::connect(at, &args.common.trust).await?;
            // The monitor may let it wait for its turn.
            there::run(&link, check, plan.timeout() + Duration::from_secs(15)).await?
        }
    };
    match args.common.output {
        Output::Json => print(&format!("{}\n", json::to_json(&result))),
        Output::Text => print(&show::result(&result, &TimeZone::system())),
    }?;
    Ok(exit(&result))
}

fn exit(result: &ProbeResult) -> Exit {
    match result.outcome() {
        Outcome::Passed => Exit::Ok,
        Outcome::Failed => Exit::SomeFailed,
        Outcome::Undetermined | Outcome::Skipped | Outcome::Unspecified => Exit::SomeUndetermined,
    }
}
