//! The limit of open files: raised as far as the system lets, and checked before the first connection.

use anyhow::{Context as _, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a process needs besides its connections.
const OTHERS: u64 = 64;

/// Raises the soft limit of this process, and of those it starts, to the hard one. Returns the limit; none: there is
/// no limit.
///
/// # Errors
/// The system refuses.
pub(crate) fn raise() -> anyhow::Result<Option<u64>> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .context("the limit of open files can't be raised")?;
    Ok(maximum)
}

/// Checks that client processes, and a server that the tool starts, can hold their sessions.
///
/// # Errors
/// They can't; says what to do.
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
    // The server in one process also holds the connections of publishers and its own.
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
        let fault = |sessions, processes, connections, spawn| {
            check(Some(1_024), sessions, processes, connections, spawn).map_err(|error| error.to_string())
        };
        assert_eq!(fault(900, 1, 10, false), Ok(()));
        let error = fault(2_000, 1, 10, false).unwrap_err();
        assert!(error.contains("--processes 3") && error.contains("ulimit -Hn 2064"), "{error}");
        assert_eq!(fault(2_000, 3, 10, false), Ok(()), "what it says helps");
        assert!(fault(2_000, 3, 10, true).unwrap_err().contains("fewer --sessions"));
        assert!(fault(10, 1, 1_000, false).unwrap_err().contains("--connections 1000"));
        assert!(check(None, u64::MAX / 2, 1, 1, true).is_ok());
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let limit = raise().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, limit);
    }
}
