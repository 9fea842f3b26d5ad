"""Whether some sequential order explains the answers of concurrent operations.

The search is sound and complete: it tries every order that agrees with what is known. The numbers
of the entries give the order in which a wallet's money moved. So an order is dropped as soon as the
model writes an entry that differs from the database. An operation that writes no entry, such as a
refusal, may be anywhere in the order if the model gives the same answer there.

This proves that concurrent operations behave like the same operations in some sequence
(linearizability): the answers, every entry, and the final state.
"""

from __future__ import annotations

from tests.model.books import Books, Operation
from tests.model.model import Answer
from tests.model.picture import Picture

#: These also update the entitlement, so that an unchanged answer can hide a change.
_WITH_ENFORCEMENT = {"correct", "settle", "freeze_manually", "lift_manually", "override_manually"}

Asked = list[tuple[Operation, Answer]]


def explain(books: Books, asked: Asked, now: float, end: Picture) -> Books | None:
    """Find the books after all operations, in some order that explains the answers.

    Return None if no order gives these answers and the state in the picture.
    """
    branches: list[tuple[int, Books]] = []
    unplaced: set[int] = set(range(len(asked)))
    for place, (operation, answer) in enumerate(asked):
        after = books.copy()
        if after.do(operation, now) != answer or not _is_on_the_way(after, end):
            continue
        if after == books and operation.name not in _WITH_ENFORCEMENT:
            # The operation is explained here, and changes nothing for the others wherever it is
            # placed.
            unplaced.discard(place)
        else:
            branches.append((place, after))
    if not unplaced:
        return None if end.shows(books) else books
    for place, after in branches:
        rest = [asked[other] for other in sorted(unplaced - {place})]
        found = explain(after, rest, now, end)
        if found is not None:
            return found
    return None


def _is_on_the_way(books: Books, end: Picture) -> bool:
    return all(
        end.lines[org][: len(wallet.lines)] == wallet.lines for org, wallet in books.wallets.items()
    )
