//! Name patterns: exclude rules, and paths with wildcards.
//!
//! Names are bytes. `?` and `[…]` match a character where the bytes are UTF-8, and one byte elsewhere.
//! Classes such as `[:alpha:]` are ASCII only, as in git.

/// The pattern is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern '{pattern}' {flaw}")]
pub struct PatternError {
    pattern: String,
    flaw: Flaw,
}

impl PatternError {
    fn new(pattern: &[u8], flaw: Flaw) -> Self {
        Self { pattern: String::from_utf8_lossy(pattern).into_owned(), flaw }
    }
}

/// git accepts such patterns and never matches them, which users would not notice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Flaw {
    #[error("has no name; write a name, or '*' for everything")]
    Empty,
    #[error("has a '[' without a closing ']'; write '\\[' for the character itself")]
    Open,
    #[error(
        "has '[:{0}:]', which is not a character class; valid classes are alnum, alpha, blank, cntrl, digit, \
         graph, lower, print, punct, space, upper and xdigit"
    )]
    Class(String),
    #[error("ends in a backslash with nothing to quote; write two for a backslash itself")]
    Quote,
    #[error(
        "has an empty component, '.' or '..', and so never matches; write the path relative to the copied \
         directory, with a leading slash to match only at its top level"
    )]
    Component,
}

/// Whether a rule excludes or includes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `--exclude`.
    Exclude,
    /// `--include`.
    Include,
}

/// `--exclude` and `--include` in the order given, in gitignore syntax; the last match decides.
#[derive(Debug, Clone, Default)]
pub struct Rules(Vec<Rule>);

#[derive(Debug, Clone)]
struct Rule {
    excludes: bool,
    directories: bool,
    /// `None` is `**`: any number of components.
    parts: Vec<Option<Vec<Piece>>>,
}

impl Rules {
    /// Parses the patterns. A leading `!` inverts one. `#` has no special meaning, because patterns come from
    /// the command line.
    pub fn parse<'a>(patterns: impl IntoIterator<Item = (Kind, &'a [u8])>) -> Result<Self, PatternError> {
        let rule = |(kind, text)| Rule::parse(kind, text).map_err(|flaw| PatternError::new(text, flaw));
        patterns.into_iter().map(rule).collect::<Result<_, _>>().map(Self)
    }

    /// Whether `path`, relative to the copied root, is excluded. Callers do not ask about paths below an
    /// excluded directory: as in git, nothing below it can be included again.
    pub fn excludes(&self, path: &[u8], directory: bool) -> bool {
        let decides = self.0.iter().rev().find(|rule| rule.matches(path, directory));
        decides.is_some_and(|rule| rule.excludes)
    }

    /// Like [`Self::excludes`], for a path found by a wildcard: also true if one of its parent directories is
    /// excluded.
    pub fn leave_out(&self, path: &[u8], directory: bool) -> bool {
        let mut slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        slashes.any(|(at, _)| self.excludes(&path[..at], true)) || self.excludes(path, directory)
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Rule {
    fn parse(kind: Kind, pattern: &[u8]) -> Result<Self, Flaw> {
        let pattern = without_trailing_spaces(pattern);
        let (turned, pattern) = strip(pattern, pattern.strip_prefix(b"!"));
        let (directories, pattern) = strip(pattern, pattern.strip_suffix(b"/"));
        let floats = !pattern.contains(&b'/');
        let (_, pattern) = strip(pattern, pattern.strip_prefix(b"/"));
        if pattern.is_empty() {
            return Err(Flaw::Empty);
        }
        let pieces = pieces(pattern, false)?;
        let parts = if floats { vec![None, Some(name(&pieces)?)] } else { anchored(&pieces)? };
        Ok(Self { excludes: (kind == Kind::Exclude) != turned, directories, parts })
    }

    fn matches(&self, path: &[u8], directory: bool) -> bool {
        let names = path.split(|byte| *byte == b'/');
        let one = |part: &Option<Vec<_>>, name| part.as_ref().is_none_or(|pieces| takes(pieces, name));
        (directory || !self.directories) && match_wildcard(&self.parts, names, Option::is_none, one)
    }
}

/// Parses a pattern with a slash, which matches from the root.
fn anchored(pieces: &[Piece]) -> Result<Vec<Option<Vec<Piece>>>, Flaw> {
    let any = |part: &[Piece]| part.len() > 1 && part.iter().all(|piece| *piece == Piece::Star);
    let part = |part: &[Piece]| if any(part) { Ok(None) } else { name(part).map(Some) };
    let parts = pieces.split(|piece| *piece == Piece::Only(Ok('/'))).map(part);
    let mut parts = parts.collect::<Result<Vec<_>, _>>()?;
    if parts.last() == Some(&None) {
        parts.push(Some(vec![Piece::Star])); // `a/**` matches everything below `a`, but not `a`
    }
    Ok(parts)
}

fn name(pieces: &[Piece]) -> Result<Vec<Piece>, Flaw> {
    let dots = pieces.len() < 3 && pieces.iter().all(|piece| *piece == Piece::Only(Ok('.')));
    if dots { Err(Flaw::Component) } else { Ok(pieces.to_vec()) }
}

fn strip<'a>(whole: &'a [u8], stripped: Option<&'a [u8]>) -> (bool, &'a [u8]) {
    (stripped.is_some(), stripped.unwrap_or(whole))
}

