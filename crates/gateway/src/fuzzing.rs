//! What fuzz targets reach: readers of foreign bytes that are private otherwise.

use crate::calls::Calls;
use crate::chat::ChatRequest;
use crate::completions::CompletionRequest;
use crate::dialect::Dialect;

/// Reads a request's body for either endpoint, and the same bytes as answers that may call tools.
pub fn body(bytes: &[u8]) {
    if let Ok(request) = ChatRequest::read(bytes, 0) {
        for dialect in [Dialect::Plain, Dialect::Hermes] {
            let _ = dialect.conversation(request.messages.clone(), request.tools.as_ref());
        }
    }
    let _ = CompletionRequest::read(bytes, 0);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for dialect in [Dialect::Hermes, Dialect::Mistral, Dialect::Llama, Dialect::Plain] {
        let mut calls = Calls::new(dialect, vec!["f".to_owned()], true);
        for piece in text.split_inclusive(' ') {
            let _ = calls.push(piece);
        }
        let _ = calls.finish();
    }
}
