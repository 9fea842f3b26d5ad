"""Tests of the providers package, with real samples and a server on loopback."""
