"""Loaded once by the server from which tests fork processes: the first run of a process takes seconds to import."""

import torch
from sweeping import BASE

import nin

torch.set_num_threads(1)  # a fork cannot carry on with a thread pool
nin.train(BASE.replace(steps=1))
