"""One optimiser step: the same from one batch, micro-batches or several workers."""

import math
import multiprocessing
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR
from torch.testing import assert_close

from ulsdram_core.fit.losses import ExtractionLoss, LossConfig
from ulsdram_core.fit.step import TrainStep
from ulsdram_core.pairs import RangeConfig


@pytest.fixture
def make_step(parts_of):
    """A step of plain gradient descent on a fresh copy of the same model."""

    def make(kinds=("tir",), clip=1e9, **options):
        model = parts_of(*kinds).model.eval()  # no dropout
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        loss = ExtractionLoss(LossConfig(), RangeConfig(max_wrong=2))
        schedule = LambdaLR(optimizer, lambda _: 1.0)
        return TrainStep(model, loss, optimizer, schedule, clip, **options)

    return make


@pytest.fixture
def examples(parts_of, examples_of, products):
    return examples_of(parts_of("tir"), products)


def state(step):
    return {name: p.detach().clone() for name, p in step.model.named_parameters()}


def assert_same(found, wanted):
    for name, tensor in wanted.items():
        assert_close(found[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    "kinds", [("tir",), ("gated", "dynet", "crf"), ("none", "none", "softmax")]
)
def test_micro_batches_equal_one_batch(make_step, examples, collated, kinds):
    whole, parts = make_step(kinds), make_step(kinds)
    one = whole([collated(examples)])
    two = parts([collated(examples[:3]), collated(examples[3:4]), collated(examples[4:])])
    assert two.num_terms == one.num_terms
    assert two.loss == pytest.approx(one.loss, rel=1e-5)
    assert two.tag_loss == pytest.approx(one.tag_loss, rel=1e-5)
    assert two.gradient_norm == pytest.approx(one.gradient_norm, rel=1e-4)
    assert_same(state(parts), state(whole))


def test_two_workers_equal_one(make_step, examples, collated):
    """Emulates DistributedDataParallel: gradients are averaged, numbers are summed."""
    whole = make_step()
    wanted = whole([collated(examples)])
    shards = (examples[:4], examples[4:])
    sums = []
    for shard in shards:
        make_step(reduce=lambda numbers: sums.append(numbers) or numbers)([collated(shard)])
    totals = [sum(column) for column in zip(*sums, strict=True)]
    worker = make_step(world_size=2, reduce=lambda _: totals)
    # what all-reduce leaves in .grad: the mean of the two workers' summed gradients
    both = []
    for shard in shards:
        worker.model.zero_grad()
        worker.loss(worker.model, collated(shard)).total.backward()
        both.append({n: p.grad for n, p in worker.model.named_parameters() if p.grad is not None})
    for name, parameter in worker.model.named_parameters():
        found = [grads[name] for grads in both if name in grads]
        parameter.grad = sum(found) / 2 if found else None
    norm = worker._apply(totals[-1])
    assert norm == pytest.approx(wanted.gradient_norm, rel=1e-4)
    assert_same(state(worker), state(whole))


def test_clipping_bounds_the_change(make_step, examples, collated):
    free, clipped = make_step(), make_step(clip=1e-3)
    start = state(free)
    norm = free([collated(examples)]).gradient_norm
    assert norm > 1e-3
    assert clipped([collated(examples)]).gradient_norm == pytest.approx(norm, rel=1e-5)
    for name, tensor in state(clipped).items():
        moved, free_move = tensor - start[name], state(free)[name] - start[name]
        assert_close(moved, free_move * 1e-3 / norm, rtol=0.05, atol=1e-7)


@pytest.mark.parametrize(("part", "bad"), [("head", math.nan), ("tagger", math.inf)])
def test_a_gradient_that_is_not_finite_stops_before_the_weights(
    make_step, examples, collated, part, bad
):
    step = make_step()
    getattr(step.model, part).score.bias.data[0] = bad
    start = state(step)
    with pytest.raises(FloatingPointError, match="lower the learning rates"):
        step([collated(examples)])
    for name, tensor in state(step).items():
        assert_close(tensor, start[name], equal_nan=True)


def test_bf16_steps_stay_close(make_step, examples, collated):
    exact, rough = make_step(), make_step(precision="bf16")
    one, other = exact([collated(examples)]), rough([collated(examples)])
    assert other.loss == pytest.approx(one.loss, rel=0.05)
    assert all(p.dtype == torch.float32 for p in rough.model.parameters())


def _work(rank, folder, make, shards, send):
    """One worker of two: a step on its shard, under DistributedDataParallel."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)

    def add_up(numbers):
        totals = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(totals)
        return totals.tolist()

    step = make(world_size=2, reduce=add_up)
    model = step.model
    step.model = DistributedDataParallel(model, find_unused_parameters=True)
    results = [step(batches) for batches in shards[rank]]
    dist.destroy_process_group()
    weights = {name: p.detach().numpy() for name, p in model.named_parameters()}
    send.put((rank, [r.loss for r in results], weights))


@pytest.mark.parametrize("kinds", [("tir",), ("none", "dynet", "softmax")])
def test_data_parallel_workers_equal_one(make_step, examples, collated, tmp_path, kinds):
    """Two processes, two micro-batches each; one has no picture, another no pair at all."""
    bare = [replace(e, pictures=(), gold=()) for e in examples[:3]]
    batches = [collated(bare), *(collated(examples[i : i + 4]) for i in (0, 4, 8))]
    whole = make_step(kinds)
    whole.loss = ExtractionLoss(LossConfig(), RangeConfig(max_wrong=0))
    wanted = [whole(batches).loss, whole(batches[::-1]).loss]

    def make(**options):
        step = make_step(kinds, **options)
        step.loss = ExtractionLoss(LossConfig(), RangeConfig(max_wrong=0))
        return step

    shards = [[batches[:2], batches[2:]], [batches[2:], batches[:2]]]
    fork = multiprocessing.get_context("fork")
    send = fork.Queue()
    workers = [
        fork.Process(target=_work, args=(rank, tmp_path, make, shards, send)) for rank in (0, 1)
    ]
    for worker in workers:
        worker.start()
    found = [send.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode == 0
    for _, losses, weights in found:
        assert losses == pytest.approx(wanted, rel=1e-4)
        for name, tensor in state(whole).items():
            assert_close(torch.from_numpy(weights[name]), tensor, rtol=1e-4, atol=1e-5, msg=name)
