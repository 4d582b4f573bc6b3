"""The one exception by which a component refuses its options."""


class OptionError(Exception):
    """Option the component cannot work with; the message says what was expected, what to do."""
