//! Secrets that are typed or piped in: never an argument, never shown.

use std::io::{BufRead as _, IsTerminal as _, Read as _, stdin};
use std::sync::OnceLock;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use crate::exit::Failure;
use crate::say;

/// LIMIT: bytes of a line.
const LINE_BYTES: u64 = 256;

/// Puts the terminal back as it was.
struct Echo(Option<Termios>);

impl Drop for Echo {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _nothing_more_to_do = tcsetattr(stdin(), OptionalActions::Now, before);
            say::problem("\n");
        }
    }
}

/// The next line of standard input, asked for and not shown where that is a terminal; `None`: there are no more.
pub(super) fn line(prompt: &str) -> Result<Option<Zeroizing<String>>, Failure> {
    let _shown_again = if stdin().is_terminal() {
        say::problem(prompt);
        quiet()
    } else {
        Echo(None)
    };
    let mut text = Zeroizing::new(String::with_capacity(LINE_BYTES as usize));
    loop {
        text.clear();
        let read = stdin().lock().take(LINE_BYTES).read_line(&mut text).map_err(anyhow::Error::from)?;
        if read as u64 == LINE_BYTES {
            return Err(Failure::usage(format!("a line has at most {LINE_BYTES} bytes")));
        }
        if read == 0 {
            return Ok(None);
        }
        let word = text.trim();
        if !word.is_empty() {
            return Ok(Some(Zeroizing::new(word.to_owned())));
        }
        if stdin().is_terminal() {
            return Ok(None);
        }
    }
}

/// A terminal that can do so does not show what is typed.
fn quiet() -> Echo {
    let Ok(before) = tcgetattr(stdin()) else { return Echo(None) };
    guard(&before);
    let mut now = before.clone();
    now.local_modes.remove(LocalModes::ECHO);
    if tcsetattr(stdin(), OptionalActions::Flush, &now).is_err() {
        return Echo(None);
    }
    Echo(Some(before))
}

/// Has a signal that ends the process put the terminal back first. Where that cannot be arranged, secrets are still not
/// shown.
fn guard(before: &Termios) {
    static GUARDED: OnceLock<()> = OnceLock::new();
    GUARDED.get_or_init(|| {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        let kinds =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()];
        // Heard from here on, before anything is hidden.
        let heard = {
            let _entered = runtime.enter();
            kinds.map(|kind| signal(kind).map(|signal| (kind, signal)))
        };
        let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup), Ok(mut quit)] = heard else { return };
        let before = before.clone();
        std::thread::spawn(move || {
            let kind = runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.1.recv() => interrupt.0,
                    _ = terminate.1.recv() => terminate.0,
                    _ = hangup.1.recv() => hangup.0,
                    _ = quit.1.recv() => quit.0,
                }
            });
            let _nothing_more_to_do = tcsetattr(stdin(), OptionalActions::Now, &before);
            say::problem("\n");
            // As a shell has it of a process that a signal ended.
            #[expect(clippy::exit, reason = "the prompt's own thread is held by a read of the terminal")]
            std::process::exit(128 + kind.as_raw_value());
        });
    });
}
