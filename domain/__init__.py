"""The rules: what is allowed, and what follows from it.

Code in this package reads no clock, calls no provider and commits no transaction. The caller passes
`now` and a session.

docs/glossary.md defines the terms. Two more are used here:

- cause: the dispute, payment or call that a freeze is for. A job reads the cause again before it
  places or lifts the freeze.
- level: an amount of available money. A threshold and automatic top-up each have one.
"""
