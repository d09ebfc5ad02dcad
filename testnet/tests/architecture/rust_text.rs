//! Reads Rust as text: what is code, and what is a comment or a literal.

/// The code of a Rust file: comments and the contents of literals become blanks, line breaks stay.
pub fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_or_comment_end(&chars, at);
        if end > at {
            code.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            code.push(chars[at]);
            at += 1;
        }
    }
    code
}

/// Where the comment or literal that starts at `at` ends; `at` itself if none does.
pub fn literal_or_comment_end(chars: &[char], at: usize) -> usize {
    let peek = |offset: usize| chars.get(at + offset).copied().unwrap_or('\0');
    let find = |from: usize, wanted: &[char]| {
        chars
            .get(from..)
            .unwrap_or_default()
            .windows(wanted.len())
            .position(|window| window == wanted)
            .map_or(chars.len(), |found| from + found)
    };
    let escaped = |quote: char| {
        let mut end = at + 1;
        while end < chars.len() && chars[end] != quote {
            end += if chars[end] == '\\' { 2 } else { 1 };
        }
        (end + 1).min(chars.len())
    };
    let starts_word = at == 0 || !(chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match (peek(0), peek(1)) {
        ('/', '/') => find(at, &['\n']),
        ('/', '*') => (find(at + 2, &['*', '/']) + 2).min(chars.len()),
        ('"', _) => escaped('"'),
        ('\'', '\\') => escaped('\''),
        ('\'', _) if peek(2) == '\'' => at + 3,
        ('r', '"' | '#') if starts_word => {
            let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
            if peek(1 + hashes) != '"' {
                return at; // a raw identifier
            }
            let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            (find(at + 2 + hashes, &close) + close.len()).min(chars.len())
        }
        _ => at,
    }
}

pub fn before_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

pub fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}
