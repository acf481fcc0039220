//! The rules of a configuration, with nats-server's texts for those that are broken.

use super::{Compression, Discard, Retention, SERVER_KEYS, StreamConfig};
use crate::handshake::{API_LEVEL, PROTOCOL_VERSION};
use crate::jetstream::error::ApiError;
use crate::jetstream::republish::Transform;
use crate::subject;

/// The duplicate window if a configuration names none, in nanoseconds.
const DEFAULT_WINDOW: i64 = 120_000_000_000;
/// The shortest age and duplicate window, in nanoseconds.
const SHORTEST: i64 = 100_000_000;
const LONGEST_NAME: usize = 255;
const LONGEST_DESCRIPTION: usize = 4 << 10;
const LARGEST_METADATA: usize = 128 << 10;
const API: &str = "$JS.API.>";
const SYSTEM: &str = "$SYS.>";

type Checked<T = ()> = Result<T, ApiError>;

impl StreamConfig {
    /// Checks the configuration of a request and fills in defaults.
    pub(crate) fn check(mut self) -> Checked<Self> {
        self.check_name()?;
        self.fill_in()?;
        self.refuse_what_is_not_here()?;
        self.check_times()?;
        self.check_policies()?;
        self.check_subjects()?;
        self.check_republish()?;
        self.stamp();
        Ok(self)
    }

