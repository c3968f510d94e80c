import copy
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from eclip_in_memory import pretrain

from ulsdram_core.eclip.contrast import contrast
from ulsdram_core.eclip.pairs import collate_pairs
from ulsdram_core.eclip.pretraining import PretrainConfig
from ulsdram_core.eclip.streams import MultiStream, check_norms
from ulsdram_core.eclip.targets import TargetConfig
from ulsdram_core.eclip.workers import Workers

TOLERANCE = 1e-5
TARGETS = TargetConfig()


def gradients_of(model) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def monolithic(model, streams) -> float:
    """One graph over everything: no cached gradients, no second forward pass."""
    model.zero_grad()
    vectors = [model(stream.batch) for stream in streams]
    texts = torch.cat([v.text_BE for v in vectors])
    pictures = torch.cat([v.picture_BE for v in vectors])
    catalogs = torch.cat([s.catalog_B for s in streams])
    labels = TARGETS.rows(catalogs, 0, len(catalogs))
    loss = contrast(texts, pictures, model.scale(), labels, 0) / len(catalogs)
    loss.backward()
    return float(loss)


def assert_equal_gradients(found, wanted) -> None:
    assert found.keys() == wanted.keys()
    largest = max(float(g.abs().max()) for g in wanted.values())
    assert largest > 1e-3
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=TOLERANCE * largest)


@pytest.mark.parametrize("num_streams", [1, 2, 7])
def test_the_gradient_is_the_monolithic_one_with_dropout(parts, pairs, cut, num_streams):
    model = parts.model.train()
    streams = cut(pairs, num_streams)
    assert len(streams) == num_streams
    torch.manual_seed(3)
    wanted_loss = monolithic(model, streams)
    wanted, wanted_state = gradients_of(model), torch.get_rng_state()
    model.zero_grad()
    torch.manual_seed(3)
    found = MultiStream(model, TARGETS).backward(streams)
    assert found.loss == pytest.approx(wanted_loss, rel=1e-5)
    assert found.num_pairs == len(pairs)
    assert_equal_gradients(gradients_of(model), wanted)
    assert torch.equal(torch.get_rng_state(), wanted_state)


@pytest.mark.parametrize("num_streams", [2, 7])
def test_without_dropout_streams_equal_one_batch(parts_of, pairs, cut, num_streams):
    text = {"hidden": 32, "layers": 2, "heads": 2, "dropout": 0.0}
    model = parts_of(model={"text_encoder": text}).model.train()
    monolithic(model, cut(pairs, 1))
    wanted = gradients_of(model)
    model.zero_grad()
    MultiStream(model, TARGETS).backward(cut(pairs, num_streams))
    assert_equal_gradients(gradients_of(model), wanted)


def test_live_batch_norms_are_refused(parts_of, pairs, cut):
    image = {"architecture": "tiny", "width": 8, "freeze_batch_norm": False}
    model = parts_of(model={"image_encoder": image}).model.train()
    with pytest.raises(ValueError, match="freeze_batch_norm"):
        MultiStream(model, TARGETS).backward(cut(pairs, 2))
    MultiStream(model, TARGETS).backward(cut(pairs, 1))
    with pytest.raises(ValueError, match="2 workers"):
        MultiStream(model, TARGETS, workers=Workers(0, 2)).backward(cut(pairs, 1))


@pytest.mark.parametrize(("streams", "workers"), [(2, 1), (1, 2)])
def test_live_batch_norms_are_refused_before_training(parts_of, streams, workers):
    image = {"architecture": "tiny", "width": 8, "freeze_batch_norm": False}
    live = parts_of(model={"image_encoder": image}).model.eval()
    with pytest.raises(ValueError, match=f"{streams} streams, {workers} workers"):
        check_norms(live, num_streams=streams, num_workers=workers)
    assert not live.training
    check_norms(live, num_streams=1, num_workers=1)
    check_norms(parts_of().model, num_streams=streams, num_workers=workers)


def test_pretraining_that_may_grow_refuses_live_batch_norms(parts_of, pairs):
    image = {"architecture": "tiny", "width": 8, "freeze_batch_norm": False}
    with pytest.raises(ValueError, match="freeze_batch_norm"):
        next(pretrain(parts_of(model={"image_encoder": image}), pairs, PretrainConfig()))


def work(rank: int, world: int, port: int, model, streams, results) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world
    )
    try:
        torch.manual_seed(rank)
        loss = MultiStream(model, TARGETS, workers=Workers(rank, world)).backward(streams[rank])
        results[rank] = (loss, {n: g.numpy() for n, g in gradients_of(model).items()})
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("cuts", [(3, 1), (2, 0)])
def test_two_workers_equal_one(parts, pairs, cut, cuts):
    """Of different numbers of pairs and streams, dropout on; one may have none at all."""
    model = parts.model.train()
    shares = [pairs[:37], pairs[37:]] if cuts[1] else [pairs, []]
    streams = [cut(share, n) if n else [] for share, n in zip(shares, cuts, strict=True)]
    model.zero_grad()
    wanted_loss = _monolithic_with_each_workers_chance(model, streams)
    wanted = gradients_of(model)
    model.zero_grad()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = mp.get_context("fork")
    with context.Manager() as manager:
        results = manager.dict()
        processes = [
            context.Process(
                target=work, args=(rank, 2, port, copy.deepcopy(model), streams, results)
            )
            for rank in range(2)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
        assert [p.exitcode for p in processes] == [0, 0]
        found = dict(results)
    for rank in range(2):
        loss, gradients = found[rank]
        assert loss.num_pairs == len(pairs)
        assert loss.loss == pytest.approx(wanted_loss, rel=1e-5)
        assert_equal_gradients({n: torch.from_numpy(g) for n, g in gradients.items()}, wanted)


def _monolithic_with_each_workers_chance(model, streams) -> float:
    texts, pictures, catalogs = [], [], []
    for rank, own in enumerate(streams):
        torch.manual_seed(rank)
        for stream in own:
            vectors = model(stream.batch)
            texts.append(vectors.text_BE)
            pictures.append(vectors.picture_BE)
            catalogs.append(stream.catalog_B)
    numbers = torch.cat(catalogs)
    labels = TARGETS.rows(numbers, 0, len(numbers))
    scale = model.scale()
    loss = contrast(torch.cat(texts), torch.cat(pictures), scale, labels, 0) / len(numbers)
    loss.backward()
    return float(loss)


def test_the_temperature_is_clipped_and_does_not_decay(parts_of):
    from ulsdram_core.fit.optim import OptimConfig

    parts = parts_of(model={"max_scale": 20.0})
    with torch.no_grad():
        parts.model.log_scale.fill_(5.0)
    parts.model.clip_scale()
    assert float(parts.model.scale()) == pytest.approx(20.0)
    optimizer = OptimConfig().optimizer(parts.model)
    names = {id(p): name for name, p in parts.model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            small = parameter.dim() <= 1
            assert (group["weight_decay"] == 0) == small, names[id(parameter)]
    known = {id(p) for g in optimizer.param_groups for p in g["params"]}
    assert known == {id(p) for p in parts.model.parameters() if p.requires_grad}


def test_a_picture_of_two_listings_is_encoded_once(pairs):
    both = [pairs[0], pairs[0]]
    assert len(collate_pairs(both, picture_size=32).batch.pictures_K3SS) == 1
