//! Returns gathered by month.

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// A month of the Gregorian calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    /// Year, which may be negative.
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
}

impl Month {
    /// The month of a time in Unix milliseconds: any time there is.
    #[must_use]
    pub fn of(time_ms: i64) -> Self {
        // Years that begin in March, in eras of 400 years: the leap day comes last.
        let days = time_ms.div_euclid(DAY_MS) + 719_468;
        let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year + year / 4 - year / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = year + era * 400 + i64::from(month <= 2);
        Self { year, month: u8::try_from(month).unwrap_or(12) }
    }
}

impl std::fmt::Display for Month {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_of_known_times() {
        let named = |ms: i64| Month::of(ms).to_string();
        assert_eq!(named(0), "1970-01");
        assert_eq!(named(-1), "1969-12");
        assert_eq!(named(951_782_400_000), "2000-02"); // 29 February
        assert_eq!(named(951_868_800_000), "2000-03");
        assert_eq!(named(1_364_774_399_999), "2013-03");
        assert_eq!(named(1_364_774_400_000), "2013-04");
        assert!(Month::of(i64::MAX) > Month::of(i64::MIN));
    }

    #[test]
    fn every_month_follows_the_one_before() {
        let mut last = Month::of(0);
        for day in 1..146_097 {
            let month = Month::of(day * DAY_MS);
            let next = if last.month == 12 {
                Month { year: last.year + 1, month: 1 }
            } else {
                Month { month: last.month + 1, ..last }
            };
            assert!(month == last || month == next);
            last = month;
        }
        assert_eq!(last, Month { year: 2369, month: 12 });
    }
}
