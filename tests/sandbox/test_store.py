"""The sandbox's file: what it keeps, in which order, and which files it refuses."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from sandbox.store import Shelf, StateUnreadable, Store


@pytest.fixture
def path(tmp_path):
    """A file with three resources, of which the first was changed last."""
    store = Store(tmp_path / "state.db")
    shelf: Shelf[dict] = Shelf("kind")
    for number in range(3):
        shelf[f"id-{number}"] = {"number": number}
    store.save([shelf])
    shelf["id-0"]["number"] = 9
    store.save([shelf])
    store.close()
    return tmp_path / "state.db"


def load(path, kind: str = "kind") -> Shelf[dict]:
    shelf: Shelf[dict] = Shelf(kind, unpack=lambda packed: {"number": packed["number"]})
    store = Store(path)
    try:
        store.load([shelf])
    finally:
        store.close()
    return shelf


def test_store_keeps_resources_in_their_order_with_their_last_values(path):
    assert [one["number"] for one in load(path).values()] == [9, 1, 2]
    assert len(load(path, "other kind")) == 0


def test_shelf_writes_only_what_was_looked_up_and_changed():
    shelf: Shelf[dict] = Shelf("kind")
    for number in range(3):
        shelf[f"id-{number}"] = {"number": number}
    assert len(list(shelf.take_changes())) == 3
    # When one is looked up, another one is changed, and all are read
    assert shelf.get("id-0") == {"number": 0}
    found = shelf.newest(lambda one: one["number"] == 1)
    assert found is not None
    found["number"] = 5
    assert len(list(shelf.values())) == 3
    # Then only the change is written, once
    assert list(shelf.take_changes()) == [("kind", "id-1", '{"number":5}')]
    assert list(shelf.take_changes()) == []


def damage(path) -> str:
    path.write_bytes(b"not a database " * 400)
    return "file is not a database"


def make_older(path) -> str:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA user_version = 0")
    return "its format is 0, and this sandbox's is 1"


def drop_a_field(path) -> str:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE resources SET body = '{}' WHERE id = 'id-1'")
    return "kind id-1 has another format"


def cut(path) -> str:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE resources SET body = '[' WHERE id = 'id-2'")
    return "kind id-2 has another format"


@pytest.mark.parametrize("spoil", [damage, make_older, drop_a_field, cut])
def test_store_refuses_a_file_that_it_cannot_read(path, spoil):
    why = spoil(path)
    with pytest.raises(StateUnreadable) as refused:
        load(path)
    assert str(refused.value) == (
        f"cannot use {path}: {why}; delete this file to start with an empty sandbox"
    )


def test_store_refuses_a_file_that_another_process_uses(path):
    first = Store(path)
    try:
        with pytest.raises(StateUnreadable, match="database is locked"):
            Store(path, wait_seconds=0)
    finally:
        first.close()
