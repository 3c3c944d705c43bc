//! The name a person probably meant. Never changes what was written: it only makes the hint.

/// "did you mean `memory`?" if one of `valid` is near to `written`, else the list of them, else
/// nothing if there are none.
pub(crate) fn hint<'a>(written: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let valid: Vec<_> = valid.into_iter().collect();
    match nearest(written, valid.iter().copied()) {
        Some(near) => Some(format!("did you mean `{near}`?")),
        None if valid.is_empty() => None,
        None => Some(format!("known here: {}", list(&valid))),
    }
}

/// The one of `valid` that is fewest edits away, if that is few for the length of the name.
pub(crate) fn nearest<'a>(written: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (written.chars().count() / 3).max(1);
    let near = valid.into_iter().map(|name| (distance(written, name), name)).min_by_key(|(edits, _)| *edits);
    near.filter(|(edits, _)| *edits <= allowed).map(|(_, name)| name)
}

/// "`a`, `b`"
pub(super) fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// How many letters to insert, delete or replace, ignoring case (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_edits_make_a_name_near() {
        let valid = ["memory", "deadline", "workers"];
        for (written, expected) in [
            ("memroy", Some("memory")),
            ("Memory", Some("memory")),
            ("worker", Some("workers")),
            ("dead-line", Some("deadline")),
            ("fuel", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, valid), expected, "{written}");
        }
    }
}
