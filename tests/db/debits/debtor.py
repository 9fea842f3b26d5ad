"""A process that debits as fast as it is answered and says what it was told, until it is killed.

`python -m tests.db.debits.debtor URL ORGANIZATION` writes a line `key entry_no` for each answer.
"""

from __future__ import annotations

import os
import sys
import threading

from db.engine import Database
from domain.wallet.debits import Debit, debit_now

#: Callers at once, and the debits that each asks for, at most.
CALLERS = 8
DEBITS_MAX = 5_000


def main() -> None:
    """This function will debit one micro at a time, each under a key of its own."""
    url, org = sys.argv[1:]
    database = Database(url, name="debtor")

    def call(caller: int) -> None:
        for n in range(DEBITS_MAX):
            key = f"{caller}:{n}"
            outcome = debit_now(database, Debit(org, key, 1, "USD", "messages"))
            # One write, so that a line is either there or not.
            os.write(1, f"{key} {outcome.entry_no}\n".encode())

    for caller in range(CALLERS):
        threading.Thread(target=call, args=(caller,)).start()


if __name__ == "__main__":
    main()
