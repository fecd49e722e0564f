//! The search against a backtest written a second time, bar by bar and without lanes.

mod named;

use crate::series::{Columns, Dice, Kind, columns, real};
use sluice_calc::risk::{Settings, summary};
use sluice_calc::search::{
    Figures, Genetic, Method, NAMED, NOT_EXPRESSED, RULES, Rank, SearchError, Space, SpaceError, Task, Terms,
    Trials, Verdict, Walk, find,
};
use sluice_calc::{Bars, Compat, Cpu, Indicator, Value, Workspace};

const TERMS: Terms = Terms { short: false, cost: 0.001, periods_per_year: 252.0 };

fn work() -> Workspace {
    Workspace::new(Cpu::proven().unwrap())
}

/// An output of an indicator.
fn line(columns: &Columns, name: &str, given: &[(&str, f64)], output: &str) -> Vec<f64> {
    let given: Vec<_> = given.iter().map(|(name, value)| (*name, Value::Number(*value))).collect();
    let indicator = Indicator::parse(name, Compat::TaLib, &given).unwrap();
    let at = indicator.outputs().iter().position(|name| *name == output).unwrap();
    crate::series::compute(&indicator, &columns.bars()).swap_remove(at)
}

/// Whether a rule enters and leaves at a bar, of its lines.
type Test = Box<dyn Fn(&[Vec<f64>], usize) -> (bool, bool)>;

/// Where a rule enters and leaves, written from its words.
fn decisions(rule: &str, columns: &Columns, gene: &dyn Fn(&str) -> f64) -> Vec<(bool, bool)> {
    let close = &columns.close;
    let one = |name: &str, gene_name: &str| line(columns, name, &[("period", gene(gene_name))], "value");
    let mut lines = Vec::new();
    let test: Test = match rule {
        "sma_crossover" | "ema_crossover" => {
            let name = &rule[..3];
            lines.extend([one(name, "fast"), one(name, "slow")]);
            Box::new(|lines, bar| (rises(lines, 0, 1, bar), rises(lines, 1, 0, bar)))
        }
        "rsi" => {
            lines.push(one("rsi", "period"));
            let (low, high) = (gene("oversold"), gene("overbought"));
            Box::new(move |lines, bar| (lines[0][bar] < low, lines[0][bar] > high))
        }
        "breakout" => {
            let side = |output: &str, gene_name: &str| {
                let mut side = line(columns, "donchian", &[("period", gene(gene_name))], output);
                side.rotate_right(1);
                side[0] = f64::NAN;
                side
            };
            lines.extend([close.clone(), side("upper", "period"), side("lower", "exit_period")]);
            Box::new(|lines, bar| (lines[0][bar] > lines[1][bar], lines[0][bar] < lines[2][bar]))
        }
        "trix_signal" => {
            let trix = one("trix", "period");
            let begin = trix.iter().take_while(|value| value.is_nan()).count();
            let mut signal = vec![f64::NAN; begin.min(trix.len())];
            let ema =
                Indicator::parse("ema", Compat::TaLib, &[("period", Value::Number(gene("signal")))]).unwrap();
            signal.extend(crate::series::compute(&ema, &Bars::from_close(&trix[begin..])).swap_remove(0));
            lines.extend([trix, signal]);
            Box::new(|lines, bar| {
                let falls = lines[0][bar] < 0.0 && lines[0][bar - 1] >= 0.0;
                (rises(lines, 0, 1, bar), rises(lines, 1, 0, bar) || falls)
            })
        }
        other => return named::decisions(other, columns, gene),
    };
    let begin =
        (0..close.len()).find(|bar| lines.iter().all(|line| !line[*bar].is_nan())).unwrap_or(close.len());
    let crossing = rule != "rsi" && rule != "breakout";
    let first = begin + usize::from(crossing);
    (0..close.len()).map(|bar| if bar < first { (false, false) } else { test(&lines, bar) }).collect()
}

fn rises(lines: &[Vec<f64>], a: usize, b: usize, bar: usize) -> bool {
    lines[a][bar] > lines[b][bar] && lines[a][bar - 1] <= lines[b][bar - 1]
}

