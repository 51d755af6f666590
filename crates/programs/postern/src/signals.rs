//! Signals from the user, as controls of a run.

use crate::failure::Failure;
use crate::terminal;
use postern_exec::Control;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Completes on SIGINT or SIGTERM; registers the handlers at once.
pub(crate) fn stop() -> Result<impl Future<Output = ()>, Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::denied(&error, None));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Forwards signals to the run: the first Ctrl-C goes to the command, the second ends it. With `resize`, also forwards the
/// window's size.
pub(crate) fn controls(resize: bool) -> std::io::Result<mpsc::Receiver<Control>> {
    let (sender, receiver) = mpsc::channel(16);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // What it does by itself is to end us where we are, and a terminal would stay raw.
    let mut quit = signal(SignalKind::quit())?;
    let mut window = signal(SignalKind::window_change())?;
    tokio::spawn(async move {
        let mut asked = false;
        loop {
            let number = tokio::select! {
                _ = interrupt.recv() => 2,
                _ = terminate.recv() => 15,
                _ = hangup.recv() => 1,
                _ = quit.recv() => 3,
                _ = window.recv(), if resize => 0,
            };
            let control = match number {
                0 => Control::Resize(terminal::size()),
                _ if asked => Control::Kill,
                number => {
                    asked = true;
                    Control::Signal(number)
                }
            };
            if sender.send(control).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}
