//! Patterns over names: what a copy leaves out, and which files a path with wildcards means.
//!
//! Names are bytes, but `?` and `[…]` stand for a character where the bytes are UTF-8, and for one byte elsewhere.
//! Classes such as `[:alpha:]` are those of ASCII, as git's are.

/// A pattern that cannot be used.
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

/// git takes a pattern with any of these and lets it match nothing, which nobody would notice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Flaw {
    #[error("names nothing; write a name, or '*' for everything")]
    Empty,
    #[error("has a '[' that no ']' closes; write '\\[' for the character itself")]
    Open,
    #[error(
        "has '[:{0}:]', which is no class of characters; there are alnum, alpha, blank, cntrl, digit, graph, \
         lower, print, punct, space, upper and xdigit"
    )]
    Class(String),
    #[error("ends in a backslash with nothing to quote; write two for a backslash itself")]
    Quote,
    #[error(
        "has an empty component, '.' or '..', and so matches nothing; write it as seen from the copied \
         directory, with a leading slash for what lies directly in it"
    )]
    Component,
}

/// Whether a rule leaves out or takes in again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `--exclude`.
    Exclude,
    /// `--include`.
    Include,
}

/// `--exclude` and `--include` in the order given, gitignore syntax; the last that matches decides.
#[derive(Debug, Clone, Default)]
pub struct Rules(Vec<Rule>);

#[derive(Debug, Clone)]
struct Rule {
    excludes: bool,
    directories: bool,
    /// `None` is `**`, any number of components.
    parts: Vec<Option<Vec<Piece>>>,
}

impl Rules {
    /// Reads the patterns. A leading `!` turns one around; a `#` means nothing, as this is a command line.
    pub fn parse<'a>(patterns: impl IntoIterator<Item = (Kind, &'a [u8])>) -> Result<Self, PatternError> {
        let rule = |(kind, text)| Rule::parse(kind, text).map_err(|flaw| PatternError::new(text, flaw));
        patterns.into_iter().map(rule).collect::<Result<_, _>>().map(Self)
    }

    /// Whether `path` itself, relative to the copied root, is left out. What lies below an excluded directory
    /// is not asked for: as with git, nothing takes it in again.
    pub fn excludes(&self, path: &[u8], directory: bool) -> bool {
        let decides = self.0.iter().rev().find(|rule| rule.matches(path, directory));
        decides.is_some_and(|rule| rule.excludes)
    }

    /// The same of a path that was found by a wildcard: it, or a directory that it lies in, is left out.
    pub fn leave_out(&self, path: &[u8], directory: bool) -> bool {
        let mut slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        slashes.any(|(at, _)| self.excludes(&path[..at], true)) || self.excludes(path, directory)
    }

    /// Whether there are none, so that nothing is left out.
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
        (directory || !self.directories) && wild(&self.parts, names, Option::is_none, one)
    }
}