/// Total return, worst fall, Sharpe ratio, trades, wins.
fn naive(close: &[f64], decided: &[(bool, bool)], terms: Terms) -> (f64, f64, Option<f64>, u32, u32) {
    let (plain, earned) = naive_run(close, decided, terms);
    let (total, worst, trades, wins) = plain;
    let count = earned.len() as f64;
    let mean = earned.iter().sum::<f64>() / count;
    let spread = earned.iter().map(|one| (one - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let sharpe = (trades > 0 && spread > 0.0).then(|| mean / spread.sqrt() * terms.periods_per_year.sqrt());
    (total, worst, sharpe, trades, wins)
}

/// Total return, worst fall, trades, wins; and what each bar earned.
fn naive_run(close: &[f64], decided: &[(bool, bool)], terms: Terms) -> ((f64, f64, u32, u32), Vec<f64>) {
    let (mut position, mut equity, mut peak, mut worst) = (0.0_f64, 1.0_f64, 1.0_f64, 0.0_f64);
    let (mut earned, mut trades, mut wins, mut entry) = (Vec::new(), 0, 0, 1.0);
    for bar in 0..close.len() - 1 {
        let (enter, exit) = decided[bar];
        let wanted = match (terms.short, enter, exit) {
            (false, _, true) if position > 0.0 => 0.0,
            (false, true, _) if position == 0.0 => 1.0,
            (true, true, false) => 1.0,
            (true, false, true) => -1.0,
            _ => position,
        };
        let before = equity;
        if wanted != position {
            if position != 0.0 {
                equity *= 1.0 - terms.cost;
                wins += u32::from(equity > entry);
            }
            entry = equity;
            if wanted != 0.0 {
                equity *= 1.0 - terms.cost;
                trades += 1;
            }
            position = wanted;
        }
        equity = (equity * (1.0 + position * (close[bar + 1] / close[bar] - 1.0))).max(0.0);
        earned.push(equity / before - 1.0);
        peak = peak.max(equity);
        worst = worst.min(equity / peak - 1.0);
    }
    if position != 0.0 {
        wins += u32::from(equity > entry);
    }
    ((equity - 1.0, worst, trades, wins), earned)
}

#[track_caller]
fn near(what: &str, found: f64, wanted: f64) {
    assert!((found - wanted).abs() <= 1e-9 * (1.0 + wanted.abs()), "{what}: {found}, not {wanted}");
}

#[test]
fn every_combination_comes_to_what_a_plain_backtest_does() {
    let markets = [columns(Kind::Walk, 7, 700), columns(Kind::Ticks, 8, 300), real("GOOG")];
    for name in ["sma_crossover", "ema_crossover", "rsi", "breakout", "trix_signal"] {
        let space = Space::new(find(name).unwrap(), &[]).unwrap();
        for (market, short) in markets.iter().flat_map(|market| [(market, false), (market, true)]) {
            let terms = Terms { short, ..TERMS };
            let rows = market.close.len();
            let task = Task::new(&space, market.bars(), terms, Rank::TotalReturn, usize::MAX).unwrap();
            let found = task.grid(work(), 0..space.size(), 0..rows, &mut |_, _| true).unwrap();
            assert!(!found.found().is_empty());
            // Every third is enough for a second text that is slow.
            for one in found.found().iter().step_by(3) {
                let genes: Vec<_> = space.named(one.number).collect();
                let gene = |wanted: &str| genes.iter().find(|(name, _)| *name == wanted).unwrap().1;
                let what = format!("{name} {genes:?} short {short}");
                let decided = decisions(name, market, &gene);
                let (total, worst, sharpe, trades, wins) = naive(&market.close, &decided, terms);
                let figures: Figures = one.figures;
                assert_eq!(figures.trades, trades, "{what}");
                near(&what, figures.total_return, total);
                near(&what, figures.max_drawdown, worst);
                near(&what, figures.win_rate.unwrap_or(0.0) * f64::from(trades), f64::from(wins));
                if let (Ok(found), Some(wanted)) = (figures.sharpe, sharpe) {
                    assert!(
                        (found - wanted).abs() < 1e-6 * (1.0 + wanted.abs()),
                        "{what}: {found}, not {wanted}"
                    );
                }
            }
        }
    }
}

#[test]
fn rules_of_the_discovery_platform_do_what_their_second_text_says() {
    let markets = [columns(Kind::Walk, 7, 400), real("GOOG")];
    let mut traded = 0;
    for rule in NAMED {
        let all = Space::new(rule, &[]).unwrap();
        for (market, short) in markets.iter().flat_map(|market| [(market, false), (market, true)]) {
            let rows = market.close.len().min(600);
            let close = &market.close[..rows];
            let terms = Terms { short, ..TERMS };
            let task = Task::new(&all, market.bars(), terms, Rank::TotalReturn, 3).unwrap();
            let how = Genetic { population: 8, generations: 1, ..Genetic::default() };
            let (best, _) = Trials::new(&task, work()).genetic(&how, 0..rows, &mut |_, _| true).unwrap();
            for one in best.found() {
                let genes: Vec<_> = all.named(one.number).collect();
                let gene = |wanted: &str| genes.iter().find(|(name, _)| *name == wanted).unwrap().1;
                let what = format!("{} {genes:?} short {short}", rule.name);
                let decided = decisions(rule.name, market, &gene);
                let (total, worst, _, trades, _) = naive(close, &decided[..rows], terms);
                assert_eq!(one.figures.trades, trades, "{what}");
                near(&what, one.figures.total_return, total);
                near(&what, one.figures.max_drawdown, worst);
                traded += usize::from(trades > 0);
            }
        }
    }
    assert!(traded > 6 * NAMED.len(), "{traded}");
}

#[test]
fn names_of_the_discovery_platform_are_all_known() {
    assert_eq!((NAMED.len(), NOT_EXPRESSED.len()), (28, 32));
    let mut names: Vec<&str> =
        NAMED.iter().map(|rule| rule.name).chain(NOT_EXPRESSED.iter().copied()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 60);
    assert!(NAMED.iter().all(|rule| std::ptr::eq(find(rule.name).unwrap(), *rule)));
}

#[test]
fn how_numbers_are_divided_decides_nothing() {
    let market = columns(Kind::Walk, 3, 500);
    let values: Vec<f64> = (2..40).map(f64::from).collect();
    let space = Space::new(find("sma_crossover").unwrap(), &[("fast", &values), ("slow", &values)]).unwrap();
    let task = Task::new(&space, market.bars(), TERMS, Rank::Sharpe, 7).unwrap();
    let mut tried = 0;
    let whole = task
        .grid(work(), 0..space.size(), 0..500, &mut |count, _| {
            tried += count;
            true
        })
        .unwrap();
    assert_eq!(tried, space.size());
    let mut merged = sluice_calc::search::Best::new(Rank::Sharpe, 7);
    let mut dice = Dice::new(5);
    let mut from = 0;
    while from < space.size() {
        let to = (from + 1 + (dice.roll() * 200.0) as u64).min(space.size());
        let part = task.grid(work(), from..to, 0..500, &mut |_, _| true).unwrap();
        part.found().iter().for_each(|found| merged.add(*found));
        from = to;
    }
    assert_eq!(merged.found(), whole.found());
}

#[test]
fn what_comes_later_decides_nothing_before() {
    let market = columns(Kind::Walk, 11, 600);
    for rule in RULES {
        let space = Space::new(rule, &[]).unwrap();
        let task = Task::new(&space, market.bars(), TERMS, Rank::TotalReturn, usize::MAX).unwrap();
        let early = task.grid(work(), 0..space.size(), 0..300, &mut |_, _| true).unwrap();
        assert!(early.found().iter().any(|found| found.figures.trades > 0), "{} never trades", rule.name);
        let head = market.bars().head(300);
        let task = Task::new(&space, head, TERMS, Rank::TotalReturn, usize::MAX).unwrap();
        let alone = task.grid(work(), 0..space.size(), 0..300, &mut |_, _| true).unwrap();
        assert_eq!(early.found(), alone.found(), "{}", rule.name);
    }
}

#[test]
fn the_best_of_many_is_deflated_by_all_that_were_tried() {
    let market = real("GOOG");
    let close = &market.close;
    let space = Space::new(find("sma_crossover").unwrap(), &[]).unwrap();
    for short in [false, true] {
        let terms = Terms { short, ..TERMS };
        let task = Task::new(&space, market.bars(), terms, Rank::Sharpe, usize::MAX).unwrap();
        let mut trials = Trials::new(&task, work());
        let best = trials.search(&Method::Grid, 0..close.len(), &mut |_, _| true).unwrap();
        assert_eq!(best.tried(), best.found().len() as u64);
        let ratios: Vec<f64> = best.found().iter().filter_map(|found| found.figures.sharpe.ok()).collect();
        let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
        let spread =
            ratios.iter().map(|ratio| (ratio - mean).powi(2)).sum::<f64>() / (ratios.len() - 1) as f64;
        near("variance", best.sharpe_variance(), spread);
        for found in [&best.found()[0], &best.found()[9]] {
            let genes: Vec<_> = space.named(found.number).collect();
            let decided = decisions("sma_crossover", &market, &|name| {
                genes.iter().find(|(known, _)| *known == name).unwrap().1
            });
            let (_, earned) = naive_run(close, &decided, terms);
            let mut scratch = vec![0.0; earned.len()];
            let sample = summary(&earned, &Settings::default(), &mut scratch).unwrap().sample.unwrap();
            let wanted = sample.deflated(best.tried(), spread / terms.periods_per_year).unwrap();
            let deflated = trials.deflated(found.number, 0..close.len(), &best).unwrap().unwrap();
            near("dsr", deflated, wanted);
            // Of many tried the best is less sure than alone.
            assert!(deflated < sample.probability_above(0.0).unwrap());
        }
    }
}

#[test]
fn a_seed_finds_what_it_found_before_and_the_best_of_a_small_space() {
    let market = real("GOOG");
    let space = Space::new(find("ema_crossover").unwrap(), &[]).unwrap();
    let rows = market.close.len();
    let task = Task::new(&space, market.bars(), TERMS, Rank::Sharpe, 3).unwrap();
    let whole = task.grid(work(), 0..space.size(), 0..rows, &mut |_, _| true).unwrap();
    let search = |seed: u64| {
        let how = Genetic { seed, ..Genetic::default() };
        Trials::new(&task, work()).genetic(&how, 0..rows, &mut |_, _| true).unwrap()
    };
    let (first, tried) = search(1);
    let (again, retried) = search(1);
    assert_eq!((first.found(), tried), (again.found(), retried));
    assert_eq!(first.found()[0], whole.found()[0]);
    assert!(tried <= space.size());
}

#[test]
fn a_walk_chooses_on_what_was_and_is_judged_on_what_came() {
    let market = real("GOOG");
    let space = Space::new(find("sma_crossover").unwrap(), &[]).unwrap();
    let task = Task::new(&space, market.bars(), TERMS, Rank::Sharpe, 1).unwrap();
    let walk = Walk { train: 800, test: 200, step: 200, least: 3 };
    let walked = Trials::new(&task, work()).walk(&walk, &Method::Grid, &mut |_, _| true).unwrap();
    assert_eq!(walked.windows.len(), (market.close.len() - 1_000) / 200 + 1);
    for window in &walked.windows {
        assert_eq!((window.train.end, window.test.len()), (window.test.start, 200));
        let best = task.grid(work(), 0..space.size(), window.train.clone(), &mut |_, _| true).unwrap();
        assert_eq!(best.found()[0], window.chosen);
        let out = Trials::new(&task, work()).one(window.chosen.number, window.test.clone()).unwrap();
        assert_eq!(out, window.out);
    }
    let few = Walk { least: 100, ..walk };
    let few = Trials::new(&task, work()).walk(&few, &Method::Grid, &mut |_, _| true).unwrap();
    assert_eq!(few.verdict, Verdict::InsufficientData);
    assert!(Walk { train: usize::MAX, ..walk }.windows(1_000).next().is_none());
}

#[test]
fn who_watches_can_end_it() {
    let market = columns(Kind::Walk, 3, 300);
    let space = Space::new(find("rsi").unwrap(), &[]).unwrap();
    let task = Task::new(&space, market.bars(), TERMS, Rank::Score, 1).unwrap();
    let mut told = 0;
    let ended = task.grid(work(), 0..space.size(), 0..300, &mut |tried, best| {
        if tried == 0 {
            return true;
        }
        told += 1;
        assert_eq!(best.len(), 1);
        told < 3
    });
    assert_eq!((ended.unwrap_err(), told), (SearchError::Cancelled, 3));
    // Also before the first line is drawn.
    let ended = task.grid(work(), 0..space.size(), 0..300, &mut |tried, _| tried > 0);
    assert_eq!(ended.unwrap_err(), SearchError::Cancelled);
    let ended = Trials::new(&task, work()).genetic(&Genetic::default(), 0..300, &mut |_, _| false);
    assert_eq!(ended.unwrap_err(), SearchError::Cancelled);
}

#[test]
fn who_watches_is_asked_while_combinations_are_passed_over() {
    let market = columns(Kind::Walk, 3, 20);
    let windows: Vec<f64> = (1..=4_096).rev().map(f64::from).collect();
    let space = Space::new(find("sma_crossover").unwrap(), &[("fast", &windows), ("slow", &[2.0, 1.0])]);
    let space = space.unwrap();
    let task = Task::new(&space, market.bars(), TERMS, Rank::Score, 1).unwrap();
    let mut most = 0;
    let best = task.grid(work(), 0..space.size(), 0..20, &mut |tried, _| {
        most = most.max(tried);
        true
    });
    assert_eq!((best.unwrap().found().len(), most), (1, 4_096));
}

#[test]
fn a_rule_names_the_columns_that_it_reads() {
    use sluice_calc::Column::{High, Low};
    let columns = |name: &str| find(name).unwrap().columns();
    assert_eq!(columns("sma_crossover"), []);
    assert_eq!(columns("trix_signal"), []);
    assert_eq!(columns("breakout"), [High, Low]);
    assert_eq!(columns("trend_following"), [High, Low]);
}

#[test]
fn what_cannot_be_searched_is_refused() {
    let rule = find("sma_crossover").unwrap();
    let refused = |given: &[(&str, &[f64])]| Space::new(rule, given).unwrap_err();
    assert!(matches!(refused(&[("fats", &[1.0])]), SpaceError::UnknownGene { .. }));
    assert!(matches!(refused(&[("fast", &[])]), SpaceError::Count { found: 0, .. }));
    assert!(matches!(refused(&[("fast", &[2.5])]), SpaceError::Value { whole: true, .. }));
    assert!(matches!(refused(&[("fast", &[f64::NAN])]), SpaceError::Value { .. }));
    assert!(matches!(refused(&[("fast", &[0.0])]), SpaceError::Value { .. }));
    assert_eq!(refused(&[("fast", &[9.0]), ("slow", &[9.0])]), SpaceError::Empty);
    assert!(find("nothing").is_none());
    let space = Space::new(rule, &[]).unwrap();
    let close = [1.0, 0.0, 1.0];
    let task = |close| Task::new(&space, Bars::from_close(close), TERMS, Rank::Sharpe, 1);
    assert_eq!(task(&close).unwrap_err(), SearchError::NotPositive { row: 1 });
    assert_eq!(task(&close[..1]).unwrap_err(), SearchError::Range);
    let close = [1.0, 2.0, 3.0];
    let fine = task(&close).unwrap();
    for bars in [0..1, 0..4, 2..2] {
        assert_eq!(fine.grid(work(), 0..8, bars, &mut |_, _| true).unwrap_err(), SearchError::Range);
    }
    let breakout = Space::new(find("breakout").unwrap(), &[]).unwrap();
    let task = Task::new(&breakout, Bars::from_close(&close), TERMS, Rank::Sharpe, 1).unwrap();
    let lacks = task.grid(work(), 0..8, 0..3, &mut |_, _| true).unwrap_err();
    assert!(matches!(lacks, SearchError::MissingColumn(_)), "{lacks}");
}
