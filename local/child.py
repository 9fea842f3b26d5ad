"""Becomes another program, possibly as another account, tied to its parent's life.

local.launch runs this file as a script with `python -I -S`, which starts in about 15 ms. The
program that it becomes keeps its process id. This file uses only the standard library and must
never import another module of the project.

Arguments: the parent's pid; uid and gid (-1: unchanged); the signal to send to the program when the
parent dies; the program with its arguments.
"""

import ctypes
import os
import sys

#: PR_SET_PDEATHSIG of prctl(2), on Linux only.
_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, uid, gid, death_signal = (int(text) for text in sys.argv[1:5])
    argv = sys.argv[5:]
    # Before setuid: this Python may be under /root, where the account cannot read libraries.
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if libc is not None:
        # After setuid, which clears it. The signal follows the thread that started this process.
        libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the signal was armed
            os._exit(111)
    try:
        os.execvp(argv[0], argv)  # noqa: S606  # no shell is wanted
    except OSError as error:
        sys.stderr.write(f"cannot run {argv[0]}: {error.strerror}\n")
        os._exit(127)


main()
