"""The user's faults: each error says what was given, what is allowed and where it was found."""


class MergeCalibError(Exception):
    """Anything a user can put right; the command line prints its message and exits with 1."""


class InputError(MergeCalibError):
    """A flag, a question file or a recipe that cannot be used."""


class CheckpointError(MergeCalibError):
    """A model folder that cannot be read, or two that cannot be merged."""


class ScoringError(MergeCalibError):
    """A model that cannot answer a task: letters of several tokens, non-finite logits."""


class RunDirectoryError(MergeCalibError):
    """A run directory that is damaged, in use, or holds another plan."""


class OutputError(MergeCalibError):
    """A file that could not be written, usually because the disk is full."""
