"""Run a command with DATABASE_URL and REDIS_URL of Debian's servers.

    python -m tests.on_debian ./run test

The servers are PostgreSQL 15 and Redis 7. They start on private sockets with fresh data, and are
removed afterwards. If PgBouncer is installed, the tests reach PostgreSQL through it. The exit
status is the command's.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support import pooler
from tests.support.servers import debian_servers, debian_servers_missing


def main() -> int:
    if missing := debian_servers_missing():
        print(f"not installed here, so not run on Debian's servers: {missing}")
        return 0
    with debian_servers() as urls:
        env = {**os.environ, "DATABASE_URL": urls.owner_url, "REDIS_URL": urls.redis_url}
        if missing := pooler.missing():
            print(f"not installed here, so PostgreSQL is reached directly: {missing}")
        else:
            env |= pooler.WANTED
        return subprocess.run(sys.argv[1:], env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
