"""What runs on a device that is reached by ssh: fixed texts for its POSIX shell, which get every word as an argument.

The server hands one line to the login shell of the user, :func:`line`; its words are quoted for any shell that has
single quotes (sh, bash, dash, zsh, ksh, busybox; fish as far as words have no backslash).

Whatever happens, the device is left as it was. ``HOLD`` makes the folder, and lives as long as the connection: its
standard input ends with it, and if the network just falls silent, the beats that this machine sends fail to come.
Then it ends every program that ``RUN`` has noted in the folder, with its process group, removes the folder, and last of
all ends its own group by a signal that none of its shells can be too young to hear.
Should HOLD itself be killed, the watch that it keeps does the same when the next beat is missed.
"""

from __future__ import annotations

import shlex

from edgepress.errors import DeviceError

LEAD = """
if { ! kill -s 0 -- "-$$" && ! kill -s 0 "-$$" && command -v setsid; } >/dev/null 2>&1; then
  exec setsid sh -c "$0" edgepress "$@"
fi
exec sh -c "$0" edgepress "$@"
"""
"""Words: a script and its words. It is run as the leader of a process group, so that the group can be ended as a whole:
OpenSSH makes it one, dropbear does not. (Some shells want ``--`` before a group, busybox takes none.)"""

HOLD = """
umask 077
mark=$1
case $2 in "~/"*) parent=$HOME/${2#"~/"} ;; "") parent=${TMPDIR:-/tmp} ;; *) parent=$2 ;; esac
folder=$(mktemp -d "$parent/edgepress-XXXXXXXXXX") || exit 1
clean() {
  trap "" HUP INT TERM PIPE
  rm -f "$folder/.open"
  for tries in 1 2 3 4 5; do
    for job in "$folder"/.job-*; do
      pid=
      [ -f "$job" ] && read -r pid < "$job"
      [ -n "$pid" ] && { kill -s KILL -- "-$pid" || kill -s KILL "-$pid"; }
    done
    rm -rf "$folder" && break
    sleep 1
  done
  kill -s KILL -- "-$$" || kill -s KILL "-$$"
} 2>/dev/null
trap clean EXIT
trap "exit 1" HUP INT TERM PIPE
: > "$folder/.open" || exit 1
exec 3<&0
{
  while sleep "$3"; do
    [ -f "$folder/.beat" ] || kill -s TERM "$$" || { clean; exit; }
    rm -f "$folder/.beat"
  done
} </dev/null >/dev/null 2>&1 3<&- &
printf "\\n%s %s\\n" "$mark" "$folder"
while read -r beat <&3; do : > "$folder/.beat"; done
exit 0
"""
"""Words: a mark, the folder to make one in (empty: the usual one), seconds after which a missing beat means the end.

Prints the mark and the folder. Beats are empty lines on standard input."""

RUN = """
mark=$1 folder=$2 job=.job-$3 stop=.stop-$3
shift 3
finish() { printf "\\n%s %s\\n" "$mark" "$1" >&2; exit 0; }
umask 077
cd "$folder" || finish gone
echo "$$" > "$job" || finish full
[ -f .open ] && [ ! -f "$stop" ] || exit 1
case $1 in "~/"*) program=$HOME/${1#"~/"}; shift; set -- "$program" "$@" ;; esac
command -v "$1" >/dev/null 2>&1 || { rm -f "$job"; finish missing; }
TMPDIR=$PWD
export TMPDIR
printf "\\n%s\\n" "$mark"
"$@"
status=$?
rm -f "$job"
finish "$status"
"""
"""Words: the mark, the folder, a number of its own, then the program and its words.

Temporary files of the program lie in the folder. The mark on standard output says where the program's begins: what the
login shell's settings print stands before it. The mark on standard error says that it has ended and how, which a
connection that broke does not."""

STOP = """
cd "$1" || exit 0
: > ".stop-$2"
pid=
[ -f ".job-$2" ] && read -r pid < ".job-$2"
[ -n "$pid" ] && { kill -s KILL -- "-$pid" || kill -s KILL "-$pid"; } 2>/dev/null
rm -f ".job-$2"
"""
"""Words: the folder and the number of the program to end."""

PUT = """
LC_ALL=C
export LC_ALL
cat > "$1.part" && [ "$(wc -c < "$1.part")" -eq "$2" ] && mv -f "$1.part" "$1" && exit 0
rm -f "$1.part"
exit 1
"""
"""Words: a file name, and how many bytes come on standard input."""


def line(script: str, *words: str) -> str:
    """The line that the login shell reads.

    Raises:
        DeviceError: a word holds a NUL, which no command line can.
    """
    if any("\0" in word for word in words):
        raise DeviceError("A word for a device holds a NUL byte: no command line can.")
    return " ".join(["exec sh -c", *map(shlex.quote, (LEAD, script, *words))])