fn without_trailing_spaces(pattern: &[u8]) -> &[u8] {
    let spaces = pattern.iter().rev().take_while(|byte| **byte == b' ').count();
    let bare = &pattern[..pattern.len() - spaces];
    if spaces > 0 && quotes_next(bare) { &pattern[..=bare.len()] } else { bare }
}

/// Whether the last byte is an unescaped backslash.
fn quotes_next(pattern: &[u8]) -> bool {
    pattern.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// A path with wildcards, split into the steps of a directory walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    absolute: bool,
    directories: bool,
    steps: Vec<Step>,
}

/// One step of a [`Glob`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A literal name, with escapes removed. `.` and `..` are kept.
    Literal(Vec<u8>),
    /// A pattern for one name, for [`matches()`].
    Pattern(Vec<u8>),
    /// `**`: any depth, including none. It neither follows symbolic links nor enters hidden directories. As
    /// the last step it matches everything below and the directory itself.
    Any,
}

impl Glob {
    /// Splits a path as the shell does: an unclosed `[` is literal.
    pub fn parse(path: &[u8]) -> Result<Self, PatternError> {
        let error = |flaw| PatternError::new(path, flaw);
        match path {
            [] => return Err(error(Flaw::Empty)),
            path if quotes_next(path) => return Err(error(Flaw::Quote)),
            _ => {}
        }
        let mut steps = Vec::new();
        for part in components(path) {
            let step = Step::parse(part).map_err(error)?;
            if step != Step::Any || steps.last() != Some(&Step::Any) {
                steps.push(step);
            }
        }
        Ok(Self { absolute: path.starts_with(b"/"), directories: path.ends_with(b"/"), steps })
    }

    /// Whether it starts with `/`.
    pub fn absolute(&self) -> bool {
        self.absolute
    }

    /// Whether it ends in a slash and therefore matches directories only.
    pub fn directories(&self) -> bool {
        self.directories
    }

    /// The part of a found path after the leading literal directories.
    pub fn below<'p>(&self, found: &'p [u8]) -> &'p [u8] {
        let named = self.steps.iter().take_while(|step| matches!(step, Step::Literal(_))).count();
        let named = named.min(self.steps.len().saturating_sub(1));
        let mut below = found.strip_prefix(b"/").unwrap_or(found);
        for _ in 0..named {
            let slash = below.iter().position(|byte| *byte == b'/');
            below = slash.map_or(below, |slash| &below[slash + 1..]);
        }
        below
    }

    /// The steps, outermost first; empty for `/`.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

