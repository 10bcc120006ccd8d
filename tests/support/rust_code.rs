//! A very small part of Rust's grammar: enough to find the paths in a source, for `architecture.rs`.
//!
//! What would surprise: it reads tokens, not lines, so comments and texts never count.

#[derive(Debug, Clone)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

/// Words, `::` and single signs. Comments are left out; texts and characters become `""`, lifetimes `'`.
pub fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let (mut tokens, mut index, mut line) = (Vec::new(), 0, 1);
    while index < chars.len() {
        let begin = index;
        let word = |from: usize| {
            chars[from..]
                .iter()
                .take_while(|c| is_word_char(**c))
                .count()
        };
        let kind = match (at(index), at(index + 1)) {
            ('/', '/') => {
                index += chars[index..].iter().take_while(|c| **c != '\n').count();
                None
            }
            ('/', '*') => {
                index = end_of_comment(&chars, index);
                None
            }
            ('"', _) => {
                index = end_of_text(&chars, index);
                Some("\"\"".to_owned())
            }
            ('\'', next) if next == '\\' || at(index + 2) == '\'' => {
                index = end_of_char(&chars, index);
                Some("\"\"".to_owned())
            }
            (':', ':') => {
                index += 2;
                Some("::".to_owned())
            }
            (c, _) if c.is_whitespace() => {
                index += 1;
                None
            }
            (c, _) if is_word_char(c) => {
                let length = word(index);
                let name: String = chars[index..index + length].iter().collect();
                index += length;
                let hashes = chars[index..].iter().take_while(|c| **c == '#').count();
                if ["r", "br", "cr"].contains(&name.as_str()) && at(index + hashes) == '"' {
                    index = end_of_raw(&chars, index + hashes + 1, hashes);
                    Some("\"\"".to_owned())
                } else {
                    Some(name)
                }
            }
            (c, _) => {
                index += 1;
                Some(c.to_string())
            }
        };
        tokens.extend(kind.map(|text| Token { text, line }));
        line += chars[begin..index.min(chars.len())]
            .iter()
            .filter(|c| **c == '\n')
            .count();
    }
    tokens
}

fn end_of_comment(chars: &[char], begin: usize) -> usize {
    let (mut depth, mut index) = (0, begin);
    while index + 1 < chars.len() {
        match (chars[index], chars[index + 1]) {
            ('/', '*') => (depth, index) = (depth + 1, index + 2),
            ('*', '/') => (depth, index) = (depth - 1, index + 2),
            _ => index += 1,
        }
        if depth == 0 {
            return index;
        }
    }
    chars.len()
}

fn end_of_text(chars: &[char], begin: usize) -> usize {
    let mut index = begin + 1;
    while index < chars.len() && chars[index] != '"' {
        index += if chars[index] == '\\' { 2 } else { 1 };
    }
    (index + 1).min(chars.len())
}

fn end_of_char(chars: &[char], begin: usize) -> usize {
    let first = begin + if chars[begin + 1] == '\\' { 3 } else { 2 };
    chars[first..]
        .iter()
        .position(|c| *c == '\'')
        .map_or(chars.len(), |more| first + more + 1)
}

fn end_of_raw(chars: &[char], begin: usize, hashes: usize) -> usize {
    let is_end = |index: &usize| {
        chars[*index] == '"'
            && chars[index + 1..]
                .iter()
                .take(hashes)
                .filter(|c| **c == '#')
                .count()
                == hashes
    };
    (begin..chars.len())
        .find(is_end)
        .map_or(chars.len(), |index| index + 1 + hashes)
}

/// Leaves out the item that follows each `#[cfg(test)]`: up to its `;`, or its block.
pub fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let pattern = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut index) = (Vec::new(), 0);
    while index < tokens.len() {
        let is_cfg_test = tokens.len() >= index + pattern.len()
            && pattern
                .iter()
                .zip(&tokens[index..])
                .all(|(sign, token)| token.text == *sign);
        if !is_cfg_test {
            kept.push(tokens[index].clone());
            index += 1;
            continue;
        }
        let mut depth = 0;
        index += pattern.len();
        while index < tokens.len() {
            let sign = tokens[index].text.as_str();
            index += 1;
            match sign {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 && [";", "}"].contains(&sign) {
                break;
            }
        }
    }
    kept
}

/// `a::b::c` somewhere in the code.
#[derive(Debug)]
pub struct CodePath {
    pub segments: Vec<String>,
    pub line: usize,
    /// Part of a `use`.
    pub used: bool,
}

impl CodePath {
    pub fn begins_with(&self, prefix: &str) -> bool {
        let prefix: Vec<_> = prefix.split("::").collect();
        self.segments.len() >= prefix.len()
            && prefix.iter().zip(&self.segments).all(|(a, b)| a == b)
    }

    /// A word alone is a package only in a `use`; elsewhere it may be any variable.
    pub fn is_package(&self) -> bool {
        self.used || self.segments.len() > 1
    }
}

pub fn paths(tokens: &[Token]) -> Vec<CodePath> {
    let (mut paths, mut index, mut used) = (Vec::new(), 0, false);
    while index < tokens.len() {
        match tokens[index].text.as_str() {
            "use" => used = true,
            ";" => used = false,
            // A field or a method is no path.
            "." => index += 1,
            text if is_word(text) => {
                index = read_path(tokens, index, &[], used, &mut paths);
                continue;
            }
            _ => {}
        }
        index += 1;
    }
    paths
}

/// Reads one path, with all branches of a `{…}` at its end; gives back where the reading goes on.
fn read_path(
    tokens: &[Token],
    begin: usize,
    prefix: &[String],
    used: bool,
    paths: &mut Vec<CodePath>,
) -> usize {
    let text = |index: usize| tokens.get(index).map_or("", |token| token.text.as_str());
    let (mut segments, mut index) = (prefix.to_vec(), begin);
    while is_word(text(index)) || text(index) == "*" {
        segments.push(text(index).to_owned());
        index += 1;
        if text(index) != "::" {
            break;
        }
        index += 1;
        if text(index) == "{" {
            index += 1;
            while index < tokens.len() && text(index) != "}" {
                let is_branch = is_word(text(index)) || text(index) == "*";
                index = if is_branch {
                    read_path(tokens, index, &segments, used, paths)
                } else {
                    index + 1
                };
                if text(index) == "as" {
                    index += 2;
                }
            }
            return index + 1;
        }
    }
    paths.push(CodePath {
        segments,
        line: tokens[begin].line,
        used,
    });
    index
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}
