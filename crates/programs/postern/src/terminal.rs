//! The local terminal: raw mode during a remote terminal session, restored afterwards.

use postern_wire::TerminalSize;
use rustix::termios::{OptionalActions, Termios};

/// Puts stdin into raw mode until dropped.
#[derive(Debug)]
pub(crate) struct Raw(Termios);

impl Raw {
    /// `None` if stdin is not a terminal.
    pub(crate) fn enter() -> Option<Self> {
        let stdin = rustix::stdio::stdin();
        let before = rustix::termios::tcgetattr(stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(stdin, OptionalActions::Drain, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.0);
    }
}

/// Whether stdin is a terminal.
pub(crate) fn is_terminal() -> bool {
    rustix::termios::isatty(rustix::stdio::stdin())
}

/// The width of stdout's terminal in columns; `None` if stdout is not a terminal.
pub(crate) fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// The size of the local terminal.
pub(crate) fn size() -> TerminalSize {
    let ask = |fd| rustix::termios::tcgetwinsize(fd).ok().filter(|size| size.ws_col > 0);
    match ask(rustix::stdio::stdout()).or_else(|| ask(rustix::stdio::stdin())) {
        Some(size) => TerminalSize { rows: size.ws_row, columns: size.ws_col },
        None => TerminalSize { rows: 24, columns: 80 },
    }
}
