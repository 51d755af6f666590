//! Quoting for the shell, and parsing the error messages of its tools.

use postern_files::name;

/// Appends `v='…';`, so that the shell variable has exactly these bytes, as a line of printable ASCII.
pub(crate) fn assign(line: &mut Vec<u8>, variable: char, value: &[u8]) {
    let plain = |byte: &u8| (b' '..=b'~').contains(byte) && !b"'\\%".contains(byte);
    let mut buffer = [0; 4];
    line.extend_from_slice(variable.encode_utf8(&mut buffer).as_bytes());
    if value.iter().all(plain) {
        line.extend_from_slice(b"='");
        line.extend_from_slice(value);
        line.extend_from_slice(b"';");
        return;
    }
    // Command substitution removes trailing newlines; the underscore protects them.
    line.extend_from_slice(b"=$(printf %b_ '");
    for byte in value {
        match plain(byte) {
            true => line.push(*byte),
            false => line.extend_from_slice(format!("\\0{byte:03o}").as_bytes()),
        }
    }
    let end = format!("');{variable}=${{{variable}%_}};");
    line.extend_from_slice(end.as_bytes());
}

/// The same for a path, so that no tool treats it as an option.
pub(crate) fn assign_path(line: &mut Vec<u8>, variable: char, path: &[u8]) {
    match path {
        b"" => assign(line, variable, b"."),
        path if path.starts_with(b"/") => assign(line, variable, path),
        path => assign(line, variable, &[b"./", path].concat()),
    }
}

/// Error messages of the C library; tools add other text around them.
const CAUSES: [&str; 21] = [
    "No space left on device",
    "Disk quota exceeded",
    "Read-only file system",
    "Permission denied",
    "Operation not permitted",
    "Operation not supported",
    "Device or resource busy",
    "Resource busy",
    "Text file busy",
    "No such file or directory",
    "Not a directory",
    "Is a directory",
    "Directory not empty",
    "File exists",
    "File name too long",
    "File too large",
    "Too many levels of symbolic links",
    "Input/output error",
    "Invalid argument",
    "Invalid cross-device link",
    "Stale file handle",
];

/// Messages of the shells dash, busybox and bash instead.
const SHELLS: [(&str, &str); 3] = [
    ("Directory nonexistent", "No such file or directory"),
    ("nonexistent directory", "No such file or directory"),
    ("cannot overwrite existing file", "File exists"),
];

/// Maximum length of a quoted tool message.
const MOST: usize = 300;

/// The cause in a tool's error message.
pub(crate) fn cause(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    // The last match: a file may be named like one of these, and tools print the file name first.
    let words = CAUSES.iter().map(|cause| (*cause, *cause)).chain(SHELLS);
    let found = words.filter_map(|(words, cause)| text.rfind(words).map(|at| (at, cause)));
    match found.max_by_key(|(at, cause)| (*at, cause.len())) {
        Some((_, cause)) => cause.to_owned(),
        None if said.is_empty() => "it failed without a message".to_owned(),
        None => name::show(&said[..said.len().min(MOST)]).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of the shell's variable.
    fn through(shell: &[&str], value: &[u8]) -> Vec<u8> {
        let mut line = Vec::new();
        assign(&mut line, 'a', value);
        assert!(line.iter().all(|byte| (b' '..=b'~').contains(byte)), "{line:?}");
        let mut command = std::process::Command::new(shell[0]);
        let script = "IFS= read -r l; eval \"$l\"; printf %s \"$a\"";
        command.args(&shell[1..]).args(["-c", script]);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        line.push(b'\n');
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &line).unwrap();
        child.wait_with_output().unwrap().stdout
    }

    #[test]
    fn names_survive_shell_quoting() {
        let all: Vec<u8> = (1..=255).collect();
        let busybox = std::process::Command::new("busybox").arg("true").output().is_ok();
        for shell in [vec!["sh"], vec!["busybox", "sh"]].into_iter().take(if busybox { 2 } else { 1 }) {
            for value in
                [&all[..], b"-rf", b"a'b", b"a\n\n", b"$(x) `y` \"z\" \\", b" a ", b"%s%b", b"\xff\x81\x88"]
            {
                assert_eq!(through(&shell, value), value, "{shell:?}");
            }
        }
    }

    #[test]
    fn the_cause_is_extracted_from_tool_messages() {
        let said = b"dd: error writing 'standard output': No space left on device 0+1 records in";
        assert_eq!(cause(said), "No space left on device");
        assert_eq!(
            cause(b"mkdir: can't create directory 'Is a directory': Permission denied"),
            "Permission denied"
        );
        for said in [
            "dash: 1: cannot create /no/y: Directory nonexistent",
            "sh: can't create /no/y: nonexistent directory",
        ] {
            assert_eq!(cause(said.as_bytes()), "No such file or directory");
        }
        assert_eq!(cause(b"odd\x1b[2J"), "odd\\u{1b}[2J");
        assert_eq!(cause(b""), "it failed without a message");
    }
}
