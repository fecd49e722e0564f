//! Backtests of a trading rule over many parameters: every combination, or a genetic algorithm; and
//! walk-forward validation of what they find.
//!
//! ```
//! use sluice_calc::search::{Genetic, Rank, Space, Task, Terms, Trials, find};
//! use sluice_calc::{Bars, Cpu, Workspace};
//!
//! let close: Vec<f64> = (0..400).map(|bar| 100.0 + (f64::from(bar) / 9.0).sin()).collect();
//! let rule = find("sma_crossover").unwrap();
//! let space = Space::new(rule, &[("fast", &[3.0, 5.0, 8.0]), ("slow", &[10.0, 20.0, 30.0])])?;
//! let terms = Terms { short: false, cost: 0.001, periods_per_year: 252.0 };
//! let task = Task::new(&space, Bars::from_close(&close), terms, Rank::Sharpe, 2)?;
//! let mut watch = |_tried: u64, _best: &[_]| true;
//! let work = || Workspace::new(Cpu::proven().unwrap());
//! let best = task.grid(work(), 0..space.size(), 0..400, &mut watch)?;
//! assert_eq!(best.found().len(), 2);
//!
//! let how = Genetic { population: 8, generations: 4, ..Genetic::default() };
//! let (same, _) = Trials::new(&task, work()).genetic(&how, 0..400, &mut watch)?;
//! assert_eq!(same.found()[0], best.found()[0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backtest;
mod columns;
mod condition;
mod figures;
mod genetic;
mod named;
mod rng;
mod rule;
mod rules;
mod space;
mod task;
mod walk;

pub use backtest::Terms;
pub use figures::{Best, Figures, Found, Rank};
pub use genetic::Genetic;
pub use named::{NAMED, NOT_EXPRESSED};
pub use rule::{Gene, Rule};
pub use rules::{RULES, find};
pub use space::{SearchError, Space, SpaceError, VALUES_MAX};
pub use task::{Task, Trials, Watch};
pub use walk::{Method, Verdict, Walk, Walked, Window};
