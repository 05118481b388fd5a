"""A deterministic simulation of executors, with programs that are drawn and a reference that says what is right.

========================  ==========================================================================
`_world`, `_threads`      threads, locks and time, of which a seed decides who goes on
`_cluster`                executors for both contracts, and the faults that they may have
`_bodies`, `_programs`    tasks, flows as data, and a generator of them
`_flow`                   runs a program, and keeps what can be seen from outside
`_reference`              says which states, values and attempts are right
`_check`                  the invariants
========================  ==========================================================================
"""
