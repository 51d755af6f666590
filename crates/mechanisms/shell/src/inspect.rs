//! Inspects paths in the container with its tools.

use crate::listing::{Stat, entries};
use crate::quoting::{assign_path, cause};
use crate::session::{Lost, Session};

/// The entries of a directory in the container, or the error.
pub(crate) async fn list(
    session: &mut Session,
    directory: &[u8],
) -> Result<Result<Vec<(Vec<u8>, Stat)>, String>, Lost> {
    let mut line = Vec::new();
    // A trailing slash follows a symlink, as a typed path may be.
    let slash: &[u8] = if directory.is_empty() || directory.ends_with(b"/") { b"" } else { b"/" };
    assign_path(&mut line, 'a', &[directory, slash].concat());
    line.extend_from_slice(b"list\n");
    session.queue(&line);
    Ok(match session.whole().await? {
        Ok(text) => entries(&text, &session.mark).ok_or_else(|| "the output of stat is malformed".to_owned()),
        Err(why) => Err(cause(&why)),
    })
}

/// The attributes of a path, following a symlink if requested.
pub(crate) async fn stat_path(
    session: &mut Session,
    path: &[u8],
    follow: bool,
) -> Result<Result<Stat, Vec<u8>>, Lost> {
    let mut line = Vec::new();
    assign_path(&mut line, 'a', path);
    line.extend_from_slice(if follow { b"look -L\n" } else { b"look\n" });
    Ok(match session.ask(&line).await? {
        Ok(text) => Stat::parse(&text).ok_or_else(|| b"the output of stat is malformed".to_vec()),
        Err(why) => Err(why.to_vec()),
    })
}

/// The target of a symlink (`-n`), or its final target (`-nf`).
pub(crate) async fn read_link(
    session: &mut Session,
    path: &[u8],
    how: &str,
) -> Result<Result<Vec<u8>, String>, Lost> {
    let mut line = Vec::new();
    assign_path(&mut line, 'a', path);
    line.extend_from_slice(format!("link {how}\n").as_bytes());
    session.queue(&line);
    Ok(session.whole().await?.map_err(|why| cause(&why)))
}
