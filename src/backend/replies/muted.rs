//! Changes of parameters that are held back until the last of them is known.

/// Parameters that are not told one by one, since they will change again.
#[derive(Debug)]
pub(super) struct Muted {
    pub before: Vec<(String, String)>,
    pub now: Vec<(String, String)>,
}

impl Muted {
    /// The client knew this before, for its own settings were on their way.
    pub fn was(&mut self, name: &str, value: &str) {
        self.before.retain(|(known, _)| known != name);
        self.before.push((name.to_owned(), value.to_owned()));
    }

    /// What each parameter that has changed after all has become.
    pub fn changes(&self) -> impl Iterator<Item = &(String, String)> {
        self.now.iter().enumerate().filter_map(|(at, pair)| {
            let is_last = self.now.iter().skip(at + 1).all(|later| later.0 != pair.0);
            (is_last && !self.before.contains(pair)).then_some(pair)
        })
    }
}
