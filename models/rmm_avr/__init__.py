"""The paper in one folder. Read method.py, rmm.py, avr.py, layouts.py and diffusion.py, in this
order.

fast.py computes what diffusion.py says in less time; released.py holds the official code's choices.
Neither is needed to understand the method.
"""
