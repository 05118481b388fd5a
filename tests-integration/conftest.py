"""What pytest leaves alone here: the projects in `plugins` have tests of their own, which run where they are installed."""

collect_ignore = ["plugins"]
