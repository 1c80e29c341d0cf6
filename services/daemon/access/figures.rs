//! What the figures show of doors and credentials.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError, atomic::Ordering},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::Access;

/// What was counted at the doors.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    refused: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    open: Mutex<BTreeMap<&'static str, i64>>,
    handshakes: Mutex<BTreeMap<&'static str, i64>>,
}

fn add<K: Ord, N: Default + std::ops::AddAssign>(counts: &Mutex<BTreeMap<K, N>>, key: K, number: N) {
    *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += number;
}

fn read<K: Clone, N: Copy>(counts: &Mutex<BTreeMap<K, N>>) -> Vec<(K, N)> {
    counts.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(key, number)| (key.clone(), *number)).collect()
}

impl Counts {
    pub(crate) fn refused(&self, listener: &'static str, why: &'static str) {
        add(&self.refused, (listener, why), 1);
    }

    pub(crate) fn open(&self, listener: &'static str, more: i64) {
        add(&self.open, listener, more);
    }

    pub(crate) fn handshakes(&self, listener: &'static str, more: i64) {
        add(&self.handshakes, listener, more);
    }
}

impl Access {
    /// Adds what is known of certificates, connections and refusals to the figures of a process, whose prefix the registry has.
    pub fn register(&self, figures: &mut Registry) {
        figures.register_collector(Box::new(Figures(self.clone())));
    }
}

#[derive(Debug)]
struct Figures(Access);

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let inner = &*self.0.0;
        let help = "When a certificate that this process depends on ends, in seconds since 1970.";
        let mut metric = encoder.encode_descriptor("certificate_expiry_timestamp", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for (label, end) in inner.expiry.ends() {
            let labels = [("usage", label.usage), ("monitor", label.monitor.as_str()), ("subject", label.subject.as_str())];
            let shown: Vec<_> = labels.into_iter().filter(|(_, value)| !value.is_empty()).collect();
            metric.encode_family(&shown)?.encode_gauge(&end)?;
        }
        let help = "Whether new certificates, keys or tokens are broken, so that the old ones stay in force (1).";
        let broken = i64::from(inner.is_broken.load(Ordering::Relaxed));
        encoder.encode_descriptor("credentials_broken", help, None, MetricType::Gauge)?.encode_gauge(&broken)?;
        for (name, help, count) in [
            ("credentials_reloads", "How often certificates, keys and tokens were read again.", &inner.reloads),
            ("credentials_failed_reloads", "How often what was read was broken.", &inner.failed_reloads),
        ] {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            metric.encode_counter::<NoLabelSet, _, f64>(&count.load(Ordering::Relaxed), None)?;
        }
        let help = "Those who were not let in or not allowed what they asked, by listener and reason.";
        let mut metric = encoder.encode_descriptor("refused", help, None, MetricType::Counter)?;
        for ((listener, reason), count) in read(&inner.counts.refused) {
            metric.encode_family(&[("listener", listener), ("reason", reason)])?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
        for (name, help, numbers) in [
            ("connections", "Connections that are open, by listener.", &inner.counts.open),
            ("handshakes_in_progress", "Handshakes of TLS in progress, by listener.", &inner.counts.handshakes),
        ] {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (listener, number) in read(numbers) {
                metric.encode_family(&[("listener", listener)])?.encode_gauge(&number)?;
            }
        }
        let help = "Lines of the audit log that were left out because there were too many.";
        let left_out = inner.audit.left_out();
        encoder
            .encode_descriptor("audit_lines_left_out", help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, f64>(&left_out, None)
    }
}
