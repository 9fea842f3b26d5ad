"""Becomes another program: gives up root if told to, and ties its life to its parent's.

Run as a script by local.launch, with the standard library only and `python -I -S` (about 15 ms);
the program it becomes keeps its process id. It must never import anything of ours.

Arguments: the parent's pid, uid, gid (-1: unchanged), the signal to get when the parent dies, and
the program with its arguments.
"""

import ctypes
import os
import sys

#: prctl(2)'s PR_SET_PDEATHSIG; Linux only.
_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, uid, gid, death_signal = (int(text) for text in sys.argv[1:5])
    argv = sys.argv[5:]
    # Before setuid: this Python may live under /root, where the account can't read any library.
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if libc is not None:
        # After setuid, which clears it. It follows the thread that started this process.
        libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the signal was armed
            os._exit(111)
    try:
        os.execvp(argv[0], argv)  # noqa: S606  # no shell is wanted
    except OSError as error:
        sys.stderr.write(f"cannot run {argv[0]}: {error.strerror}\n")
        os._exit(127)


main()
