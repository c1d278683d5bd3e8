"""What all tests share: one thread, as in every worker, so that numbers can be compared bitwise."""

import torch

torch.set_num_threads(1)
