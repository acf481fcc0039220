//! Keys that there were in an earlier version, and what to write instead.

/// Old keys, each with what to write.
const MOVED: [(&str, &str); 1] = [(
    "auth_adapter.body",
    "is now auth_adapter.request.token: write \"json:token\" for \"json\", \"form:token\" for \"form\"",
)];

/// Returns what to write instead of an old key. `None`: there never was such a key.
pub(super) fn instead_of(key: &str) -> Option<&'static str> {
    MOVED.iter().find(|(old, _)| *old == key).map(|(_, instead)| *instead)
}
