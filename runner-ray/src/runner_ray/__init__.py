"""Riverrun's Ray task runner: flows on a Ray cluster, temporary or running."""

from __future__ import annotations

from runner_ray._remote_options import remote_options
from runner_ray._runner import RayTaskRunner

__all__ = ["RayTaskRunner", "remote_options"]
