"""Entry points are listed in pages, each organization's own only."""

from __future__ import annotations

from domain.calls.entry_points import EntryPointKind, add_entry_point
from domain.calls.setup_queries import list_entry_points
from tests.domain.support import ANN, T0
from tests.support.world import make_organization


def test_entry_points_are_listed_in_pages_without_gaps(shared, org):
    other = make_organization(shared)
    made = [(kind, f"{org[-8:]}-{end}") for kind in ("assistant", "phone_number") for end in "ab"]
    for owner, kind, name in [*((org, *one) for one in made), (other, "assistant", f"{other}-a")]:
        shared.run(
            lambda s, owner=owner, kind=kind, name=name: add_entry_point(
                s,
                owner,
                EntryPointKind(kind),
                name,
                assistant_id=None,
                brand_id=None,
                operator=ANN,
                now=T0,
            )
        )

    def listed(**more):
        page = shared.run(lambda s: list_entry_points(s, org, **more))
        return [(one.kind, one.external_id) for one in page]

    assert listed() == made
    assert listed(limit=3) == made[:3]
    assert listed(limit=3, after=made[2]) == made[3:]
    assert listed(after=made[3]) == []
