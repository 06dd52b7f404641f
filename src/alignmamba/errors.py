"""Every error that a user's input can cause; the command line prints it as one line and ends with code 2."""


class AlignMambaError(Exception):
    """Root of the errors that name a wrong input: the file or field, what was found and what was expected."""


class ShapeError(AlignMambaError, ValueError):
    """A tensor's shape, dtype or device does not fit the operator or the model it was given to."""


class ConfigError(AlignMambaError, ValueError):
    """A configuration names an unknown key or holds a value out of range."""


class DataError(AlignMambaError, ValueError):
    """A corpus, an array or a batch is malformed, inconsistent, damaged or not finite."""


class CheckpointError(AlignMambaError, ValueError):
    """A run directory, a checkpoint or a saved model cannot be used as asked."""


class BackendError(AlignMambaError, RuntimeError):
    """A backend asked for by name cannot serve the call; the message gives the reason."""


class TrainingError(AlignMambaError, RuntimeError):
    """Training cannot go on: a loss or gradient is not finite, or no optimiser step was taken."""
