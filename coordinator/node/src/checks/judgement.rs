//! From single looks to a verdict. Pure: no clock and no IO.

/// What has to be seen, and how often in a row, before a check changes its mind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hysteresis {
    /// Good looks in a row after which a failing check passes.
    rise: u32,
    /// Bad looks in a row after which a passing check fails.
    fall: u32,
    /// `None` before the first look, which decides by itself.
    passes: Option<bool>,
    /// Looks in a row that contradict `passes`.
    against: u32,
}

impl Hysteresis {
    /// Nothing was seen yet. A count of 0 counts as 1.
    pub fn new(rise: u32, fall: u32) -> Self {
        Self { rise: rise.max(1), fall: fall.max(1), passes: None, against: 0 }
    }

    /// One more look; whether the check passes now.
    pub fn note(&mut self, good: bool) -> bool {
        let passes = *self.passes.get_or_insert(good);
        if good == passes {
            self.against = 0;
            return passes;
        }
        self.against += 1;
        if self.against < if passes { self.fall } else { self.rise } {
            return passes;
        }
        self.against = 0;
        self.passes = Some(good);
        good
    }

    /// Of a failing check whose last look was good: the good looks in a row so far, and how many it takes.
    pub fn rising(&self) -> Option<(u32, u32)> {
        (self.passes == Some(false) && self.against > 0).then_some((self.against, self.rise))
    }
}

/// How several checks for one purpose make one answer. Without any check it is yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregation {
    /// Every check must pass.
    All,
    /// One that passes is enough.
    Any,
    /// More than half must pass.
    Quorum,
}

impl Aggregation {
    /// The words of the configuration.
    pub const WORDS: [(&str, Self); 3] = [("all", Self::All), ("any", Self::Any), ("quorum", Self::Quorum)];

    /// The answer.
    pub fn of(self, checks: impl Iterator<Item = bool>) -> bool {
        let (mut passing, mut total) = (0_usize, 0_usize);
        for passes in checks {
            total += 1;
            passing += usize::from(passes);
        }
        match self {
            Self::All => passing == total,
            Self::Any => passing > 0 || total == 0,
            Self::Quorum => passing * 2 > total || total == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen(rise: u32, fall: u32, looks: &str) -> String {
        let mut hysteresis = Hysteresis::new(rise, fall);
        looks.chars().map(|look| if hysteresis.note(look == '+') { '+' } else { '-' }).collect()
    }

    #[test]
    fn a_check_changes_its_mind_after_as_many_looks_as_it_was_told() {
        assert_eq!(seen(2, 3, "+--+---++-++"), "++++++--++++");
        assert_eq!(seen(2, 3, "+--+---+-++"), "++++++----+");
        assert_eq!(seen(1, 1, "+-+--+"), "+-+--+");
    }

    #[test]
    fn the_first_look_decides_by_itself() {
        assert_eq!(seen(5, 5, "-"), "-");
        assert_eq!(seen(5, 5, "+"), "+");
        assert_eq!(seen(0, 0, "-+"), "-+", "a count of 0 is one of 1");
    }

    #[test]
    fn a_failing_check_says_how_many_good_looks_it_has_had() {
        let mut hysteresis = Hysteresis::new(3, 2);
        let told = [false, true, true, false, true, true, true, true, false].map(|good| {
            hysteresis.note(good);
            hysteresis.rising()
        });
        let (one, two) = (Some((1, 3)), Some((2, 3)));
        assert_eq!(told, [None, one, two, None, one, two, None, None, None]);
    }

    #[test]
    fn one_of_three_fails_all_and_a_quorum_of_them_is_two() {
        let of = |aggregation: Aggregation, checks: &[bool]| aggregation.of(checks.iter().copied());
        for (checks, all, any, quorum) in [
            (&[][..], true, true, true),
            (&[true], true, true, true),
            (&[false], false, false, false),
            (&[true, false], false, true, false),
            (&[true, true, false], false, true, true),
            (&[true, false, false], false, true, false),
            (&[true, true, false, false], false, true, false),
        ] {
            let answers = [Aggregation::All, Aggregation::Any, Aggregation::Quorum].map(|one| of(one, checks));
            assert_eq!(answers, [all, any, quorum], "{checks:?}");
        }
    }

    proptest! {
        /// The mind is changed only by a whole run of looks that say so, and then at once.
        #[test]
        fn it_changes_after_a_whole_run_and_never_without(
            rise in 1_u32..6, fall in 1_u32..6, looks in prop::collection::vec(any::<bool>(), 1..60)
        ) {
            let mut hysteresis = Hysteresis::new(rise, fall);
            let mut before = None;
            let mut run = 0_u32;
            for (at, good) in looks.iter().copied().enumerate() {
                run = if at > 0 && looks[at - 1] == good { run + 1 } else { 1 };
                let now = hysteresis.note(good);
                let needed = if good { rise } else { fall };
                match before {
                    None => prop_assert_eq!(now, good),
                    // A run that began before the last change counts from that change on, and agrees with it.
                    Some(before) if before != now => prop_assert!(now == good && run >= needed),
                    Some(_) => prop_assert!(now == good || run < needed),
                }
                before = Some(now);
            }
        }

        /// What passes for all passes for a quorum, and what passes for a quorum for any; a check that recovers never
        /// makes an answer worse.
        #[test]
        fn aggregations_are_ordered_and_monotone(checks in prop::collection::vec(any::<bool>(), 0..12), at in 0_usize..12) {
            let of = |aggregation: Aggregation, checks: &[bool]| aggregation.of(checks.iter().copied());
            prop_assert!(!of(Aggregation::All, &checks) || of(Aggregation::Quorum, &checks));
            prop_assert!(!of(Aggregation::Quorum, &checks) || of(Aggregation::Any, &checks));
            let mut better = checks.clone();
            if let Some(one) = better.get_mut(at) {
                *one = true;
            }
            for (_, aggregation) in Aggregation::WORDS {
                prop_assert!(!of(aggregation, &checks) || of(aggregation, &better));
            }
        }
    }
}
