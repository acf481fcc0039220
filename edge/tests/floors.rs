//! The floors of this crate, lowest first: a module imports from its own floor and from those below.

use floors::Floor;

const FLOORS: &[Floor<'_>] = &[
    ("words: what clients are told, what is counted", &["code", "protocol", "spans", "frame", "metrics"]),
    (
        "decisions: pure",
        &[
            "ban_list",
            "refreshes",
            "channel::cursor",
            "channel::recoverable",
            "session::state",
            "session::throttle",
            "balance::plan",
        ],
    ),
    (
        "channel: what waits for a session, and the sessions of a channel",
        &["outbox", "session_handle", "channel"],
    ),
    ("doors: sockets, remote addresses, tokens", &["transport", "admission", "adapters", "authn", "backlog"]),
    ("hub: maps and their locks", &["hub::sharded", "hub", "hub::guards", "hub::member"]),
    (
        "hub: what is done with them",
        &["hub::history", "hub::following", "hub::refreshing", "hub::gauges", "node"],
    ),
    (
        "recovery: what is known of the streams",
        &["recovery::gaps", "recovery::identity", "recovery::looks", "recovery::recent", "recovery::metrics"],
    ),
    ("recovery: what its tasks share", &["recovery"]),
    (
        "recovery: reading, replaying, answering",
        &[
            "recovery::doubt",
            "recovery::fetch",
            "recovery::attach",
            "recovery::live",
            "recovery::replay",
            "recovery::sweep",
            "recovery::asks",
        ],
    ),
    ("session: the task of one client", &["session", "session::follow"]),
    (
        "tasks: what an edge does beside its sessions",
        &[
            "config",
            "upgrade",
            "listener",
            "feed",
            "control",
            "ban_reader",
            "balance",
            "drain",
            "announce",
            "ready",
        ],
    ),
    ("wiring", &["crate", "fuzz"]),
];

#[test]
fn no_module_imports_from_a_floor_above_its_own() {
    let src = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let found = floors::violations(src, FLOORS).unwrap();
    assert!(found.is_empty(), "see the floors in ARCHITECTURE.md:\n{}", found.join("\n"));
}
