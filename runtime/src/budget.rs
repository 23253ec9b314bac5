//! The RAM that a session may take, and the refusal where its plan needs more.

use crate::error::{Error, Result};
use crate::plan::{Plan, Size};

/// An upper limit on what a session may take from memory, mapped weights included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    ram_bytes: u64,
}

impl Budget {
    /// No limit of ours.
    pub const UNLIMITED: Budget = Budget { ram_bytes: u64::MAX };

    /// At most `ram_bytes`.
    pub const fn bytes(ram_bytes: u64) -> Budget {
        Budget { ram_bytes }
    }

    /// The limit in bytes; `u64::MAX` where there is none.
    pub fn ram_bytes(self) -> u64 {
        self.ram_bytes
    }

    /// Whether `plan` stays within the limit.
    pub fn allows(self, plan: &Plan) -> bool {
        plan.peak_bytes() <= self.ram_bytes
    }

    /// Refuses the first of `plans` if it needs too much. `plans` are the same model for ever
    /// shorter sequences; the longest that would fit is the way out that the refusal names.
    ///
    /// # Errors
    /// [`Error::OverBudget`] with the numbers.
    pub fn admit(self, plans: &[Plan]) -> Result<()> {
        match plans.first() {
            Some(plan) if !self.allows(plan) => Err(Error::OverBudget(Box::new(OverBudget {
                plan: *plan,
                budget_bytes: self.ram_bytes,
                fitting: plans.iter().find(|shorter| self.allows(shorter)).copied(),
            }))),
            _ => Ok(()),
        }
    }
}

/// Parses `64MiB`, `512 KiB`, `1GiB`, `2000000` or `2MB` (units of 1000) into bytes.
///
/// # Errors
/// The sentence to print, where `text` is none of these or does not fit 64 bits.
impl std::str::FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Budget, String> {
        let wrong =
            || format!("`{text}` is no size; write a number and a unit: 64MiB, 2GiB, 500KiB");
        let trimmed = text.trim();
        let digits =
            trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let factor: f64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "kib" | "k" => 1024.0,
            "mib" | "m" => 1024.0 * 1024.0,
            "gib" | "g" => 1024.0 * 1024.0 * 1024.0,
            "kb" => 1e3,
            "mb" => 1e6,
            "gb" => 1e9,
            _ => return Err(wrong()),
        };
        let bytes = number.parse::<f64>().map_err(|_| wrong())? * factor;
        // Up to 2^53 every whole number of bytes is exact in an f64.
        if !(1.0..=9.0e15).contains(&bytes) {
            return Err(wrong());
        }
        Ok(Budget::bytes(bytes as u64))
    }
}

/// Why a model was not opened: what it needs, what it may have, and what would fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverBudget {
    /// What it needs as asked for.
    pub plan: Plan,
    /// What it may have.
    pub budget_bytes: u64,
    /// The same model with the longest sequence that fits, if any does.
    pub fitting: Option<Plan>,
}

impl std::fmt::Display for OverBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "needs {}, the budget is {}; ", self.plan, Size(self.budget_bytes))?;
        match self.fitting {
            Some(Plan { sequence: Some(sequence), .. }) => {
                let needs = Size(self.fitting.unwrap_or_default().peak_bytes());
                write!(f, "`--seq {sequence}` needs {needs}")
            }
            _ => write!(
                f,
                "give it at least {} with `--ram`, or pack a smaller student (fewer layers, \
                 `--precision int8`, a shorter `--seq`)",
                Size(self.plan.peak_bytes().next_multiple_of(1024 * 1024))
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("1.5 GiB", 3 << 29),
            ("2000", 2000),
            ("12k", 12 << 10),
            ("3MB", 3_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Budget::bytes(bytes)), "{text}");
        }
        for text in ["", "MiB", "-3MiB", "0", "12 parsecs", "1e99GiB"] {
            assert!(text.parse::<Budget>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_refusal_names_the_longest_sequence_that_fits() {
        let plan = |sequence: usize| Plan {
            weights_bytes: 1000,
            activations_bytes: sequence as u64 * 10,
            sequence: Some(sequence),
            ..Plan::default()
        };
        let plans = [plan(128), plan(64), plan(32)];
        assert!(Budget::bytes(3000).admit(&plans).is_ok());
        let error = Budget::bytes(1700).admit(&plans).unwrap_err().to_string();
        assert!(error.contains("2.2 KiB") && error.contains("`--seq 64` needs 1.6 KiB"), "{error}");
        let error = Budget::bytes(10).admit(&plans).unwrap_err().to_string();
        assert!(error.contains("at least 1.0 MiB"), "{error}");
    }
}
