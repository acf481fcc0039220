//! The most entries that a call may have.

/// Targets that one call may name, over all its messages.
pub(super) const MAX_TARGETS: usize = 10_000;
/// Messages in one batch.
pub(super) const MAX_MESSAGES: usize = 1_000;
/// Users in one question.
pub(super) const MAX_USERS: usize = 1_000;
