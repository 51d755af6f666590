//! The OS keychain. On Linux this is the Secret Service on the session bus, as provided by GNOME Keyring,
//! `KeePassXC` and `KWallet`.
//!
//! A credential is the item with the attributes `service=postern` and `username=NAME`:
//! `secret-tool store --label "postern NAME" service postern username NAME`.

use crate::resolve::KeychainAnswer;

/// The `service` attribute of postern's items.
#[cfg(target_os = "linux")]
const SERVICE: &str = "postern";

/// Looks up a credential.
#[cfg(not(target_os = "linux"))]
pub fn look_up(_: &str) -> KeychainAnswer {
    KeychainAnswer::Unavailable("postern supports no keychain on this system".to_owned())
}

/// Looks up a credential. May prompt the user to unlock the keychain, as any program's lookup does.
#[cfg(target_os = "linux")]
pub fn look_up(name: &str) -> KeychainAnswer {
    if !has_session_bus() {
        return KeychainAnswer::Unavailable("no session bus".to_owned());
    }
    // Runs in a thread of its own: the bus library blocks, and the caller may be inside an event loop.
    let wanted = name.to_owned();
    match std::thread::spawn(move || search(&wanted)).join() {
        Ok(Ok(Some(value))) => KeychainAnswer::Found(value),
        Ok(Ok(None)) => KeychainAnswer::NotFound,
        Ok(Err(error)) => KeychainAnswer::Unavailable(error.to_string()),
        Err(_) => KeychainAnswer::Unavailable("the lookup ended unexpectedly".to_owned()),
    }
}

#[cfg(target_os = "linux")]
fn has_session_bus() -> bool {
    std::env::var_os("DBUS_SESSION_BUS_ADDRESS").is_some()
        || std::env::var_os("XDG_RUNTIME_DIR")
            .is_some_and(|dir| std::path::Path::new(&dir).join("bus").exists())
}

#[cfg(target_os = "linux")]
fn search(name: &str) -> Result<Option<Vec<u8>>, secret_service::Error> {
    use secret_service::EncryptionType;
    use secret_service::blocking::SecretService;
    // The value is encrypted on the bus.
    let service = SecretService::connect(EncryptionType::Dh)?;
    let found = service.search_items([("service", SERVICE), ("username", name)].into())?;
    if let Some(item) = found.unlocked.first() {
        return item.get_secret().map(Some);
    }
    let Some(item) = found.locked.first() else { return Ok(None) };
    item.unlock()?;
    item.get_secret().map(Some)
}