    /// Checks a change of the configuration `old`. `self` passed [`StreamConfig::check`].
    pub(crate) fn check_update_of(&self, old: &Self) -> Checked {
        let rules = [
            (self.storage == old.storage, "change storage type"),
            (!old.sealed || self.sealed, "unseal a sealed stream"),
            (!old.deny_delete || self.deny_delete, "cancel deny message deletes"),
            (!old.deny_purge || self.deny_purge, "cancel deny purge"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, what)) => {
                Err(ApiError::invalid_config(format!("stream configuration update can not {what}")))
            }
            None => Ok(()),
        }
    }

    fn check_name(&self) -> Checked {
        if self.name.contains(['/', '\\']) {
            return Err(ApiError::path_separators());
        }
        if self.name.is_empty() || self.name.contains(['.', '*', '>', ' ', '\t', '\r', '\n', '\0']) {
            return Err(ApiError::invalid_config(
                "stream name is required and can not contain '.', '*', '>', '\\', '/'",
            ));
        }
        if self.name.len() > LONGEST_NAME {
            return Err(ApiError::invalid_config("stream name is too long, maximum allowed is 255"));
        }
        if self.description.len() > LONGEST_DESCRIPTION {
            return Err(ApiError::invalid_config("stream description is too long, maximum allowed is 4096"));
        }
        let own = self.metadata.iter().filter(|(key, _)| !key.starts_with(SERVER_KEYS));
        if own.map(|(key, value)| key.len() + value.len()).sum::<usize>() > LARGEST_METADATA {
            return Err(ApiError::invalid_config("stream metadata exceeds maximum size of 131072 bytes"));
        }
        Ok(())
    }

    fn fill_in(&mut self) -> Checked {
        if self.num_replicas < 0 {
            return Err(ApiError::negative_replicas());
        }
        for limit in
            [&mut self.max_consumers, &mut self.max_msgs, &mut self.max_bytes, &mut self.max_msgs_per_subject]
        {
            if *limit <= 0 {
                *limit = -1;
            }
        }
        if self.max_msg_size <= 0 {
            self.max_msg_size = -1;
        }
        self.num_replicas = self.num_replicas.max(1);
        if self.num_replicas > 5 {
            return Err(ApiError::invalid_config("maximum replicas is 5"));
        }
        if self.num_replicas > 1 {
            return Err(ApiError::replicas());
        }
        if self.duplicate_window == 0 {
            self.duplicate_window =
                if self.max_age > 0 { self.max_age.min(DEFAULT_WINDOW) } else { DEFAULT_WINDOW };
        }
        if self.subjects.is_empty() {
            self.subjects.push(self.name.clone());
        }
        if let Some(republish) = &mut self.republish
            && republish.src.is_empty()
        {
            ">".clone_into(&mut republish.src);
        }
        Ok(())
    }

    /// Refuses settings of nats-server that this bus does not have: a setting without effect would be worse.
    fn refuse_what_is_not_here(&mut self) -> Checked {
        if self.sources.as_array().is_some_and(Vec::is_empty) {
            self.sources = serde_json::Value::Null;
        }
        if self.persist_mode == "default" {
            self.persist_mode.clear();
        }
        let asked = [
            (!self.mirror.is_null(), "mirrors"),
            (!self.sources.is_null(), "sources"),
            (self.retention != Retention::Limits, "consumers, so no retention but limits"),
            (self.compression != Compression::None, "compression"),
            (!self.subject_transform.is_null(), "subject transforms"),
            (self.allow_msg_ttl || self.subject_delete_marker_ttl != 0, "TTLs of single messages"),
            (self.allow_msg_counter, "message counters"),
            (self.allow_atomic || self.allow_batched, "batch publishing"),
            (self.allow_msg_schedules, "message schedules"),
            (!self.persist_mode.is_empty(), "persist modes"),
        ];
        if let Some((_, what)) = asked.iter().find(|(asked, _)| *asked) {
            return Err(ApiError::invalid_config(format!(
                "the embedded bus has no {what}; a NATS server has"
            )));
        }
        if self.mirror_direct {
            return Err(ApiError::invalid_config("stream has no mirror but does have mirror direct"));
        }
        Ok(())
    }

    fn check_times(&self) -> Checked {
        let rules = [
            (self.max_age >= 0, "max age can not be negative"),
            (self.max_age == 0 || self.max_age >= SHORTEST, "max age needs to be >= 100ms"),
            (self.duplicate_window >= 0, "duplicates window can not be negative"),
            (
                self.max_age == 0 || self.duplicate_window <= self.max_age,
                "duplicates window can not be larger then max age",
            ),
            (self.duplicate_window >= SHORTEST, "duplicates window needs to be >= 100ms"),
        ];
        first_broken(&rules)
    }

    fn check_policies(&self) -> Checked {
        let per_subject = self.discard_new_per_subject;
        let rules = [
            (!(self.deny_purge && self.allow_rollup_hdrs), "roll-ups require the purge permission"),
            (
                !per_subject || self.discard == Discard::New,
                "discard new per subject requires discard new policy to be set",
            ),
            (
                !per_subject || self.max_msgs_per_subject > 0,
                "discard new per subject requires max msgs per subject > 0",
            ),
        ];
        first_broken(&rules)
    }

    fn check_subjects(&self) -> Checked {
        for (index, one) in self.subjects.iter().enumerate() {
            let bytes = one.as_bytes();
            if !subject::is_valid_pattern(bytes) || bytes.iter().any(u8::is_ascii_whitespace) {
                return Err(ApiError::invalid_config("invalid subject"));
            }
            if let Some(other) =
                self.subjects[index + 1..].iter().find(|other| subject::collide(bytes, other.as_bytes()))
            {
                return Err(ApiError::invalid_config(format!("subject {one:?} overlaps with {other:?}")));
            }
            if one == ">" {
                self.needs_no_ack("capturing all subjects requires no-ack to be true")?;
            }
            if subject::collide(bytes, API.as_bytes()) {
                return Err(ApiError::invalid_config(
                    "subjects that overlap with jetstream api require no-ack to be true",
                ));
            }
            if subject::collide(bytes, SYSTEM.as_bytes()) {
                self.needs_no_ack("subjects that overlap with system api require no-ack to be true")?;
            }
        }
        Ok(())
    }

    fn needs_no_ack(&self, why: &str) -> Checked {
        if self.no_ack { Ok(()) } else { Err(ApiError::invalid_config(why)) }
    }

    fn check_republish(&self) -> Checked {
        // Without a destination nothing is republished, as in nats-server.
        let Some(republish) = self.republish.as_ref().filter(|republish| !republish.dest.is_empty()) else {
            return Ok(());
        };
        if self.subjects.iter().any(|one| subject::collide(one.as_bytes(), republish.dest.as_bytes())) {
            return Err(ApiError::invalid_config(
                "stream configuration for republish destination forms a cycle",
            ));
        }
        match Transform::new(&republish.src, &republish.dest) {
            Some(_) => Ok(()),
            None => Err(ApiError::invalid_config(format!(
                "stream configuration for republish with transform from '{}' to '{}' not valid",
                republish.src, republish.dest
            ))),
        }
    }

    /// Adds the server's level and version to the metadata, as nats-server does.
    fn stamp(&mut self) {
        for (key, value) in [
            ("level", API_LEVEL.to_string()),
            ("req.level", "0".to_owned()),
            ("ver", PROTOCOL_VERSION.to_owned()),
        ] {
            self.metadata.insert(format!("{SERVER_KEYS}{key}"), value);
        }
    }
}

fn first_broken(rules: &[(bool, &str)]) -> Checked {
    match rules.iter().find(|(holds, _)| !holds) {
        Some((_, rule)) => Err(ApiError::invalid_config(*rule)),
        None => Ok(()),
    }
}
