"""Debit without a pause and print each answer, until the test kills this process.

`python -m tests.db.debits.debtor URL ORGANIZATION` writes a line `key entry_no` for each answer.
"""

from __future__ import annotations

import os
import sys
import threading

from db.engine import Database
from domain.wallet.debits import Debit, debit_now

#: Number of concurrent callers, and the most debits that each of them requests.
CALLERS = 8
DEBITS_MAX = 5_000


def main() -> None:
    """Start the callers; each debits one micro at a time, under a new key."""
    url, org = sys.argv[1:]
    database = Database(url, name="debtor")

    def call(caller: int) -> None:
        for n in range(DEBITS_MAX):
            key = f"{caller}:{n}"
            outcome = debit_now(database, Debit(org, key, 1, "USD", "messages"))
            # One write per line, so that a killed process leaves no partial line.
            os.write(1, f"{key} {outcome.entry_no}\n".encode())

    for caller in range(CALLERS):
        threading.Thread(target=call, args=(caller,)).start()


if __name__ == "__main__":
    main()
