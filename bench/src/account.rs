//! What a process tree costs: CPU time and resident memory, read from /proc.
//!
//! CPU time comes from two places. `stat` counts ticks (10 ms on most kernels) and keeps the time of ended
//! threads; `schedstat` counts nanoseconds but forgets a thread when it ends. The finer figure
//! is used unless it fell behind the coarser one by more than the tick can explain.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

/// LIMIT: processes looked at in one tree.
const TREE_PROCESSES_MAX: usize = 256;

/// CPU time of a set of processes since they began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    ticks: u64,
    scheduled_ns: u64,
    /// Context switches, given up and taken away; those of ended threads are forgotten.
    switches: u64,
}

/// Fields of /proc/PID/stat we use.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    ticks: u64,
}

impl CpuTime {
    /// Reads the CPU time of `pids`, every thread included; a process that has ended counts nothing.
    pub(crate) fn of(pids: &[u32]) -> Self {
        let mut time = Self::default();
        for pid in pids {
            let dir = format!("/proc/{pid}");
            time.ticks += read_stat(Path::new(&dir)).map_or(0, |stat| stat.ticks);
            for thread in threads(*pid) {
                let said = |file: &str| std::fs::read_to_string(format!("{dir}/task/{thread}/{file}")).ok();
                time.scheduled_ns += said("schedstat").and_then(|text| scheduled_ns(&text)).unwrap_or(0);
                time.switches += said("status").map_or(0, |text| switches(&text));
            }
        }
        time
    }

    /// Context switches since `earlier`.
    pub(crate) fn switches_since(self, earlier: Self) -> u64 {
        self.switches.saturating_sub(earlier.switches)
    }

    /// CPU time spent since `earlier`, given the kernel's ticks a second.
    pub(crate) fn since(self, earlier: Self, ticks_per_s: u64) -> Duration {
        let tick_ns = 1_000_000_000 / ticks_per_s.max(1);
        let coarse_ns = self.ticks.saturating_sub(earlier.ticks) * tick_ns;
        let fine_ns = self.scheduled_ns.saturating_sub(earlier.scheduled_ns);
        // User and system time are each rounded down at both ends: up to two ticks of doubt.
        let chosen_ns = if fine_ns + 2 * tick_ns < coarse_ns { coarse_ns } else { fine_ns };
        Duration::from_nanos(chosen_ns)
    }
}

/// The kernel's clock ticks a second, as /proc counts them.
pub(crate) fn ticks_per_s() -> u64 {
    rustix::param::clock_ticks_per_second()
}

/// `root` and its descendants, root first.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for pid in numbered(Path::new("/proc")) {
        if let Ok(stat) = read_stat(Path::new(&format!("/proc/{pid}"))) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    descend(root, &children)
}

fn descend(root: u32, children: &HashMap<u32, Vec<u32>>) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() && found.len() < TREE_PROCESSES_MAX {
        for child in children.get(&found[at]).into_iter().flatten() {
            // Pids are reused while we read: a loop must not hold us.
            if !found.contains(child) {
                found.push(*child);
            }
        }
        at += 1;
    }
    found
}

/// Thread ids of a process; empty when it has ended.
pub(crate) fn threads(pid: u32) -> Vec<u32> {
    numbered(Path::new(&format!("/proc/{pid}/task")))
}

/// Resident bytes of `pids` together; pages they share count once in each.
pub(crate) fn resident_bytes(pids: &[u32]) -> u64 {
    let page_bytes = rustix::param::page_size() as u64;
    pids.iter()
        .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/statm")).ok())
        .filter_map(|text| text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
        .map(|pages| pages * page_bytes)
        .sum()
}

/// Ticks since boot in which the machine worked, or wanted to and its host did not let it (steal).
pub(crate) fn machine_busy_ticks() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    busy_ticks(&text).context("/proc/stat has no cpu line")
}

fn busy_ticks(text: &str) -> Option<u64> {
    let fields: Vec<u64> = text
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_ascii_whitespace()
        .map_while(|f| f.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal …
    Some([0, 1, 2, 5, 6, 7].iter().filter_map(|&at| fields.get(at)).sum())
}

/// Ticks spent by `root` and every process below it, with children it has already waited for.
pub(crate) fn family_ticks(root: u32) -> u64 {
    tree(root).iter().filter_map(|pid| family_stat(*pid)).sum()
}

fn family_stat(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = stat_fields(&text)?;
    Some((11..=14).filter_map(|at| fields.get(at)).sum())
}

fn read_stat(dir: &Path) -> anyhow::Result<Stat> {
    let text = std::fs::read_to_string(dir.join("stat"))?;
    parse_stat(&text).with_context(|| format!("unexpected {}/stat", dir.display()))
}

fn parse_stat(text: &str) -> Option<Stat> {
    let fields = stat_fields(text)?;
    let parent = u32::try_from(*fields.get(1)?).ok()?;
    Some(Stat { parent, ticks: fields.get(11)? + fields.get(12)? })
}

/// Fields after the command name, which may itself hold blanks and parentheses: state is 0, ppid 1,
/// utime 11, stime 12, cutime 13, cstime 14. What is no natural number reads as 0.
fn stat_fields(text: &str) -> Option<Vec<u64>> {
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0)).collect())
}

