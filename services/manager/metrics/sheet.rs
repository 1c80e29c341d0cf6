//! Families of figures, gathered in any order and written one after the other, as OpenMetrics wants them.

use std::collections::BTreeMap;

use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

/// Names and values of labels, in the order in which they are shown.
pub(super) type Labels = Vec<(String, String)>;

/// What is going to be written.
#[derive(Debug, Default)]
pub(super) struct Sheet {
    families: BTreeMap<String, Family>,
}

#[derive(Debug)]
struct Family {
    help: String,
    unit: Option<Unit>,
    samples: Samples,
}

#[derive(Debug)]
enum Samples {
    Gauge(Vec<(Labels, f64)>),
    Counter(Vec<(Labels, u64)>),
    Info(Vec<Labels>),
}

impl Sheet {
    /// Adds a sample of a gauge. `name` is without its unit, which is put behind it.
    pub(super) fn gauge(&mut self, name: &str, unit: Option<Unit>, help: &str, labels: Labels, value: f64) {
        let family = self.family(name, unit, help, || Samples::Gauge(Vec::new()));
        if let Samples::Gauge(samples) = &mut family.samples {
            samples.push((labels, value));
        }
    }

    /// Adds a sample of a counter. `name` is without `_total`, which is put behind it.
    pub(super) fn counter(&mut self, name: &str, help: &str, labels: Labels, value: u64) {
        let family = self.family(name, None, help, || Samples::Counter(Vec::new()));
        if let Samples::Counter(samples) = &mut family.samples {
            samples.push((labels, value));
        }
    }

    /// Adds a series that is always 1 and says something by its labels. `name` is without `_info`, which is put behind it.
    pub(super) fn info(&mut self, name: &str, help: &str, labels: Labels) {
        let family = self.family(name, None, help, || Samples::Info(Vec::new()));
        if let Samples::Info(samples) = &mut family.samples {
            samples.push(labels);
        }
    }

    pub(super) fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        for (name, family) in &self.families {
            let kind = match family.samples {
                Samples::Gauge(_) => MetricType::Gauge,
                Samples::Counter(_) => MetricType::Counter,
                Samples::Info(_) => MetricType::Info,
            };
            // A family of no labels would be written as `name{}`: right, but nobody writes it so.
            let mut metric = encoder.encode_descriptor(name, &family.help, family.unit.as_ref(), kind)?;
            match &family.samples {
                Samples::Gauge(samples) => {
                    for (labels, value) in samples {
                        if labels.is_empty() {
                            metric.encode_gauge(value)?;
                        } else {
                            metric.encode_family(labels)?.encode_gauge(value)?;
                        }
                    }
                }
                Samples::Counter(samples) => {
                    for (labels, value) in samples {
                        if labels.is_empty() {
                            metric.encode_counter::<NoLabelSet, _, f64>(value, None)?;
                        } else {
                            metric.encode_family(labels)?.encode_counter::<NoLabelSet, _, f64>(value, None)?;
                        }
                    }
                }
                Samples::Info(samples) => {
                    for labels in samples {
                        metric.encode_info(labels)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn family(&mut self, name: &str, unit: Option<Unit>, help: &str, samples: impl FnOnce() -> Samples) -> &mut Family {
        self.families.entry(name.to_owned()).or_insert_with(|| Family { help: escaped(help), unit, samples: samples() })
    }
}

/// The encoder writes help as it is.
fn escaped(help: &str) -> String {
    help.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

/// Labels from pairs.
pub(super) fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Labels with more of them.
pub(super) fn with<const N: usize>(common: &Labels, pairs: [(&str, &str); N]) -> Labels {
    common.iter().cloned().chain(labels(pairs)).collect()
}
