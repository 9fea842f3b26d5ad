"""Tests of the room providers: real samples, and providers played by a server on loopback."""