impl Step {
    fn parse(part: &[u8]) -> Result<Self, Flaw> {
        let pieces = pieces(part, true)?;
        let mut literal = Vec::with_capacity(part.len());
        for piece in &pieces {
            match piece {
                Piece::Only(Ok(symbol)) => literal.extend(symbol.encode_utf8(&mut [0; 4]).bytes()),
                Piece::Only(Err(byte)) => literal.push(*byte),
                _ if part == b"**" => return Ok(Self::Any),
                _ => return Ok(Self::Pattern(part.to_vec())),
            }
        }
        Ok(Self::Literal(literal))
    }
}

/// The components of a path, without a backslash that escaped the following slash.
fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let unquoted = |part| if quotes_next(part) { &part[..part.len() - 1] } else { part };
    path.split(|byte| *byte == b'/').map(unquoted).filter(|part| !part.is_empty())
}

/// Whether a path has unescaped wildcards.
pub fn is_glob(path: &[u8]) -> bool {
    components(path).any(|part| !matches!(Step::parse(part), Ok(Step::Literal(_))))
}

/// Whether a path has wildcards or backslashes, so that it may not be literal.
pub fn is_special(path: &[u8]) -> bool {
    path.contains(&b'\\') || is_glob(path)
}

/// A pattern that matches only this path; [`unquoted`] is the inverse.
pub fn quoted(path: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(path.len());
    for byte in path {
        if b"*?[\\".contains(byte) {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern
}

/// The path with its escapes removed; `None` if it has wildcards.
pub fn unquoted(path: &[u8]) -> Option<Vec<u8>> {
    if is_glob(path) {
        return None;
    }
    let mut plain = Vec::with_capacity(path.len());
    let mut bytes = path.iter();
    while let Some(byte) = bytes.next() {
        // A trailing backslash is literal.
        plain.push(if *byte == b'\\' { *bytes.next().unwrap_or(byte) } else { *byte });
    }
    Some(plain)
}

/// Matches one name against one pattern: `*`, `?`, `[a-z]`, `[!a-z]`, `[^a-z]`, `[[:alpha:]]`, and backslash
/// as an escape. Unless `hidden`, a leading dot in the name must be literal in the pattern, as in the shell.
pub fn matches(pattern: &[u8], name: &[u8], hidden: bool) -> bool {
    let Ok(pieces) = pieces(pattern, true) else { return false };
    (hidden || !name.starts_with(b".") || pieces.first() == Some(&Piece::Only(Ok('.'))))
        && takes(&pieces, name)
}

/// A character, or a byte that is not part of one.
type Symbol = Result<char, u8>;

fn symbols(bytes: &[u8]) -> impl Iterator<Item = Symbol> + Clone {
    bytes
        .utf8_chunks()
        .flat_map(|chunk| chunk.valid().chars().map(Ok).chain(chunk.invalid().iter().map(|byte| Err(*byte))))
}

fn takes(pieces: &[Piece], name: &[u8]) -> bool {
    match_wildcard(pieces, symbols(name), |piece| *piece == Piece::Star, Piece::takes)
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Star,
    Each,
    Only(Symbol),
    Set { negated: bool, ranges: Vec<(Symbol, Symbol)> },
}

impl Piece {
    fn takes(&self, symbol: Symbol) -> bool {
        match self {
            Self::Star | Self::Each => true,
            Self::Only(only) => *only == symbol,
            Self::Set { negated, ranges } => {
                ranges.iter().any(|(low, high)| *low <= symbol && symbol <= *high) != *negated
            }
        }
    }
}

/// The matcher for both components of a path and characters of a name. It backtracks to the last star only:
/// an earlier star that matched more would leave less for the same rest. So the time is at most the product
/// of the lengths, whatever the pattern.
fn match_wildcard<P, I: Iterator<Item: Copy> + Clone>(
    pattern: &[P],
    mut text: I,
    star: impl Fn(&P) -> bool,
    takes: impl Fn(&P, I::Item) -> bool,
) -> bool {
    let mut at = 0;
    let mut retry = None;
    loop {
        if pattern.get(at).is_some_and(&star) {
            at += 1;
            retry = Some((at, text.clone()));
            continue;
        }
        match (pattern.get(at), text.next()) {
            (rest, None) => return rest.is_none(),
            (Some(piece), Some(item)) if takes(piece, item) => at += 1,
            _ => {
                let Some((behind, from)) = &mut retry else { return false };
                from.next();
                (at, text) = (*behind, from.clone());
            }
        }
    }
}

/// Parses a pattern. In a shell pattern, an unclosed `[` is literal, and so are all later ones: searching for
/// the end of each would take quadratic time.
fn pieces(pattern: &[u8], shell: bool) -> Result<Vec<Piece>, Flaw> {
    let pattern: Vec<_> = symbols(pattern).collect();
    let (mut pieces, mut at, mut sets) = (Vec::new(), 0, true);
    while let Some(symbol) = pattern.get(at) {
        let (piece, end) = match symbol {
            Ok('*') => (Piece::Star, at + 1),
            Ok('?') => (Piece::Each, at + 1),
            Ok('\\') => (Piece::Only(*pattern.get(at + 1).ok_or(Flaw::Quote)?), at + 2),
            Ok('[') if sets => match set(&pattern, at + 1) {
                Err(Flaw::Open) if shell => {
                    sets = false;
                    (Piece::Only(*symbol), at + 1)
                }
                set => set?,
            },
            _ => (Piece::Only(*symbol), at + 1),
        };
        pieces.push(piece);
        at = end;
    }
    Ok(pieces)
}

/// Parses a set after its `[` and returns where it ends. A `]` at the start and a `-` at either end are
/// literal.
fn set(pattern: &[Symbol], start: usize) -> Result<(Piece, usize), Flaw> {
    let negated = matches!(pattern.get(start), Some(Ok('!' | '^')));
    let first = start + usize::from(negated);
    let (mut ranges, mut at) = (Vec::new(), first);
    while at == first || pattern.get(at) != Some(&Ok(']')) {
        if let Some((class, end)) = class(pattern, at)? {
            ranges.extend(class.iter().map(|(low, high)| (Ok(*low), Ok(*high))));
            at = end;
            continue;
        }
        let (low, end) = member(pattern, at)?;
        ranges.push((low, low));
        at = end;
        if pattern.get(at) == Some(&Ok('-')) && pattern.get(at + 1).is_some_and(|next| *next != Ok(']')) {
            let (high, end) = member(pattern, at + 1)?;
            ranges.push((low, high));
            at = end;
        }
    }
    Ok((Piece::Set { negated, ranges }, at + 1))
}

fn member(pattern: &[Symbol], at: usize) -> Result<(Symbol, usize), Flaw> {
    let at = at + usize::from(pattern.get(at) == Some(&Ok('\\')));
    pattern.get(at).map(|symbol| (*symbol, at + 1)).ok_or(Flaw::Open)
}

type Class = &'static [(char, char)];

/// Parses `[:name:]`, if present.
fn class(pattern: &[Symbol], at: usize) -> Result<Option<(Class, usize)>, Flaw> {
    let Some([Ok('['), Ok(':'), rest @ ..]) = pattern.get(at..) else { return Ok(None) };
    // Limited to the length of any class name; otherwise `[:[:[:…]` would take quadratic time.
    let Some(end) = rest.iter().take(64).position(|symbol| *symbol == Ok(']')) else { return Ok(None) };
    let Some((Ok(':'), name)) = rest[..end].split_last() else { return Ok(None) };
    let name: String = name.iter().map(|symbol| symbol.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    let ranges: Class = match name.as_str() {
        "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
        "alpha" => &[('A', 'Z'), ('a', 'z')],
        "blank" => &[(' ', ' '), ('\t', '\t')],
        "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
        "digit" => &[('0', '9')],
        "graph" => &[('!', '~')],
        "lower" => &[('a', 'z')],
        "print" => &[(' ', '~')],
        "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        "space" => &[(' ', ' '), ('\t', '\r')],
        "upper" => &[('A', 'Z')],
        "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
        _ => return Err(Flaw::Class(name)),
    };
    Ok(Some((ranges, at + 2 + end + 1)))
}

#[cfg(test)]
mod tests;
