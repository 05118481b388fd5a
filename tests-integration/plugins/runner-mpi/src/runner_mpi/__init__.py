"""A task runner for Riverrun: tasks run on the ranks of an MPI job."""

from runner_mpi._runner import MPITaskRunner

__all__ = ["MPITaskRunner"]