/// The parts of a pattern with a slash, which matches from the root.
fn anchored(pieces: &[Piece]) -> Result<Vec<Option<Vec<Piece>>>, Flaw> {
    let any = |part: &[Piece]| part.len() > 1 && part.iter().all(|piece| *piece == Piece::Star);
    let part = |part: &[Piece]| if any(part) { Ok(None) } else { name(part).map(Some) };
    let parts = pieces.split(|piece| *piece == Piece::Only(Ok('/'))).map(part);
    let mut parts = parts.collect::<Result<Vec<_>, _>>()?;
    if parts.last() == Some(&None) {
        parts.push(Some(vec![Piece::Star])); // `a/**` is what lies below `a`, without `a`
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

/// Whether the last byte is a backslash that is not quoted itself.
fn quotes_next(pattern: &[u8]) -> bool {
    pattern.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// A path with wildcards, cut into the steps that a walk through directories takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    absolute: bool,
    directories: bool,
    steps: Vec<Step>,
}

/// One step of a [`Glob`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A name as it is, quotes removed. `.` and `..` are kept.
    Literal(Vec<u8>),
    /// What [`matches()`] takes for one name.
    Pattern(Vec<u8>),
    /// `**`: any depth, including none. It neither follows symbolic links nor enters hidden directories; as
    /// the last step it is everything below and the directory itself.
    Any,
}

impl Glob {
    /// Cuts a path up as the shell does: a `[` that nothing closes is itself.
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

    /// Whether it starts at `/`.
    pub fn absolute(&self) -> bool {
        self.absolute
    }

    /// Whether it ends in a slash, and so means directories only.
    pub fn directories(&self) -> bool {
        self.directories
    }

    /// A path that was found, without the directories that are named as they are.
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

    /// The steps, outermost first; none for `/`.
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

/// The components of a path, without a backslash that quoted the slash behind it.
fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let unquoted = |part| if quotes_next(part) { &part[..part.len() - 1] } else { part };
    path.split(|byte| *byte == b'/').map(unquoted).filter(|part| !part.is_empty())
}

/// Whether a path holds wildcards that are not quoted.
pub fn is_glob(path: &[u8]) -> bool {
    components(path).any(|part| !matches!(Step::parse(part), Ok(Step::Literal(_))))
}

/// Whether a path holds wildcards, or a backslash that quotes: it may name something other than what it spells.
pub fn is_special(path: &[u8]) -> bool {
    path.contains(&b'\\') || is_glob(path)
}

/// A pattern that only this path matches; [`unquoted`] is the way back.
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

/// What a path without wildcards means once its backslashes are taken for quotes; nothing where it has wildcards.
pub fn unquoted(path: &[u8]) -> Option<Vec<u8>> {
    if is_glob(path) {
        return None;
    }
    let mut plain = Vec::with_capacity(path.len());
    let mut bytes = path.iter();
    while let Some(byte) = bytes.next() {
        // A last backslash has nothing to quote, and stands for itself.
        plain.push(if *byte == b'\\' { *bytes.next().unwrap_or(byte) } else { *byte });
    }
    Some(plain)
}

/// One name against one pattern: `*`, `?`, `[a-z]`, `[!a-z]`, `[^a-z]`, `[[:alpha:]]`; a backslash quotes.
/// Unless `hidden`, a leading dot in the name has to be a dot in the pattern, as in the shell.
pub fn matches(pattern: &[u8], name: &[u8], hidden: bool) -> bool {
    let Ok(pieces) = pieces(pattern, true) else { return false };
    (hidden || !name.starts_with(b".") || pieces.first() == Some(&Piece::Only(Ok('.'))))
        && takes(&pieces, name)
}

/// A character, or a byte that is part of none.
type Symbol = Result<char, u8>;

fn symbols(bytes: &[u8]) -> impl Iterator<Item = Symbol> + Clone {
    bytes
        .utf8_chunks()
        .flat_map(|chunk| chunk.valid().chars().map(Ok).chain(chunk.invalid().iter().map(|byte| Err(*byte))))
}

fn takes(pieces: &[Piece], name: &[u8]) -> bool {
    wild(pieces, symbols(name), |piece| *piece == Piece::Star, Piece::takes)
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

/// The one way to match, names in a path as well as characters in a name. It goes back to the last star only:
/// an earlier one that took more would leave less for the same rest. So the time is at most the product of the
/// lengths, whatever the pattern.
fn wild<P, I: Iterator<Item: Copy> + Clone>(
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

/// Reads a pattern. In a shell's, a `[` that nothing closes is itself, and so are those behind it: looking for
/// the end of each would take the square of the length.
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

/// Reads a set from behind its `[`, and says where it ends. A `]` at the start and a `-` at either end are
/// themselves.
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

/// Reads `[:name:]`, if that is what is there.
fn class(pattern: &[Symbol], at: usize) -> Result<Option<(Class, usize)>, Flaw> {
    let Some([Ok('['), Ok(':'), rest @ ..]) = pattern.get(at..) else { return Ok(None) };
    // No further than any name reaches, or `[:[:[:…]` would take the square of its length.
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
