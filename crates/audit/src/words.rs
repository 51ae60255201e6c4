//! Where stop strings appear in an answer's text.

use model::Text;
use receipt::Settings;

/// After how many tokens of the answer the first stop string is complete, with `text` that decodes as the engine's.
pub(crate) fn stopped_at(output: &[u32], settings: &Settings, text: &Text) -> Option<usize> {
    let stops: Vec<&str> = settings.stop_strings.iter().map(String::as_str).filter(|stop| !stop.is_empty()).collect();
    let longest = stops.iter().map(|stop| stop.len()).max().unwrap_or(0);
    let (mut decoder, mut said) = (text.decoder(false), String::new());
    for (number, token) in output.iter().enumerate() {
        if settings.stop_tokens.contains(token) {
            return None;
        }
        // A token that cannot be decoded adds no text, as in the engine.
        let piece = decoder.push(text, *token).unwrap_or_default();
        let mut from = said.len().saturating_sub(longest);
        while !said.is_char_boundary(from) {
            from -= 1;
        }
        said.push_str(&piece);
        if stops.iter().any(|stop| said[from..].contains(stop)) {
            return Some(number + 1);
        }
    }
    None
}
