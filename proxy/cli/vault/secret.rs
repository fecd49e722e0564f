//! Secrets that are typed or piped in: never an argument, never shown.

use std::io::{BufRead as _, IsTerminal as _, Read as _, stdin};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
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
    let mut now = before.clone();
    now.local_modes.remove(LocalModes::ECHO);
    if tcsetattr(stdin(), OptionalActions::Flush, &now).is_err() {
        return Echo(None);
    }
    Echo(Some(before))
}
