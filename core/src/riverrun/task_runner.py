"""Only here for those who miss the plural: the module is `riverrun.task_runners`."""

# Without `name=`, because `from riverrun import task_runner` would then swallow the text.
raise ModuleNotFoundError("No module named 'riverrun.task_runner'; did you mean 'riverrun.task_runners'?")
