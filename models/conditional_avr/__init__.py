"""Conditional AVR: the missing side alone is generated, given the side that is there and the
question.

`process.py`: from the end state to the clean feature. `denoisers.py`: the networks. `method.py`:
what is missing, what is answered on.
"""
