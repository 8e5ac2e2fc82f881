//! How many files the process may have open: each connection takes a file descriptor.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for what is not a connection: the store, the log, the keys, and some to spare.
const OTHERS: u64 = 64;

/// Raises the soft limit of open files as far as `wanted` connections need, and returns how many of
/// them fit.
///
/// The soft limit is often 1024, for old programs whose `select` cannot count further; the hard limit
/// is far above it. The server must not reach the limit: without a free descriptor it cannot accept the
/// connection that is one too many in order to close it, and that client would wait.
pub fn connections(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let needed = u64::try_from(wanted).unwrap_or(u64::MAX).saturating_add(OTHERS);
    let raised = raised(limit.current, limit.maximum, needed);
    let current = if raised == limit.current {
        raised
    } else {
        let done = setrlimit(Resource::Nofile, Rlimit { current: raised, ..limit });
        if done.is_ok() { raised } else { limit.current }
    };
    let room = room(wanted, current);
    if room < wanted {
        tracing::warn!(
            connections = room,
            limits_connections = wanted,
            open_files = current,
            "the limit of open files leaves room for fewer connections than limits.connections says; raise it \
             (ulimit -n, LimitNOFILE)"
        );
    }
    room
}

/// The soft limit to set: what is needed, at most the hard limit, never less than now. `None` means no
/// limit.
fn raised(soft: Option<u64>, hard: Option<u64>, needed: u64) -> Option<u64> {
    soft.map(|soft| soft.max(hard.map_or(needed, |hard| hard.min(needed))))
}

/// How many connections fit, but at least one.
fn room(wanted: usize, limit: Option<u64>) -> usize {
    let Some(limit) = limit else { return wanted };
    let room = usize::try_from(limit.saturating_sub(OTHERS)).unwrap_or(usize::MAX);
    wanted.min(room.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_raised_as_far_as_needed_and_never_lowered() {
        assert_eq!(raised(Some(1024), Some(1 << 20), 8256), Some(8256));
        assert_eq!(raised(Some(1024), Some(4096), 8256), Some(4096));
        assert_eq!(raised(Some(1024), None, 8256), Some(8256));
        assert_eq!(raised(Some(65536), Some(1 << 20), 8256), Some(65536));
        assert_eq!(raised(None, None, 8256), None);
    }

    #[test]
    fn connections_fit_with_files_to_spare() {
        assert_eq!(room(8192, None), 8192);
        assert_eq!(room(8192, Some(8256)), 8192);
        assert_eq!(room(8192, Some(8255)), 8191);
        assert_eq!(room(8192, Some(1024)), 960);
        assert_eq!(room(8192, Some(10)), 1);
        assert_eq!(room(100, Some(1024)), 100);
    }
}
