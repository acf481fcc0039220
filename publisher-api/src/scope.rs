//! The scope of a key: the kind of calls that the key permits.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A kind of call. In the configuration: `"publish"`, `"read"`, `"disconnect"`, `"admin"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Sends messages to channels and users.
    Publish,
    /// Asks who is online.
    Read,
    /// Closes the sessions of a user.
    Disconnect,
    /// Everything.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Publish, Self::Read, Self::Disconnect, Self::Admin];

    /// As it is written in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Disconnect => "disconnect",
            Self::Admin => "admin",
        }
    }

    /// Whether a key with this scope may do what needs `needed`.
    pub fn covers(self, needed: Self) -> bool {
        self == Self::Admin || self == needed
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|scope| scope.name() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            format!("{text:?} is no scope; there are: {known}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_covers_everything_and_the_others_only_themselves() {
        for needed in Scope::ALL {
            for held in Scope::ALL {
                assert_eq!(held.covers(needed), held == needed || held == Scope::Admin, "{held} {needed}");
            }
        }
    }

    #[test]
    fn a_scope_is_read_as_it_is_written() {
        for scope in Scope::ALL {
            assert_eq!(scope.to_string().parse(), Ok(scope));
        }
        assert!("Publish".parse::<Scope>().unwrap_err().contains("publish, read, disconnect, admin"));
    }
}
