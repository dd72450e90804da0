//! What the programs serve at `/metrics`, each family said once: the page that is scraped and the reference that is read are
//! both made from it.

use std::fmt::{self, Write};

use prometheus_client::{
    encoding::{DescriptorEncoder, MetricEncoder},
    metrics::MetricType,
    registry::{self, Registry},
};

/// A family of series.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Without the ending that its type gives to the names of series: `_total`, `_bucket`, `_info`.
    pub name: &'static str,
    pub kind: MetricType,
    /// Of each series.
    pub labels: &'static [&'static str],
    /// What it says, without a full stop.
    pub help: &'static str,
    /// When to look at it, without a full stop.
    pub look: &'static str,
}

/// Families of one part of a program.
#[derive(Debug)]
pub struct Group {
    pub title: &'static str,
    pub metrics: Vec<&'static Metric>,
}

impl Metric {
    /// Puts a metric into a registry under this name.
    pub fn register(&self, registry: &mut Registry, metric: impl registry::Metric) {
        registry.register(self.name, self.help, metric);
    }

    /// Begins the family on a page.
    pub fn encode<'a>(
        &'a self,
        encoder: &'a mut DescriptorEncoder<'_>,
    ) -> Result<MetricEncoder<'a>, fmt::Error> {
        encoder.encode_descriptor(self.name, &format!("{}.", self.help), None, self.kind)
    }

    /// The name to write in a query. A histogram's has `_bucket`, `_sum` and `_count` after it.
    pub fn queried(&self) -> String {
        let ending = match self.kind {
            MetricType::Counter => "_total",
            MetricType::Info => "_info",
            MetricType::Gauge | MetricType::Histogram | MetricType::Unknown => "",
        };
        format!("{}{ending}", self.name)
    }

    /// By the convention of names that ends them in their unit.
    fn unit(&self) -> &'static str {
        let ends = |unit: &str| self.name.ends_with(unit);
        match self.kind {
            MetricType::Info => "",
            _ if ends("_timestamp_seconds") || ends("_time_seconds") => "seconds since 1970",
            _ if ends("_seconds") => "seconds",
            _ if ends("_bytes") => "bytes",
            _ => "",
        }
    }
}

/// One section of the reference, for one program: a table for each group.
pub fn reference(program: &str, introduction: &str, groups: &[Group]) -> String {
    let mut page = format!("## {program}\n\n{introduction}\n");
    for Group { title, metrics } in groups {
        // Writing to a String cannot fail.
        let _ =
            write!(page, "\n### {title}\n\n| metric | type | labels | what it says | when to look at it |\n");
        page.push_str("|---|---|---|---|---|\n");
        for metric in metrics {
            let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let unit = metric.unit();
            let kind = [metric.kind.as_str(), unit];
            let kind: Vec<_> = kind.into_iter().filter(|part| !part.is_empty()).collect();
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {}. | {}. |",
                metric.queried(),
                kind.join(", "),
                labels.join(", "),
                metric.help,
                metric.look,
            );
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text::encode, metrics::counter::Counter};

    use super::*;

    const SENT: Metric = Metric {
        name: "sent_bytes",
        kind: MetricType::Counter,
        labels: &["backend"],
        help: "Bytes sent",
        look: "Whenever",
    };

    #[test]
    fn a_family_is_called_the_same_on_the_page_and_in_the_reference() {
        let mut registry = Registry::default();
        SENT.register(&mut registry, Counter::<u64>::default());
        let mut page = String::new();
        encode(&mut page, &registry).unwrap();
        assert_eq!(
            page,
            "# HELP sent_bytes Bytes sent.\n# TYPE sent_bytes counter\nsent_bytes_total 0\n# EOF\n"
        );
        let reference = reference("Program", "Of it.", &[Group { title: "Part", metrics: vec![&SENT] }]);
        let row = "| `sent_bytes_total` | counter, bytes | `backend` | Bytes sent. | Whenever. |\n";
        assert!(reference.ends_with(row), "{reference}");
    }
}
