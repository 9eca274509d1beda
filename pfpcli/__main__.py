"""`python -m pfpcli` is `pfp`."""

from __future__ import annotations

from pfpcli.cli.main import main

if __name__ == "__main__":
    main()
