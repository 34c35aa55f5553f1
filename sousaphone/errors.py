"""The error that a user causes: one line with the value, what is allowed and the remedy."""


class UserError(ValueError):
    """Invalid input: arguments, data directories, weights files.

    `launch.py` and the `python -m` tools print only its text and exit with 2; any other exception is a defect and
    keeps its traceback.
    """
