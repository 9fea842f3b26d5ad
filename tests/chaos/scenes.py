"""A scene with one client, as the traffic's process builds it."""

from __future__ import annotations

from pathlib import Path

from chaos.scene import Scene
from tests.support.world import Urls


def make_scene(urls: Urls, folder: Path, control_url: str, *, holds: bool) -> Scene:
    """Build the traffic's scene. `holds`: whether calls reserve money."""
    client = {
        "organization_id": "org_1",
        "hot": True,
        "poor": False,
        "subscription_id": "I-1",
        "number_id": "n",
    }
    return Scene(
        {
            "seed": 1,
            "holds": holds,
            "clients": [client],
            "journal": str(folder / "journal"),
            "database_url": urls.app_url,
            "redis_url": urls.redis_url,
            "control_url": control_url,
        }
    )
