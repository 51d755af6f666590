# The functions that run in the container. The client calls them one line at a time, with names in $a and $b. They use
# only POSIX sh and what busybox and coreutils share. Nothing of this is ever written to a file.
LC_ALL=C TZ=UTC0
export LC_ALL TZ
set -f
u=$(umask)
umask 077
exec 3>&1
F='%f %s %u %g %Y %y|%d:%i %h %b %t %T'
x= w= o= i=
has() { command -v "$1" >/dev/null 2>&1; }
no() { set -- $e; printf 'no %s\n' "$*"; }
end() { set -- "$1" $e; printf '\n/%s %s\n' "$N" "$*"; }

# The first answer: the tool for hashes, whether tar exists, user and group, missing tools, writable directories.
hello() {
  spots 2>/dev/null
  N=$1 S=- n= t=
  for c in sha256sum b3sum sha512sum sha1sum; do has $c && { S=$c; break; }; done
  [ "$2" = "" ] || S=$2
  for c in dd stat find readlink mkdir mv rm chmod touch ln cat; do has $c || n="$n $c"; done
  [ -n "$n" ] || [ "$(printf abcd | { dd bs=2 count=1 iflag=fullblock >/dev/null 2>&1; cat; })" = cd ] || n=" dd(iflag=fullblock)"
  stat -c %f / >/dev/null 2>&1 || n="$n stat(-c)"
  has tar && t=tar || t=-
  case $(mv --help 2>&1) in *-T*) M=-fT ;; *) M=-f ;; esac
  printf 'hello %s %s %s %s|%s|%s\n' "$S" $t "$(id -u 2>/dev/null || echo '?')" "$(id -g 2>/dev/null || echo '?')" "$n" "$W"
}

