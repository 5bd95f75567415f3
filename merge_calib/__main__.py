"""`python -m merge_calib` is `merge-calib`."""

from merge_calib.cli.main import run

run()
