"""The paper in one folder. Read method.py, rmm.py, avr.py, layouts.py and diffusion.py, in this
order. fast.py and operations.py do what diffusion.py says in less time: read `Denoiser` for
`FastDenoiser`, `FeatureDiffusion` for `FastDiffusion`. released.py has the official code's choices.
"""
