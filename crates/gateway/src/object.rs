//! One call's JSON object, read character by character: the function's name as soon as it is there, the arguments as they
//! come.

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// The function, one of those that may be called.
    Name(String),
    /// More of the arguments' JSON.
    Arguments(String),
    /// The object is complete.
    End,
    /// It calls nothing that is there.
    Wrong,
}

/// Where in the object the reader is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reader {
    /// All that was read.
    taken: String,
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// At depth 1: the key whose value is being read.
    key: Option<String>,
    /// At depth 1: the string or number being read.
    token: String,
    name: Option<String>,
    /// Arguments that came before the name.
    early: String,
    done: bool,
}

impl Reader {
    /// All that was read.
    pub(crate) fn taken(&self) -> &str {
        &self.taken
    }

    /// Whether the function is known.
    pub(crate) fn named(&self) -> bool {
        self.name.is_some()
    }

    /// Reads up to the object's end. Gives how many bytes were read, and what was found.
    pub(crate) fn push(&mut self, text: &str, names: &[String]) -> (usize, Vec<Part>) {
        let mut parts = vec![];
        let mut arguments = String::new();
        for (at, c) in text.char_indices() {
            self.taken.push(c);
            let in_value = self.key.is_some() && (self.depth > 1 || self.in_string || !matches!(c, ',' | '}'));
            let is_arguments = matches!(self.key.as_deref(), Some("arguments" | "parameters"));
            if in_value
                && is_arguments
                && !(arguments.is_empty() && self.early.is_empty() && !self.started() && c.is_whitespace())
            {
                arguments.push(c);
            }
            self.read(c);
            if let Some(name) = self.complete_name(c) {
                if !names.contains(&name) {
                    parts.push(Part::Wrong);
                    return (at + c.len_utf8(), parts);
                }
                parts.push(Part::Name(name.clone()));
                self.name = Some(name);
            }
            if self.done {
                self.tell(&mut parts, &mut arguments);
                parts.push(if self.named() { Part::End } else { Part::Wrong });
                return (at + c.len_utf8(), parts);
            }
        }
        self.tell(&mut parts, &mut arguments);
        (text.len(), parts)
    }

    /// Whether arguments have begun.
    fn started(&self) -> bool {
        self.depth > 1 || self.in_string || !self.token.is_empty()
    }

    fn tell(&mut self, parts: &mut Vec<Part>, arguments: &mut String) {
        self.early.push_str(arguments);
        arguments.clear();
        if self.named() && !self.early.is_empty() {
            parts.push(Part::Arguments(std::mem::take(&mut self.early)));
        }
    }

    /// One character of JSON. What is not JSON is read as if it were: a grammar or the client judges it.
    fn read(&mut self, c: char) {
        let top = self.depth == 1;
        if self.in_string {
            if top {
                self.token.push(c);
            }
            match c {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match c {
            '"' => {
                self.in_string = true;
                if top {
                    self.token = "\"".to_owned();
                }
            }
            '{' | '[' => self.depth += 1,
            '}' | ']' => {
                self.depth = self.depth.saturating_sub(1);
                self.done = self.depth == 0;
                if self.depth == 1 {
                    self.key = None;
                }
            }
            ':' if top && self.key.is_none() => self.key = string(&std::mem::take(&mut self.token)),
            ',' if top => {
                self.key = None;
                self.token.clear();
            }
            _ => {}
        }
    }

    /// The name, at the character that completes it.
    fn complete_name(&mut self, c: char) -> Option<String> {
        let here = self.depth == 1 && c == '"' && !self.in_string && self.key.as_deref() == Some("name");
        if here && self.name.is_none() { string(&self.token) } else { None }
    }
}

fn string(token: &str) -> Option<String> {
    serde_json::from_str(token).ok()
}
