//! A gauge that counts what is there: one up for as long as a value lives.
//!
//! Counting down happens wherever the value ends, early returns, cancelled tasks and panics included.

use prometheus_client::metrics::gauge::Gauge;

/// Counts one up for as long as it lives.
#[derive(Debug)]
#[must_use = "what is dropped at once counts nothing"]
pub struct GaugeGuard(Gauge);

impl GaugeGuard {
    /// Counts one up.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_counts_what_lives() {
        let gauge = Gauge::default();
        let (one, two) = (GaugeGuard::new(&gauge), GaugeGuard::new(&gauge));
        assert_eq!(gauge.get(), 2);
        drop(one);
        assert_eq!(gauge.get(), 1);
        drop(two);
        assert_eq!(gauge.get(), 0);
    }
}
