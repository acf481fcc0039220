//! Where the embedded bus knowingly does not do what nats-server does.
//!
//! None of it may be something that the product uses: there is no way to say otherwise. An entry is checked both
//! ways: its case must pass on nats-server, and must fail on the embedded bus with the words given here. An entry that
//! names no case, or that no longer fails, fails the suite.

/// One difference.
#[derive(Debug)]
pub(crate) struct Difference {
    /// `client/case`.
    pub(crate) case: &'static str,
    /// What the failure on the embedded bus must say.
    pub(crate) failure: &'static str,
    /// Why the embedded bus is otherwise.
    pub(crate) reason: &'static str,
}

/// Every difference there is.
pub(crate) const DIFFERENCES: &[Difference] = &[];

/// The entry for `client/case`.
pub(crate) fn of(case: &str) -> Option<&'static Difference> {
    DIFFERENCES.iter().find(|difference| difference.case == case)
}
