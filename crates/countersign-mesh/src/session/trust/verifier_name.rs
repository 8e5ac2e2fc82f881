//! The name that a verifier goes by in lists of verifiers. A label only.

/// The longest name that Countersign takes.
const MAX_NAME: usize = 128;

/// The name of this host: of the pod, in a container. Empty when there is none.
pub(crate) fn of_host() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = kernel.or_else(|| std::env::var("HOSTNAME").ok());
    printable(name.unwrap_or_default().trim())
}

/// As much of a name as Countersign takes.
pub(crate) fn printable(name: &str) -> String {
    name.chars().filter(|c| matches!(c, ' '..='~')).take(MAX_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_printable_ascii_and_not_too_long() {
        assert_eq!(printable("pod-7 (eu)"), "pod-7 (eu)");
        assert_eq!(printable("p\u{e4}d\n7\u{7f}"), "pd7");
        assert_eq!(printable(&"x".repeat(200)), "x".repeat(128));
    }
}
