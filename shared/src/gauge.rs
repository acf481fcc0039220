//! A guard that counts in a gauge for as long as it lives.
//!
//! The gauge goes down wherever the guard ends, early returns, cancelled tasks and panics included.

use prometheus_client::metrics::gauge::Gauge;

/// Counts one in a gauge until it is dropped.
///
/// ```
/// use prometheus_client::metrics::gauge::Gauge;
/// use shared::gauge::GaugeGuard;
///
/// let sessions = Gauge::default();
/// let session = GaugeGuard::new(&sessions);
/// assert_eq!(sessions.get(), 1);
/// drop(session);
/// assert_eq!(sessions.get(), 0);
/// ```
#[derive(Debug)]
#[must_use = "a guard that is dropped at once counts nothing"]
pub struct GaugeGuard(Gauge);

impl GaugeGuard {
    /// Counts one up, until the guard is dropped.
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
