"""The documentation names only files and functions that exist."""

from __future__ import annotations

import importlib
import re

import pytest

from local import ROOT

PACKAGES = "base|benchmarks|chaos|cli|db|domain|ingress|local|providers|sandbox|tests|workers"
#: A path in backticks, with or without `.py`, and the name of something in that module.
NAMED = re.compile(rf"`((?:{PACKAGES})(?:/[a-z0-9_]+)+)(/|\.py|\.sql|\.lua)?(?:\.([A-Za-z_]+))?`")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_names_existing_files_and_functions(page):
    for path, ending, name in NAMED.findall(page.read_text()):
        file = ROOT / f"{path}{ending or '.py'}"
        assert file.exists() or (ROOT / path).is_dir(), path
        if name:
            assert hasattr(importlib.import_module(path.replace("/", ".")), name), f"{path}.{name}"


def test_suspension_is_followed_in_at_most_forty_files():
    text = (ROOT / "docs" / "architecture.md").read_text()
    section = text.split("### The files of one suspension")[1].split("\n#")[0]
    files = [path for path, ending, _ in NAMED.findall(section) if ending == ".py"]
    assert files
    assert len(files) == len(set(files)) <= 40
