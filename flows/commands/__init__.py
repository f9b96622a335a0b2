"""One file per command of `tulu`, each listed in `flows/cli.py` and loaded when it is called.

What a command needs is imported inside its function, so that its `--help` stays instant.
"""
