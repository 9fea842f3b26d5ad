"""Whether answers given at once can be explained by some order in which one came after the other.

Sound and complete: every order is tried that agrees with what is known. The entries' numbering is
the order in which a wallet's money moved, so that an order is given up as soon as the model writes
another entry than stands there; a refusal, and what writes no entry, may stand wherever the model
gives the same answer. So what is proved is that operations at once are as some of them in turn
(linearizability): the answers, every entry, and what is there at the end.
"""

from __future__ import annotations

from tests.model.books import Books, Operation
from tests.model.model import Answer
from tests.model.picture import Picture

#: These bring the posture in line beside their answer, so that the same answer can hide a change.
_WITH_POSTURE = {"correct", "settle", "freeze_by_hand", "lift_by_hand", "override_by_hand"}

Asked = list[tuple[Operation, Answer]]


def explain(books: Books, asked: Asked, now: float, end: Picture) -> Books | None:
    """This function will find books that follow these by all that was asked, in some order.

    None where no order gives these answers and what the picture shows.
    """
    branches: list[tuple[int, Books]] = []
    unplaced: set[int] = set(range(len(asked)))
    for place, (operation, answer) in enumerate(asked):
        after = books.copy()
        if after.do(operation, now) != answer or not _is_on_the_way(after, end):
            continue
        if after == books and operation.name not in _WITH_POSTURE:
            # It is explained here, and changes nothing for the others wherever it stands.
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
