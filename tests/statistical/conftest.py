"""Statistical runs are commands: pytest, which looks for doctests in every module, passes them by."""

collect_ignore_glob = ["*.py"]
