//! Text that may go to a terminal.

/// The text with everything escaped that moves the cursor, colours it, breaks
/// the line or turns the reading direction: a server's answer must not be able
/// to write to the terminal what it likes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control()
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}
