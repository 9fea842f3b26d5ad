"""The database's address, as SQLAlchemy and as libpq read it."""

from __future__ import annotations


def sqlalchemy_url(url: str) -> str:
    """This function will name the driver in a plain postgresql:// address."""
    for plain in ("postgresql://", "postgres://"):
        if url.startswith(plain):
            return "postgresql+psycopg://" + url.removeprefix(plain)
    return url


def driver_url(url: str) -> str:
    """This function will give the address as libpq reads it, without SQLAlchemy's driver name."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)
