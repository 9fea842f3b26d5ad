"""Keeps the sandbox's resources by ID, and stores them in a file across restarts.

A resource is written before any answer or webhook can name it. Without a file, a restart loses all
resources.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, ValuesView
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

#: Version of the file's format. Change it if an older sandbox cannot read what a newer one writes.
FORMAT = 1


class StateUnreadable(Exception):
    """The sandbox's file is damaged, in use, or of another version."""

    def __init__(self, path: Path, why: object) -> None:
        super().__init__(
            f"cannot use {path}: {why}; delete this file to start with an empty sandbox"
        )


def _unchanged(value: Any) -> Any:
    return value


class Shelf(Mapping[str, T]):
    """Resources of one kind by ID, oldest first.

    The shelf notes each resource that is stored or looked up by ID, because its reader may change
    it. Never change a resource from `values()`.
    """

    def __init__(
        self,
        kind: str,
        pack: Callable[[T], Any] = _unchanged,
        unpack: Callable[[Any], T] = _unchanged,
    ) -> None:
        self.kind = kind
        self._pack = pack
        self._unpack = unpack
        self._items: dict[str, T] = {}
        #: IDs of the resources that may differ from the file, in the order of their first change.
        self._changed_ids: dict[str, None] = {}
        self._written_hashes: dict[str, int] = {}

    def __getitem__(self, key: str) -> T:
        resource = self._items[key]
        self.note(key)
        return resource

    def __setitem__(self, key: str, value: T) -> None:
        self._items[key] = value
        self.note(key)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def values(self) -> ValuesView[T]:
        """Return all resources. The caller must not change them."""
        return self._items.values()

    def newest(self, matches: Callable[[T], bool]) -> T | None:
        """Look up the newest resource for which `matches` is true; None if there is none."""
        for key in reversed(self._items):
            if matches(self._items[key]):
                return self[key]
        return None

    def note(self, key: str) -> None:
        """Note that the resource may have changed."""
        self._changed_ids[key] = None

    def take_changes(self) -> Iterator[tuple[str, str, str]]:
        """Yield kind, ID and JSON of each noted resource that differs from the file."""
        changed_ids, self._changed_ids = self._changed_ids, {}
        for key in changed_ids:
            body = json.dumps(self._pack(self._items[key]), separators=(",", ":"))
            if self._written_hashes.get(key) != (body_hash := hash(body)):
                self._written_hashes[key] = body_hash
                yield self.kind, key, body

    def forget_changes(self) -> None:
        """Forget which resources were noted."""
        self._changed_ids.clear()

    def restore(self, key: str, body: str) -> None:
        """Restore a resource from its ID and JSON in the file."""
        self._items[key] = self._unpack(json.loads(body))
        self._written_hashes[key] = hash(body)


class Store:
    """The file that stores the resources; without a path, no resource is stored.

    Raises: StateUnreadable if the file cannot be used.
    """

    def __init__(self, path: Path | None = None, *, wait_seconds: float = 5) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None
        if path is not None:
            try:
                self._database = _open_database(path, wait_seconds)
            except sqlite3.Error as error:
                raise StateUnreadable(path, error) from None

    def load(self, shelves: Iterable[Shelf[Any]]) -> None:
        """Restore all resources from the file. Raises: StateUnreadable."""
        if self._database is None or self._path is None:
            return
        try:
            for shelf in shelves:
                for key, body in self._database.execute(
                    "SELECT id, body FROM resources WHERE kind = ? ORDER BY rowid", (shelf.kind,)
                ):
                    shelf.restore(key, body)
        except sqlite3.Error as error:
            raise StateUnreadable(self._path, error) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            why = f"{shelf.kind} {key} has another format"
            raise StateUnreadable(self._path, why) from None

    def save(self, shelves: Iterable[Shelf[Any]]) -> None:
        """Write the changed resources in one transaction.

        If the process is killed, the file keeps all of them. If the machine loses power, the last
        writes may be lost.
        """
        if self._database is None:
            for shelf in shelves:
                shelf.forget_changes()
            return
        changes = [change for shelf in shelves for change in shelf.take_changes()]
        if changes:
            with self._database:
                self._database.executemany(
                    "INSERT INTO resources (kind, id, body) VALUES (?, ?, ?)"
                    " ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body",
                    changes,
                )

    def clear(self) -> None:
        """Delete everything."""
        if self._database is not None:
            with self._database:
                self._database.execute("DELETE FROM resources")

    def close(self) -> None:
        """Close the file."""
        if self._database is not None:
            self._database.close()


def epoch_from_monotonic(monotonic: float | None) -> float | None:
    """Convert monotonic seconds, which a reboot resets, into seconds since 1970."""
    return None if monotonic is None else time.time() - (time.monotonic() - monotonic)


def monotonic_from_epoch(epoch: float | None) -> float | None:
    """Convert seconds since 1970 into monotonic seconds."""
    return None if epoch is None else time.monotonic() - (time.time() - epoch)


def _open_database(path: Path, wait_seconds: float) -> sqlite3.Connection:
    """Open the file, or create it. Only one process at a time may use it."""
    path.touch(mode=0o600)
    # A killed sandbox may still hold the file when the next one starts.
    database = sqlite3.connect(path, timeout=wait_seconds)
    try:
        _lock_and_create_table(database)
    except sqlite3.Error:
        database.close()
        raise
    return database


def _lock_and_create_table(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    with database:
        database.execute("BEGIN IMMEDIATE")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables and version != FORMAT:
            raise sqlite3.DatabaseError(f"its format is {version}, and this sandbox's is {FORMAT}")
        database.execute(
            "CREATE TABLE IF NOT EXISTS resources"
            " (kind TEXT, id TEXT, body TEXT NOT NULL, PRIMARY KEY (kind, id))"
        )
        database.execute(f"PRAGMA user_version = {FORMAT}")
