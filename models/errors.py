"""The one exception by which a component refuses its options."""


class OptionError(Exception):
    """An option that the chosen component cannot work with: which, what was expected, what to do.
    """
