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

/// What stands before an item that only tests have.
const TEST_ONLY: &str = "#[cfg(test)]";

/// The code of a Rust file, as [`code_of`] has it, without the items that only tests have. What follows such an item
/// stays.
pub fn without_tests(text: &str) -> String {
    let code = code_of(text);
    let mut kept = String::with_capacity(code.len());
    let mut rest = code.as_str();
    while let Some((before, item)) = rest.split_once(TEST_ONLY) {
        kept.push_str(before);
        rest = behind_item(item);
    }
    kept.push_str(rest);
    kept
}

/// What follows the item that `code` begins with, further attributes of it included. It ends with a semicolon, a block
/// or a comma, or with what it stands in. In doubt too little is taken for it, so that the rest is looked at.
fn behind_item(code: &str) -> &str {
    let (mut depth, mut angles) = (0_usize, 0_usize);
    for (at, c) in code.char_indices() {
        let behind = &code[at + c.len_utf8()..];
        // A list of imports, or a value that goes on.
        let goes_on = || behind.trim_start().starts_with([';', '.', '?']);
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => return &code[at..],
            '}' if depth == 1 && !goes_on() => return behind,
            ')' | ']' | '}' => depth -= 1,
            ';' if depth == 0 => return behind,
            ',' if depth == 0 && angles == 0 => return behind,
            '<' if depth == 0 => angles += 1,
            '>' if depth == 0 => angles = angles.saturating_sub(1),
            _ => {}
        }
    }
    ""
}

pub fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}
