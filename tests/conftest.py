"""One thread for all tests: their tensors are tiny, and threads would cost more than they bring."""

import os

import torch

os.environ["OMP_NUM_THREADS"] = "1"          # for the commands that tests start
torch.set_num_threads(1)
