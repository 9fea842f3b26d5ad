"""The production ingress with one shorter limit, so that a run reaches rest.

An unused permission to dial a campaign contact holds money for 20 s instead of 180 s.
"""

from __future__ import annotations

from base.log import configure
from base.settings import load_settings
from ingress import app
from providers import registry

LIMITS = app.IngressLimits(permission_seconds=20.0)


def main() -> None:
    """Serve as `holdfast ingress` does, with the shorter limit."""
    settings = load_settings()
    configure(settings.log_level, settings.log_format)
    app.serve(settings, registry.build(settings), LIMITS)


if __name__ == "__main__":
    main()
