"""Convert the database's address to the forms that SQLAlchemy and libpq accept."""

from __future__ import annotations


def sqlalchemy_url(url: str) -> str:
    """Add the driver's name to a plain postgresql:// address, for SQLAlchemy."""
    for plain in ("postgresql://", "postgres://"):
        if url.startswith(plain):
            return "postgresql+psycopg://" + url.removeprefix(plain)
    return url


def driver_url(url: str) -> str:
    """Remove SQLAlchemy's driver name from the address, for libpq."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)