# W: writable directories. Candidates are common directories and local mount points.
spots() {
  W=
  for l in /tmp /var/tmp /dev/shm /data /run "$HOME"; do spot "$l"; done
  local_mounts spot
}
spot() {
  case $1 in /proc* | /sys* | [!/]* | *[!a-zA-Z0-9/._-]*) return ;; esac
  case "$W " in *" $1 "*) return ;; esac
  [ ${#W} -gt 200 ] || [ ! -d "$1" ] || [ ! -w "$1" ] || [ ! -x "$1" ] || readonly_ "$1" || W="$W $1"
}

# Whether a directory is on a read-only mount, which busybox' test -w does not detect.
readonly_() {
  on= is=1
  while read -r _ at _ how _; do
    [ "$at" != / ] || at=
    case $1/ in "$at"/*) ;; *) continue ;; esac
    [ ${#at} -ge ${#on} ] || continue
    on=$at
    case $how in ro | ro,*) is=0 ;; *) is=1 ;; esac
  done </proc/self/mounts
  return $is
}

# The attributes of a; with -L those of its target.
look() { e=$(stat $1 -c "$F" -- "$a" 2>&1) && printf 'ok %s\n' "$e" || no; }
# The entries of the directory a.
list() {
  e=
  if find "$a" -mindepth 1 -maxdepth 1 -exec stat -c "$N $F|%n/" -- {} + 2>/dev/null; then
    end ok
  else
    e=$(find "$a" -mindepth 1 -maxdepth 1 -exec stat -c %n -- {} + 2>&1 >/dev/null)
    end no
  fi
}
# The target of the symlink a (-n), or its final target (-nf).
link() { e=; readlink $1 "$a" 2>/dev/null && end ok || { e='reading the symlink'; end no; }; }
# Hashes of a, in blocks of 8 MiB.
sums() {
  E=$($S </dev/null)
  e=$(while h=$(dd bs=1048576 count=8 iflag=fullblock 2>/dev/null | $S) && [ "$h" != "$E" ]; do printf '%s ' "${h%% *}"; done <"$a" 2>&1)
  printf 'ok %s\n' "$e"
}
# The hash of a file, or - if there is no tool for hashes.
sum() { [ "$S" = - ] && h=- || { h=$({ $S <"$1"; } 2>/dev/null); h=${h%% *}; }; }
# Runs a command with much output, and kills it when the client is gone: a runtime then stops reading without closing the
# pipe, and the command would block forever. The client sends a line when it has received the end. Uses KILL, because a
# process that the shell has forked, but that has not called exec yet, loses a TERM.
flow() {
  { trap 'kill -9 $! 2>/dev/null; wait $!; exit' TERM; "$@"; } & # it must not be reaped elsewhere
  f=$!
  IFS= read -r l || kill $f 2>/dev/null
  wait $f
}
# The content of a: $2 blocks of 64 KiB starting at block $1, then its hash and attributes.
get() { flow got "$@"; }
got() {
  { exec dd bs=65536 skip=$1 count=$2 >&3 <"$a"; } 2>/dev/null &
  if wait $!; then
    sum "$a"
    e="${h:--} $(stat -L -c "$F" -- "$a" 2>/dev/null)"
    end ok
  else
    e=$(dd bs=65536 skip=$1 count=1 2>&1 >/dev/null <"$a") && e='it cannot be read completely'
    end no
  fi
}
# An archive of the given small files.
pack() { flow packed "$@"; }
packed() {
  { exec tar -cf - -- "$@" >&3; } 2>/dev/null &
  wait $!
  printf '\n/%s ok %s\n' "$N" $?
}

# The hashes and attributes of files whose names have no newline, one line each.
abouts() {
  e=
  [ "$S" = - ] || $S "$@" 2>/dev/null
  stat -L -c "$F" -- "$@" 2>/dev/null
  end ok
}
# Hashes of several files; fin uses them one by one.
hashes() {
  H=
  [ "$S" = - ] || H=$($S "$@" 2>/dev/null | while read -r h n; do printf '%s ' "$h"; done)
}

# Creates the file p, which will become q, and removes the partial file r.
new() {
  x= w= o=1 i= k=$1
  [ "$k" = 0 ] || rm -f "$r" 2>/dev/null
  [ ! -e "$p" ] && [ ! -L "$p" ] || e=$(rm -f "$p" 2>&1) || { x=$e o=; return; }
  e=$( { set -C && : >"$p"; } 2>&1 ) && return
  if [ "$2" = inplace ]; then
    p=$q i=1
    e=$( { : >"$p"; } 2>&1 ) && return
  fi
  x=${e:-it cannot be created} o=
}
# resume continues with r at this length; after the rename, no other copy can use r. prefix continues with the first blocks
# of 8 MiB of q.
resume() {
  x= w= o=1 i= k=1
  e=$(mv $M "$r" "$p" 2>&1) || { x=${e:-it cannot be resumed} o=; return; }
  e=$(dd if=/dev/null of="$p" bs=1 seek=$1 2>&1) || x=$e
}
prefix() {
  new "$2" "$3"
  [ -n "$x" ] || [ -z "$i" ] || x='it cannot be created next to the existing file'
  [ -n "$x" ] || e=$(dd bs=8388608 count=$1 2>&1 <"$q" >>"$p") || x=$e
}
# dd reads everything before it writes, even if writing p fails: otherwise the rest would be read as a request.
put() {
  if [ -n "$x" ]; then
    dd bs=$1 count=1 iflag=fullblock 2>/dev/null | cat >/dev/null
  else
    e=$(dd bs=$1 count=1 iflag=fullblock 2>/dev/null | { cat >>"$p"; } 2>&1) || x=${e:-it cannot be written}
  fi
}
# Whether everything so far was written.
how() { if [ -n "$x" ]; then e=$x; no; else echo ok; fi; }
hole() { [ -n "$x" ] || e=$(dd if=/dev/null of="$p" bs=1 seek=$1 2>&1) || x=$e; }
# Sets the mode of p and keeps the setgid bit of a directory, which busybox removes with a numeric mode.
mode() {
  if [ -d "$p" ] && [ -g "$p" ]; then chmod $1 "$p" && chmod g+s "$p"; else chmod $1 "$p"; fi
}
# Sets mode, owner and time of p.
dress() {
  w=
  [ "$3" = - ] || e=$(chown -h $3 "$p" 2>&1) || w="its owner could not be set: $e"
  [ "$1" = - ] || e=$(mode $1 2>&1) || w="${w:+$w; }its mode could not be set: $e"
  [ "$2" = - ] || touch $4 -c -d @$2 "$p" 2>/dev/null || e=$(touch $4 -c -d @${2%.*} "$p" 2>&1) || w="${w:+$w; }its time could not be set: $e"
}
# Finishes p: renames it to q if its hash matches.
fin() {
  o=
  [ -n "$x" ] || [ "$1" = - ] || { compared $5 $1; [ "$h" = "$1" ] || x='what arrived is not what was sent: its hash differs'; }
  [ -n "$x" ] || [ "$5" = tar ] || dress $2 $3 $4
  [ -n "$x" ] || [ -n "$i" ] || place "$1" "$6"
  [ -z "$x" ] || [ -n "$i" ] || rm -f "$p"
  if [ -n "$x" ]; then e=$x; no; else set -- $w; printf 'ok %s\n' "$*"; fi
}
# The next of the hashes of several files; if it differs, hashes the file itself.
compared() {
  h=
  [ "$1" != tar ] || { h=${H%% *} H=${H#* }; }
  [ "$h" = "$2" ] || sum "$p"
}
place() {
  if [ -d "$q" ] && [ ! -L "$q" ]; then x='a directory exists at this path'; return; fi
  e=$(mv $M "$p" "$q" 2>&1) && return
  x=$e
  [ "$2" = inplace ] || return
  x=$( { cat "$p" >"$q"; } 2>&1 ) || { x=${x:-it cannot be written}; return; }
  rm -f "$p"
  p=$q i=1
  [ "$1" = - ] || { sum "$p"; [ "$h" = "$1" ] || x='what was written is not what was sent: its hash differs'; }
}
# Whether p has as much as r. The shell of a lost connection may end after the next one has hashed r, and must not replace r
# with less than that.
longer() { [ ! -e "$r" ] || [ "$(stat -c %s "$p" 2>/dev/null || echo 0)" -ge "$(stat -c %s "$r" 2>/dev/null || echo 0)" ]; }
# Keeps the written part of p as r if it is large enough to be resumed; otherwise removes it.
drop() {
  [ -z "$o" ] || [ -n "$i" ] || { [ "$1" = keep ] && [ "$k" = 1 ] && longer && mv $M "$p" "$r" 2>/dev/null; } || rm -f "$p"
  o=
}
bye() { drop keep; [ $# -eq 0 ] || rm -f "$@"; }

# Directories, removal, and links and special files, which are created as a and renamed to b.
make() {
  e=$(mkdir "$a" 2>&1) && { [ -g "$a" ] && echo ok new group || echo ok new; } && return
  if [ -d "$a" ] && [ ! -L "$a" ]; then echo ok; else no; fi
}
parents() { e=$( { umask $u; mkdir -p "$a"; } 2>&1 ) && echo ok || no; }
attr() { p=$a; dress $1 $2 $3; set -- $w; printf 'ok %s\n' "$*"; }
remove() { e=$(rm -rf "$a" 2>&1) && echo ok || no; }
named() {
  x= w= i= p=$a q=$b
  place - -
  [ -n "$x" ] || { p=$q; dress - $1 $2 -h; }
  if [ -n "$x" ]; then rm -f "$a"; e=$x; no; else set -- $w; printf 'ok %s\n' "$*"; fi
}
symlink() {
  rm -f "$a" 2>/dev/null
  if e=$(ln -s -- "$c" "$a" 2>&1); then named $1 $2; else no; fi
}
other() {
  if [ -f "$c" ] && [ ! -L "$c" ]; then
    [ "$c" -ef "$b" ] && { echo ok; return; }
    rm -f "$a" 2>/dev/null
    if e=$(ln "$c" "$a" 2>&1); then named - -; else no; fi
  else
    e='the file that it links to does not exist'
    no
  fi
}
special() {
  m=$1 t=$2 d=$3
  shift 3
  rm -f "$a" 2>/dev/null
  if e=$(mknod -m $m "$a" "$@" 2>&1); then named $t $d; else no; fi
}
# Unpacks an archive of $1 blocks of 512 bytes; reads all of it even if tar fails. busybox applies the umask for non-root
# users despite -p.
unpack() {
  e=$(dd bs=512 count=$1 iflag=fullblock 2>/dev/null | { umask 0; tar -xpof - -C "$a" 2>&1; c=$?; cat >/dev/null; exit $c; }) && echo ok || no
}
