//! What is common to answers: where a change stands in the log, and pages of lists.

use serde::Serialize;

use super::output::Show;

/// A resource after a mutation: its own fields and these.
#[derive(Debug, Serialize)]
pub struct Changed<T> {
    /// The resource.
    #[serde(flatten)]
    pub resource: T,
    /// Log index of the entry that made the change.
    pub applied_index: u64,
    /// Raft term of that entry.
    pub term: u64,
    /// The idempotency key that the request was sent with.
    pub request_id: String,
}

impl<T: Show> Show for Changed<T> {
    fn text(&self) -> String {
        self.resource.text()
    }
}

/// Most items in one page, which is what the service gives at most.
const PAGE: usize = 1_000;

/// How many items of a list are wanted.
#[derive(Debug, Clone, clap::Args)]
pub struct Limit {
    /// Most items to list
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// The pages of a list, until there are enough items.
#[derive(Debug)]
pub struct Pages<T> {
    items: Vec<T>,
    limit: usize,
    token: String,
}

impl<T> Pages<T> {
    /// Nothing read yet.
    pub fn new(limit: &Limit) -> Self {
        Self { items: Vec::new(), limit: usize::try_from(limit.limit).unwrap_or(usize::MAX), token: String::new() }
    }

    /// Size and token of the next page.
    pub fn next(&self) -> (i32, String) {
        let size = (self.limit - self.items.len()).clamp(1, PAGE);
        (i32::try_from(size).unwrap_or(i32::MAX), self.token.clone())
    }

    /// Takes a page; true when no further one is wanted.
    pub fn take(&mut self, page: Vec<T>, next_page_token: String) -> bool {
        self.items.extend(page);
        self.token = next_page_token;
        self.token.is_empty() || self.items.len() >= self.limit
    }

    /// The items, and whether there are more.
    pub fn finish(mut self) -> (Vec<T>, bool) {
        let more = !self.token.is_empty() || self.items.len() > self.limit;
        self.items.truncate(self.limit);
        (self.items, more)
    }
}

/// What stands below a list that was cut.
pub const MORE: &str = "there are more: raise --limit";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_up_to_the_limit() {
        let mut pages = Pages::new(&Limit { limit: 1_500 });
        assert_eq!(pages.next(), (1_000, String::new()));
        assert!(!pages.take(vec![0; 1_000], "a".to_owned()));
        assert_eq!(pages.next(), (500, "a".to_owned()));
        assert!(pages.take(vec![0; 500], "b".to_owned()));
        let (items, more) = pages.finish();
        assert_eq!((items.len(), more), (1_500, true));

        let mut pages = Pages::new(&Limit { limit: 5 });
        assert!(pages.take(vec![0; 3], String::new()));
        assert!(!pages.finish().1);
    }
}
