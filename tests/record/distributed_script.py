"""One of several processes that train together; prints what it should be recorded as, as JSON."""

import copy
import hashlib
import json
import math
import sys
import time

import torch
import torch.distributed as dist
from torch import nn

import gradscope

CLIPPED = 2
"""The step whose gradient is cut to half its norm."""

torch.set_num_threads(1)
dist.init_process_group("gloo")
how, root, every = sys.argv[1:4]
EVERY = int(every) if every.isdecimal() else every
rank, size = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
plain = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
reference = copy.deepcopy(plain)
if how == "ddp":
    model = nn.parallel.DistributedDataParallel(plain)
else:
    from torch.distributed.fsdp import fully_shard

    fully_shard(plain[0])
    model = fully_shard(plain)
scope = (
    None
    if EVERY == "untracked"
    else gradscope.track(model, run="run", root=root, every=EVERY, budget=0.5, quiet=True)
)
optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
expect = torch.optim.SGD(reference.parameters(), lr=0.1)
data = torch.Generator().manual_seed(3)
told = []
for turn in range(600 if EVERY == "auto" else 3):
    time.sleep(0.01 if EVERY == "auto" else 0.0)  # an announcement takes its time
    x = torch.randn(size * 5, 6, generator=data)
    own = []
    for part in x.split(5):
        grads = torch.autograd.grad(reference(part).square().mean(), [*reference.parameters()])
        own.append(float(torch.cat([g.flatten() for g in grads]).double().norm()))
    expect.zero_grad()
    reference(x).square().mean().backward()
    before = {n: p.detach().clone() for n, p in reference.named_parameters()}
    optimizer.zero_grad()
    model(x.split(5)[rank]).square().mean().backward()
    if turn == CLIPPED:
        total = float(nn.utils.clip_grad_norm_(reference.parameters(), math.inf))
        for net in (plain, reference):
            nn.utils.clip_grad_norm_(net.parameters(), total / 2)
    optimizer.step()
    expect.step()
    told.append(
        {
            "own": own,
            **{
                n: [
                    float(p.grad.double().norm()),
                    float(p.grad.abs().max()),
                    float(before[n].double().norm()),
                    float((p.detach() - before[n]).double().norm()),
                ]
                for n, p in reference.named_parameters()
            },
        }
    )
if scope:
    scope.close()
weights = [p.to_local() if hasattr(p, "to_local") else p for p in plain.parameters()]
digest = hashlib.sha256(b"".join(w.detach().numpy().tobytes() for w in weights)).hexdigest()
sys.stdout.write(f"WEIGHTS {rank} {digest}\n")
sys.stdout.flush()
if rank == 0:
    sys.stdout.write(f"EXPECTED {json.dumps(told)}\n")
dist.barrier()
dist.destroy_process_group()
