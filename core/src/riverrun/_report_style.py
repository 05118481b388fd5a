"""How the report looks, on a light and on a dark screen."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --line: #8884; --completed: #2e7d4f; --failed: #c0392b; --crashed: #8e3b8e;
  --cancelled: #8a6d1f; --idle: #6b7280; --running: #2563a8; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; font-weight: 600; } h1 em { font-style: normal; } h2 { font-size: 1.1rem; margin-top: 2rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.5rem; }
dt { opacity: .7; } dd { margin: 0; overflow-wrap: anywhere; }
ul { list-style: none; padding: 0; } .counts { display: flex; flex-wrap: wrap; gap: .4rem 1.5rem; }
.badge { color: #fff; border-radius: .3rem; padding: .1rem .5rem; font-size: .8rem; white-space: nowrap; }
.failures li { border-left: 3px solid var(--failed); padding-left: .8rem; margin-bottom: .8rem; }
pre { margin: .3rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
svg { width: 100%; display: block; border: solid var(--line); border-width: 0 1px; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; opacity: .7; font-weight: 500; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); vertical-align: top; white-space: nowrap; }
td:first-child { min-width: 12rem; } td:first-child, td:last-child { white-space: normal; overflow-wrap: anywhere; }
.completed { background: var(--completed); fill: var(--completed); }
.failed { background: var(--failed); fill: var(--failed); }
.crashed { background: var(--crashed); fill: var(--crashed); }
.cancelled { background: var(--cancelled); fill: var(--cancelled); }
.running { background: var(--running); fill: var(--running); }
.not-ready, .pending { background: var(--idle); fill: var(--idle); }
"""
