"""The one error a user causes: its text is a single line naming the value, what is allowed and the remedy."""


class UserError(ValueError):
    """A wrong input. `launch.py` and the `python -m` tools print its text alone and exit with 2.

    Raised wherever input from outside enters: arguments, data directories, weights files. Everything else that
    goes wrong is a defect and keeps its traceback.
    """
