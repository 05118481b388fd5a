"""`python -m riverrun`: the command line, where the `riverrun` command is not on the path."""

from __future__ import annotations

from riverrun._cli import main

if __name__ == "__main__":
    main(prog_name="python -m riverrun")
