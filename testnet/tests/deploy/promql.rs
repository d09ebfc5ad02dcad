//! Which metrics an expression uses, and what it folds them by. Not a parser: promtool has judged the syntax before.

use std::iter::Peekable;
use std::vec::IntoIter;

/// One use of a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    pub name: String,
    /// What stands between its braces.
    pub matchers: String,
    /// The innermost aggregation around it.
    pub fold: Option<Fold>,
}

/// An aggregation, such as `max by (cluster, node)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fold {
    pub operation: String,
    pub labels: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Braces(String),
    Open,
    Close,
}

/// Words that are followed by a list of labels in parentheses.
const LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const KEYWORDS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];
const AGGREGATIONS: [&str; 8] = ["sum", "avg", "count", "count_values", "min", "max", "group", "topk"];

type Tokens = Peekable<IntoIter<Token>>;

pub fn uses(expression: &str) -> Vec<Use> {
    let mut tokens = tokens(expression).into_iter().peekable();
    let mut found = Vec::new();
    // What each open parenthesis belongs to.
    let mut open: Vec<Option<Fold>> = Vec::new();
    let mut next_open = None;
    while let Some(token) = tokens.next() {
        match token {
            Token::Open => open.push(next_open.take()),
            Token::Close => drop(open.pop()),
            Token::Braces(_) => {}
            Token::Word(word) if LISTS.contains(&word.as_str()) => drop(labels(&mut tokens)),
            Token::Word(word) if KEYWORDS.contains(&word.as_str()) => {}
            Token::Word(word) if AGGREGATIONS.contains(&word.as_str()) => {
                let is_by = tokens.next_if_eq(&Token::Word("by".to_owned())).is_some();
                let labels = if is_by { labels(&mut tokens) } else { Vec::new() };
                next_open = Some(Fold { operation: word, labels });
            }
            // A function: what is around it is around its argument too.
            Token::Word(_) if tokens.peek() == Some(&Token::Open) => {}
            Token::Word(word) => found.push(metric(word, &mut tokens, &open)),
        }
    }
    found
}

fn metric(name: String, tokens: &mut Tokens, open: &[Option<Fold>]) -> Use {
    let matchers = match tokens.next_if(|token| matches!(token, Token::Braces(_))) {
        Some(Token::Braces(matchers)) => matchers,
        _ => String::new(),
    };
    Use { name, matchers, fold: open.iter().rev().find_map(Clone::clone) }
}

/// The words of a list in parentheses, if one comes next.
fn labels(tokens: &mut Tokens) -> Vec<String> {
    let mut found = Vec::new();
    if tokens.next_if_eq(&Token::Open).is_some() {
        for token in tokens.by_ref() {
            let Token::Word(word) = token else { break };
            found.push(word);
        }
    }
    found
}

fn tokens(expression: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => quoted(rest),
            // Ranges name no metric.
            '[' => until(rest, ']'),
            '{' => {
                let length = until(rest, '}');
                found.push(Token::Braces(rest[1..length - 1].to_owned()));
                length
            }
            '(' => {
                found.push(Token::Open);
                1
            }
            ')' => {
                found.push(Token::Close);
                1
            }
            _ if is_word(first) => {
                let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                // What begins with a digit is a number or a duration.
                if !first.is_ascii_digit() {
                    found.push(Token::Word(rest[..length].to_owned()));
                }
                length
            }
            _ => first.len_utf8(),
        };
        rest = &rest[length..];
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// The length of a string in quotes.
fn quoted(text: &str) -> usize {
    text[1..].find('"').expect("promtool has seen the end of this string") + 2
}

/// The length up to `end`, which may stand in quotes before.
fn until(text: &str, end: char) -> usize {
    let mut is_quoted = false;
    let at = text.find(|c: char| {
        is_quoted ^= c == '"';
        c == end && !is_quoted
    });
    at.expect("promtool has seen the end of this bracket") + 1
}

#[test]
fn uses_are_found_with_what_is_around_them() {
    let fold = |operation: &str, labels: &[&str]| {
        Some(Fold { operation: operation.to_owned(), labels: labels.iter().map(|label| (*label).to_owned()).collect() })
    };
    let one = |name: &str, matchers: &str, fold| Use { name: name.to_owned(), matchers: matchers.to_owned(), fold };
    assert_eq!(uses("a"), [one("a", "", None)]);
    assert_eq!(
        uses("sum by (x) (max by (x, y) (rate(a_total{b=\"}\", c!~\"d\"}[5m] offset 15m))) > bool 0.5"),
        [one("a_total", "b=\"}\", c!~\"d\"", fold("max", &["x", "y"]))]
    );
    assert_eq!(
        uses("histogram_quantile(0.99, sum(rate(a[$__rate_interval])) by (le)) / on (x) group_left (y) b * 1e3"),
        [one("a", "", fold("sum", &[])), one("b", "", None)]
    );
    assert_eq!(
        uses("count_values by (c) (\"term\", max by (c, n) (a) and on (c) (min by (c) (b) == 1)) > 1 unless c"),
        [one("a", "", fold("max", &["c", "n"])), one("b", "", fold("min", &["c"])), one("c", "", None)]
    );
}
