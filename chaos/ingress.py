"""The ingress as production runs it, but for one limit that would keep a run from coming to rest.

A campaign's permission to dial that is not used holds its money for 20 s, and not for 180 s.
"""

from __future__ import annotations

from base.log import configure
from base.settings import load_settings
from ingress import app
from providers import registry

#: Seconds for which an unused permission holds.
PERMISSION_SECONDS = 20.0


def main() -> None:
    """Serve as `holdfast ingress` does."""
    settings = load_settings()
    configure(settings.log_level)
    app.serve(settings, registry.build(settings), permission_seconds=PERMISSION_SECONDS)


if __name__ == "__main__":
    main()
