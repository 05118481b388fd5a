"""The projects in `plugins` have tests of their own, which run where those are installed: pytest leaves them alone."""

collect_ignore = ["plugins"]
