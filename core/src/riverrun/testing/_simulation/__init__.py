"""A deterministic simulation of executors, with programs that are drawn and a reference that says what is right.

========================  ==========================================================================
`_world`, `_threads`      threads, locks and time, of which a seed decides who goes on
`_plan`                   what executors may do: drawn from the seed; and the journal of what they did
`_cluster`, `_pool`       executors for both contracts
`_runners`                task runners that have them
`_bodies`, `_programs`    tasks, flows as data, and a generator of them
`_flow`                   runs a program, and keeps what can be seen from outside
`_reference`              says which states, values and attempts are right
`_check`                  the invariants
`_finds`                  explores seeds; makes what is found small, and keeps it
`_simulation`             the same world for flows of one's own
========================  ==========================================================================
"""
