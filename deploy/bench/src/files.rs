//! The limit of open files: raises it as far as the system allows, and checks it before the first connection.

use anyhow::{Context as _, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files that a process needs besides its connections.
const OTHERS: u64 = 64;

/// Raises the soft limit of this process to the hard limit; processes that it starts inherit that. Returns
/// the limit, or `None` if there is no limit.
///
/// # Errors
/// Fails if the system refuses.
pub(crate) fn raise() -> anyhow::Result<Option<u64>> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .context("the limit of open files can't be raised")?;
    Ok(maximum)
}

/// Checks that the limit suffices for the client processes, the publishing connections, and a server of the
/// tool.
///
/// # Errors
/// Fails if the limit is too low; the text says what to do.
pub(crate) fn check(
    limit: Option<u64>,
    sessions: u64,
    processes: u64,
    connections: u64,
    spawn: bool,
) -> anyhow::Result<()> {
    let Some(limit) = limit else { return Ok(()) };
    let client = sessions.div_ceil(processes) + OTHERS;
    ensure!(
        client <= limit,
        "a client process needs {client} open files, and the hard limit is {limit}: use at least --processes {}, or raise \
         the limit (as root: ulimit -Hn {client})",
        sessions.div_ceil(limit.saturating_sub(OTHERS).max(1))
    );
    let publisher = connections + OTHERS;
    ensure!(
        publisher <= limit,
        "--connections {connections} needs {publisher} open files, and the hard limit is {limit}: use fewer, or raise the \
         limit (as root: ulimit -Hn {publisher})"
    );
    // A server in one process also holds the publishing connections and connections of its own.
    let server = sessions + connections + 2 * OTHERS;
    ensure!(
        !spawn || server <= limit,
        "the server that is started needs {server} open files, and the hard limit is {limit}: use fewer --sessions, or \
         raise the limit (as root: ulimit -Hn {server})"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_low_a_limit_says_what_to_do() {
        let checked = |sessions, processes, connections, spawn| {
            check(Some(1_024), sessions, processes, connections, spawn).map_err(|error| error.to_string())
        };
        assert_eq!(checked(900, 1, 10, false), Ok(()));
        let error = checked(2_000, 1, 10, false).unwrap_err();
        assert!(error.contains("--processes 3") && error.contains("ulimit -Hn 2064"), "{error}");
        assert_eq!(checked(2_000, 3, 10, false), Ok(()), "what it says helps");
        assert!(checked(2_000, 3, 10, true).unwrap_err().contains("fewer --sessions"));
        assert!(checked(10, 1, 1_000, false).unwrap_err().contains("--connections 1000"));
        assert!(check(None, u64::MAX / 2, 1, 1, true).is_ok());
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let limit = raise().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, limit);
    }
}
