//! What was most likely meant by a name that nobody knows.

/// The known name that was most likely meant, if any is near.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    const NEAR: f64 = 0.66;
    // Damerau-Levenshtein recognises swapped letters, Jaro-Winkler names that were cut short.
    let similarity = |candidate: &str| {
        strsim::normalized_damerau_levenshtein(name, candidate)
            .max(strsim::jaro_winkler(name, candidate))
    };
    known
        .iter()
        .map(|candidate| (similarity(candidate), *candidate))
        .filter(|(similarity, _)| *similarity >= NEAR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}
