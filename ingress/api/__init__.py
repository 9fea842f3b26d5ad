"""The JSON API for the company's backend: bearer tokens in, JSON or problems out."""
