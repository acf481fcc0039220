//! Deliberate differences between the embedded bus and nats-server.
//!
//! No entry may concern a feature that the product uses; an entry cannot excuse that. Each is checked both
//! ways: its case must pass on nats-server, and must fail on the embedded bus with the words given here. An
//! entry that names no case, or whose case no longer fails, fails the suite.

/// One difference.
#[derive(Debug)]
pub(crate) struct Difference {
    /// `client/case`.
    pub(crate) case: &'static str,
    /// Text that the failure on the embedded bus must contain.
    pub(crate) failure: &'static str,
    /// Why the embedded bus differs.
    pub(crate) reason: &'static str,
}

/// All differences.
pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference {
        case: "streams/a_purge_past_the_end_moves_the_sequences",
        failure: "[0, 1000, 999]",
        reason: "a purge removes messages; it hands out no sequences",
    },
    Difference {
        case: "raw/info_names_a_key_for_auth_callouts",
        failure: "xkey",
        reason: "there are no auth callouts, and no other client reads the key",
    },
    Difference {
        case: "raw/a_traced_message_leaves_a_trace",
        failure: "in vain",
        reason: "nothing is traced; a message that is only to be traced is delivered to nobody",
    },
    Difference {
        case: "streams/a_call_of_the_api_is_told_in_an_advisory",
        failure: "in vain",
        reason: "there is nobody else whose calls one would have to watch",
    },
    Difference {
        case: "streams/a_consumer_can_be_created",
        failure: "has no consumers",
        reason: "there are no consumers",
    },
    Difference {
        case: "nats-jetstream/a_consumer_hands_out_messages",
        failure: "has no consumers",
        reason: "there are no consumers",
    },
    Difference {
        case: "streams/a_key_value_bucket_of_nats_py_can_be_created",
        failure: "has no TTLs of single messages",
        reason: "every message of a stream lives equally long; a bucket made without `allow_msg_ttl` works",
    },
    Difference {
        case: "streams/a_mirror_can_be_created",
        failure: "has no mirrors",
        reason: "there are no mirrors",
    },
    Difference {
        case: "streams/a_work_queue_can_be_created",
        failure: "no retention but limits",
        reason: "without consumers nothing would ever leave a work queue",
    },
    Difference {
        case: "streams/calls_that_do_not_exist_are_not_answered",
        failure: "503",
        reason: "whoever asks should not have to wait for a deadline",
    },
];

/// The entry for `client/case`.
pub(crate) fn of(case: &str) -> Option<&'static Difference> {
    DIFFERENCES.iter().find(|difference| difference.case == case)
}