fn scheduled_ns(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Both kinds of context switches in /proc/PID/task/TID/status; none where the kernel does not say.
fn switches(text: &str) -> u64 {
    let counts = text.lines().filter_map(|line| line.split_once("_ctxt_switches:"));
    counts.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum()
}

fn numbered(dir: &Path) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Pins every thread of `pid` to `core` and says how many there were.
pub(crate) fn pin_process(pid: u32, core: usize) -> anyhow::Result<usize> {
    let ids = threads(pid);
    for id in &ids {
        let thread = rustix::process::Pid::from_raw(id.cast_signed()).context("thread id 0")?;
        crate::process::pin_thread(Some(thread), core)?;
    }
    Ok(ids.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_line_with_a_hostile_command_name_is_read() {
        let line = "42 (a) R 9 (x)) S 7 42 42 0 -1 4194304 100 0 0 0 250 50 3 4 20 0 1 0 123 456 789";
        assert_eq!(parse_stat(line), Some(Stat { parent: 7, ticks: 300 }));
        for bad in ["", "42 (a", "42 (a) S", "42 (a) S 7 42"] {
            assert_eq!(parse_stat(bad), None, "{bad}");
        }
    }

    #[test]
    fn tree_holds_descendants_once_and_survives_a_loop() {
        let children = HashMap::from([(1, vec![2, 3]), (3, vec![4]), (4, vec![1]), (9, vec![10])]);
        assert_eq!(descend(1, &children), [1, 2, 3, 4]);
        let wide = HashMap::from([(1, (2..10_000).collect())]);
        assert!(descend(1, &wide).len() >= TREE_PROCESSES_MAX);
        assert_eq!(descend(5, &HashMap::new()), [5]);
    }

    #[test]
    fn finer_clock_wins_unless_it_lost_a_thread() {
        let zero = CpuTime::default();
        let near = CpuTime { ticks: 12, scheduled_ns: 123_456_789, ..zero };
        assert_eq!(near.since(zero, 100), Duration::from_nanos(123_456_789));
        let lost = CpuTime { ticks: 12, scheduled_ns: 40_000_000, ..zero };
        assert_eq!(lost.since(zero, 100), Duration::from_millis(120));
        assert_eq!(zero.since(near, 100), Duration::ZERO);
    }

    #[test]
    fn both_kinds_of_switches_count() {
        let text = "Name:\tx\nvoluntary_ctxt_switches:\t40\nnonvoluntary_ctxt_switches:\t2\n";
        assert_eq!((switches(text), switches("Name:\tx\n")), (42, 0));
        assert!(CpuTime::of(&[std::process::id()]).switches > 0);
    }

    #[test]
    fn busy_work_of_every_thread_and_of_children_is_counted() {
        let own = [std::process::id()];
        let before = CpuTime::of(&own);
        let worker = std::thread::spawn(move || {
            let until = std::time::Instant::now() + Duration::from_secs(5);
            let start = CpuTime::of(&own);
            // Spins until the kernel has charged 20 ms, however loaded the machine is.
            while CpuTime::of(&own).since(start, ticks_per_s()) < Duration::from_millis(20) {
                assert!(std::time::Instant::now() < until, "no CPU time was charged");
            }
            CpuTime::of(&own)
        });
        let after = worker.join().unwrap();
        assert!(after.since(before, ticks_per_s()) >= Duration::from_millis(20));

        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let below = tree(std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(below.contains(&child.id()), "{below:?} lacks {}", child.id());
        assert!(resident_bytes(&own) > 1_000_000);
        assert_eq!(CpuTime::of(&[child.id()]), CpuTime::default());
    }

    #[test]
    fn machine_line_counts_work_and_steal_but_no_waiting() {
        assert_eq!(busy_ticks("cpu  10 1 5 1000 50 2 3 99 0 0\ncpu0 …"), Some(120));
        assert_eq!(busy_ticks("intr 5"), None);
    }
}
