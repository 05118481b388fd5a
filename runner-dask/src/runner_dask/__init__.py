"""Riverrun's Dask task runner: flows on a Dask cluster, temporary or running."""

from __future__ import annotations

from runner_dask._clients import get_dask_client
from runner_dask._runner import DaskTaskRunner

__all__ = ["DaskTaskRunner", "get_dask_client"]
