"""The training loop: exact resume after SIGKILL, determinism, faults, two processes against one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from torch import nn

from xai_course.data.batch import ArrayData
from xai_course.data.files import write_atomically
from xai_course.methods.base import CrossEntropy, Method
from xai_course.methods.hnc import HNC
from xai_course.nets.convnets import GapClassifier
from xai_course.preset import GaussianRamps, Preset, make_optimizer, make_schedule
from xai_course.train import epoch_order, fit


def toy(n: int = 48) -> ArrayData:
    g = torch.Generator().manual_seed(0)
    return ArrayData(torch.rand(n, 1, 8, 8, generator=g), torch.randint(0, 3, (n,), generator=g))


def net(batch_norm: bool = True) -> GapClassifier:
    torch.manual_seed(5)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2)]
    return GapClassifier(nn.Sequential(*layers if batch_norm else [layers[0], layers[2]]), nn.Linear(4, 3))


def weights(method: nn.Module) -> torch.Tensor:
    return torch.cat([v.flatten().double() for v in method.state_dict().values()])


def shift(batch, generator):
    return batch._replace(images=batch.images + torch.randn(batch.images.shape, generator=generator))


def without_seconds(history: list[dict]) -> list[dict]:
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in history]


PRESET = Preset(epochs=3, batch_size=10, schedule="one_cycle", lr=0.01, ema=0.9, checkpoint_seconds=0.0)


def test_loss_falls_and_history_names_every_term():
    class Named(CrossEntropy):
        def losses(self, batch, clock):
            for terms in super().losses(batch, clock):
                yield {**terms, "twice": 2 * terms["total"]}

    history = fit(Named(net(False)), toy(), Preset(epochs=30, batch_size=16, lr=0.05))
    assert history[-1]["total"] < history[0]["total"]
    assert history[0]["twice"] == pytest.approx(2 * history[0]["total"], rel=1e-5)
    assert len(history) == 30 and {"seconds", "lr"} <= history[0].keys()


def test_same_seed_same_weights_other_seed_other_weights():
    runs = []
    for seed in (0, 0, 1):
        method = CrossEntropy(net())
        fit(method, toy(), PRESET, seed=seed, augment=shift)
        runs.append(weights(method))
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("schedule", ["constant", "steps", "one_cycle", "cosine", "gaussian_ramps", "gaussian_steps"])
def test_interrupted_between_any_two_steps_resumes_bit_for_bit(tmp_path, schedule):
    steps = {"milestones": (1,)} if "steps" in schedule else {}
    steps |= {} if schedule == "steps" else {"ramp_up": 0.5, "ramp_down": 0.5}
    preset = Preset(epochs=2, batch_size=16, schedule=schedule, lr=0.01, checkpoint_seconds=0.0, **steps)
    whole = CrossEntropy(net())
    expected = without_seconds(fit(whole, toy(), preset, augment=shift))

    class Stop(Exception):
        pass

    for stop_at in range(1, 6):

        class Interrupted(CrossEntropy):
            def losses(self, batch, clock, stop_at=stop_at):
                if clock.step == stop_at:
                    raise Stop
                yield from super().losses(batch, clock)

        first, out = Interrupted(net()), tmp_path / str(stop_at)
        Interrupted.__name__ = "CrossEntropy"
        with pytest.raises(Stop):
            fit(first, toy(), preset, out=out, augment=shift)
        second = CrossEntropy(net())
        found = without_seconds(fit(second, toy(), preset, out=out, augment=shift))
        assert torch.equal(weights(whole), weights(second)), stop_at
        assert found == expected  # what was summed before the stop counts too


def test_sigkill_in_mid_epoch_then_resume_equals_an_uninterrupted_run(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent("""
        import sys, time, torch
        sys.path.insert(0, sys.argv[1])
        from test_train import PRESET, CrossEntropy, fit, net, shift, toy, weights
        class Slow(CrossEntropy):
            def losses(self, batch, clock):
                time.sleep(float(sys.argv[4]))
                yield from super().losses(batch, clock)
        Slow.__name__ = "CrossEntropy"
        method = Slow(net())
        fit(method, toy(), PRESET, out=sys.argv[2], augment=shift)
        torch.save(weights(method), sys.argv[3])
        """)
    )

    def start(out, sleep):
        here = os.path.dirname(__file__)
        command = [sys.executable, str(script), here, str(tmp_path / out), str(tmp_path / f"{out}.pt"), str(sleep)]
        return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})

    killed = start("killed", 0.3)
    checkpoint, deadline = tmp_path / "killed" / "checkpoint.pt", time.monotonic() + 120
    seen = []  # two different checkpoints: the second lies inside an epoch
    while len(seen) < 2 and time.monotonic() < deadline:
        if checkpoint.exists() and checkpoint.stat().st_mtime_ns not in seen:
            seen.append(checkpoint.stat().st_mtime_ns)
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    step = torch.load(checkpoint, weights_only=True)["progress"]
    assert 0 < step["step"] < 4, step
    assert start("killed", 0).wait() == 0 and start("whole", 0).wait() == 0
    assert torch.equal(torch.load(tmp_path / "killed.pt"), torch.load(tmp_path / "whole.pt"))


def test_a_checkpoint_is_not_resumed_with_other_settings_or_images(tmp_path):
    """A sweep over a method's weight with one folder must not get the first weights for every value."""
    out, data = tmp_path / "run", toy()
    fit(HNC(net(), balance=0.1, keep_top=1), data, PRESET, out=out)
    with pytest.raises(ValueError, match="another run .differs in HNC.balance"):
        fit(HNC(net(), balance=5.0, keep_top=1), data, PRESET, out=out)
    with pytest.raises(ValueError, match="another run .differs in data"):
        fit(HNC(net(), balance=0.1, keep_top=1), ArrayData(1 - data.images, data.labels), PRESET, out=out)
    with pytest.raises(ValueError, match="another run .differs in .*CrossEntropy"):
        fit(CrossEntropy(net()), data, PRESET, out=out)
    torch.manual_seed(8)  # another start is not another run: nobody has to seed it to go on
    other = HNC(GapClassifier(net().body, nn.Linear(4, 3)), balance=0.1, keep_top=1)
    fit(other, data, PRESET, out=out)


def updates(preset: Preset, method=None, data=None) -> torch.Tensor:
    method = method or CrossEntropy(net(False))
    before = weights(method)
    fit(method, data or toy(), preset)
    return weights(method) - before


def test_clipping_decay_momentum_and_limit_do_what_they_say():
    sgd = {"epochs": 1, "batch_size": 48, "optimizer": "sgd", "momentum": 0.0, "lr": 1.0}  # one step
    free = updates(Preset(**sgd))
    clipped = updates(Preset(**sgd, clip_norm=0.01))
    assert free.norm() > 0.02 and clipped.norm() == pytest.approx(0.01, rel=1e-3)
    assert torch.allclose(clipped / clipped.norm(), free / free.norm(), atol=1e-5)
    decayed = updates(Preset(**sgd, weight_decay=0.1))
    assert torch.allclose(decayed, free - 0.1 * weights(CrossEntropy(net(False))), atol=1e-6)
    adam = {"epochs": 1, "batch_size": 16, "lr": 0.01}
    assert not torch.allclose(updates(Preset(**adam, weight_decay=0.1)), updates(Preset(**adam)))
    group = make_optimizer(CrossEntropy(net()).parameter_groups(), Preset(momentum=0.5)).param_groups[0]
    assert group["betas"] == (0.5, 0.999)
    few = ArrayData(toy().images[:16], toy().labels[:16])
    sgd["batch_size"] = 16
    assert torch.equal(updates(Preset(**sgd, limit=16)), updates(Preset(**sgd), data=few))


def test_cosine_falls_with_every_step_and_one_cycle_keeps_each_groups_rate():
    method = CrossEntropy(net())
    preset = Preset(epochs=2, schedule="cosine", lr=0.1)
    optimizer = make_optimizer(method.parameter_groups(), preset)
    schedule = make_schedule(optimizer, preset, steps_per_epoch=4)
    rates = []
    for _ in range(8):
        optimizer.step()
        schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == sorted(rates, reverse=True) and len(set(rates)) == 8 and rates[-1] == pytest.approx(0, abs=1e-9)

    class Two(CrossEntropy):
        def parameter_groups(self):
            return [{"params": self.net.body.parameters()}, {"params": self.net.head.parameters(), "lr": 1.0}]

    preset = Preset(epochs=2, schedule="one_cycle", lr=0.1)
    optimizer = make_optimizer(Two(net()).parameter_groups(), preset)
    make_schedule(optimizer, preset, steps_per_epoch=4)
    first, second = (group["lr"] for group in optimizer.param_groups)
    assert second == pytest.approx(10 * first)


def test_ema_averages_batch_norm_statistics_too():
    raw, averaged = CrossEntropy(net()), CrossEntropy(net())
    fit(raw, toy(), Preset(epochs=2, batch_size=16, lr=0.01))
    fit(averaged, toy(), Preset(epochs=2, batch_size=16, lr=0.01, ema=0.9))
    assert not torch.allclose(raw.net.body[1].running_mean, averaged.net.body[1].running_mean, atol=1e-4)


def test_seeds_and_epochs_do_not_repeat_each_other():
    orders = {tuple(map(tuple, epoch_order(48, 16, seed, epoch))) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"clip_norm": -1.0}, "clip_norm must be above 0"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0"),
        ({"limit": 0}, "limit must be a whole number of at least 1, got 0"),
        ({"epochs": 2.5}, "epochs must be a whole number of at least 1, got 2.5"),
        ({"schedule": "steps", "milestones": (5, 2)}, "milestones must rise within 1 .. 9"),
        ({"schedule": "steps", "milestones": (2, 10)}, "milestones must rise within 1 .. 9"),
        ({"nesterov": True}, 'nesterov belongs to optimizer "sgd"'),
    ],
)
def test_presets_refuse_what_they_cannot_mean(wrong, message):
    with pytest.raises(ValueError, match=message):
        Preset(**wrong)


def test_backward_runs_outside_autocast():
    """Autocast would redo in bf16 the backward of what a loss keeps in float32."""
    seen = []

    class Probe(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            seen.append(torch.is_autocast_enabled("cpu"))
            return gradient

    class Watched(CrossEntropy):
        def losses(self, batch, clock):
            seen.append(torch.is_autocast_enabled("cpu"))
            for terms in super().losses(batch, clock):
                yield {"total": Probe.apply(terms["total"])}

    fit(Watched(net()), toy(), Preset(epochs=1, batch_size=48, precision="bf16"))
    assert seen == [True, False]


def test_checkpoint_faults_are_named(tmp_path):
    fit(CrossEntropy(net()), toy(), PRESET, out=tmp_path)
    with pytest.raises(ValueError, match="another run .differs in lr"):
        fit(CrossEntropy(net()), toy(), Preset(**{**vars(PRESET), "lr": 0.5}), out=tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot be read .*delete it to start over"):
        fit(CrossEntropy(net()), toy(), PRESET, out=tmp_path)
    assert len(fit(CrossEntropy(net()), toy(), PRESET, out=tmp_path, resume=False)) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_full_disk_leaves_the_earlier_file_whole(tmp_path):
    path = write_atomically(tmp_path / "record.json", lambda f: f.write(b"earlier"))

    def full(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, full)
    assert path.read_bytes() == b"earlier" and [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_a_diverging_loss_is_named_and_keeps_the_checkpoint(tmp_path):
    class Diverges(CrossEntropy):
        def losses(self, batch, clock):
            for terms in super().losses(batch, clock):
                bad = terms["total"] * (float("inf") if clock.epoch == 1 else 1)
                yield {"penalty": bad, "total": bad}

    with pytest.raises(FloatingPointError, match="'penalty' is"):
        fit(Diverges(net()), toy(), Preset(epochs=3, batch_size=16), out=tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["progress"]["epoch"] == 1


class Spoilt(CrossEntropy):
    """A finite loss whose gradient is NaN from step ``at`` on: the root of a clamped zero."""

    at = 0

    def losses(self, batch, clock):
        for terms in super().losses(batch, clock):
            zero = (0 * self.net.head.weight.sum()) ** 2 if clock.step >= self.at else terms["total"]
            yield {"total": terms["total"] + 0 * zero.sqrt()}


@pytest.mark.parametrize("at", [2, 5])
def test_a_nan_gradient_under_a_finite_loss_is_not_saved_nor_handed_back(tmp_path, at):
    """Two epochs of three steps: the NaN comes with the last step of the first, or of all."""
    preset = Preset(epochs=2, batch_size=16, checkpoint_seconds=0.0, clip_norm=1.0 if at == 2 else None)
    for out in (None, tmp_path):
        method = Spoilt(net())
        method.at = at
        with pytest.raises(FloatingPointError, match=r"weight 'net\..*' is not finite|loss term 'total' is nan"):
            fit(method, toy(), preset, out=out)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["progress"]["epoch"] * 3 + state["progress"]["step"] == at
    assert all(value.isfinite().all() for value in state["method"].values())


FULL = """
import resource, signal, sys
sys.path.insert(0, sys.argv[1])
from test_train import CrossEntropy, Preset, fit, net, toy

class Fills(CrossEntropy):
    def losses(self, batch, clock):
        if clock.epoch == 1:  # the disk takes 2000 bytes of a file and no more
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
        yield from super().losses(batch, clock)

fit(Fills(net()), toy(), Preset(epochs=3, batch_size=16), out=sys.argv[2])
"""


def test_a_disk_that_is_really_full_is_named_with_folder_and_cure(tmp_path):
    command = [sys.executable, "-c", FULL, os.path.dirname(__file__), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    said = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and said.startswith("OSError: ") and "File too large" in said
    assert str(tmp_path) in said and "make room or choose another out" in said
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["progress"]["epoch"] == 1


def test_what_a_killed_save_left_is_removed_and_what_a_live_one_writes_is_not(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    dead, alive, other = (tmp_path / name for name in (".checkpoint.pt.dead", ".checkpoint.pt.live", ".record.json.x"))
    for path in (dead, alive, other):
        path.write_bytes(b"half")
    with alive.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        fit(CrossEntropy(net()), toy(), PRESET, out=tmp_path)
        assert sorted(tmp_path.iterdir()) == [alive, other, tmp_path / "checkpoint.pt"]
    write_atomically(tmp_path / "checkpoint.pt", lambda file: file.write(b"new"))
    assert sorted(tmp_path.iterdir()) == [other, tmp_path / "checkpoint.pt"]


def test_another_kind_of_device_goes_on_with_fresh_random_numbers_and_says_so(tmp_path, capsys):
    whole = CrossEntropy(net())
    fit(whole, toy(), PRESET, out=tmp_path)
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    foreign = [torch.zeros(16, dtype=torch.uint8)]  # what CUDA's generators hold
    torch.save({**state, "device": "cuda", "generators": [foreign]}, path)
    again = CrossEntropy(net())
    assert fit(again, toy(), PRESET, out=tmp_path) == state["history"]
    assert torch.equal(weights(again), weights(whole)) and capsys.readouterr().out == ""  # nothing was left to draw
    runs = []
    for _ in range(2):
        part = {**state, "progress": {"epoch": 2, "step": 0, "seconds": 0.0}, "history": state["history"][:2]}
        part["schedule"] = {**state["schedule"], "last_epoch": 8}
        torch.save({**part, "device": "cuda", "generators": [foreign]}, path)
        runs.append(CrossEntropy(net()))
        assert len(fit(runs[-1], toy(), PRESET, out=tmp_path, augment=shift)) == 3
        said = capsys.readouterr().out
        assert said.count("\n") == 1 and "trained on cuda, goes on on cpu with fresh random numbers" in said
    assert torch.equal(weights(runs[0]), weights(runs[1]))  # fresh, yet decided by seed and step


def test_another_number_of_processes_is_refused_in_words(tmp_path):
    fit(CrossEntropy(net()), toy(), PRESET, out=tmp_path)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    state["signature"]["processes"] = 2
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="another run .differs in processes: 2 there, 1 here.: choose another out"):
        fit(CrossEntropy(net()), toy(), PRESET, out=tmp_path)


def test_asked_to_end_it_saves_says_so_and_ends_as_it_would_have(tmp_path, capsys):
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))

    class Ended(CrossEntropy):
        def losses(self, batch, clock):
            if clock.step == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            yield from super().losses(batch, clock)

    Ended.__name__ = "CrossEntropy"
    preset = Preset(epochs=2, batch_size=16, lr=0.01)  # no checkpoint inside an epoch but this one
    try:
        with pytest.raises(SystemExit):
            fit(Ended(net()), toy(), preset, out=tmp_path, augment=shift)
        assert heard == [signal.SIGTERM] and str(tmp_path / "checkpoint.pt") in capsys.readouterr().out
        assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["progress"]["step"] == 2
        whole, rest = CrossEntropy(net()), CrossEntropy(net())
        fit(rest, toy(), preset, out=tmp_path, augment=shift)
        fit(whole, toy(), preset, augment=shift)
        assert torch.equal(weights(rest), weights(whole))
    finally:
        signal.signal(signal.SIGTERM, before)


def test_no_more_loaders_than_cores_and_no_pinning_on_a_cpu(monkeypatch):
    asked = {}

    def seen(data, **options):
        asked.update(options)
        raise InterruptedError

    monkeypatch.setattr(torch.utils.data, "DataLoader", seen)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    with pytest.raises(InterruptedError):
        fit(CrossEntropy(net()), toy(), Preset(workers=9))
    assert asked["num_workers"] == 2 and not asked["pin_memory"] and not asked["persistent_workers"]


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="optimizer must be one of adam, sgd, got 'adma'"):
        Preset(optimizer="adma")
    with pytest.raises(ValueError, match='milestones belong to schedule "steps"'):
        Preset(milestones=(3,))
    with pytest.raises(ValueError, match="epochs must be a whole number of at least 1, got 0"):
        Preset(epochs=0)
    with pytest.raises(ValueError, match="empty data set"):
        fit(CrossEntropy(net()), ArrayData(torch.rand(0, 1, 8, 8), torch.zeros(0, dtype=torch.long)), PRESET)
    with pytest.raises(TypeError, match="override its method losses"):
        fit(Method(net()), toy(), PRESET)


def test_epoch_order_is_a_function_of_seed_and_epoch_and_drops_the_rest():
    one, two = epoch_order(103, 10, 0, 0), epoch_order(103, 10, 0, 1)
    assert len(one) == 10 and one != two and one == epoch_order(103, 10, 0, 0)
    assert len({i for batch in one for i in batch}) == 100
    assert [len(b) for b in epoch_order(7, 10, 0, 0)] == [7]


def test_several_yields_add_up_to_the_gradient_of_the_sum():
    class Twice(CrossEntropy):
        def losses(self, batch, clock):
            yield from super().losses(batch, clock)
            yield from super().losses(batch, clock)

    class Sum(CrossEntropy):
        def losses(self, batch, clock):
            for terms in super().losses(batch, clock):
                yield {"total": 2 * terms["total"]}

    preset = Preset(epochs=2, batch_size=16, optimizer="sgd", lr=0.1)
    pair = [Twice(net(False)), Sum(net(False))]
    for method in pair:
        fit(method, toy(), preset)
    assert torch.allclose(weights(pair[0]), weights(pair[1]), atol=1e-6)


def test_ema_ends_with_the_averaged_weights():
    seen = []

    class Watched(CrossEntropy):
        def losses(self, batch, clock):
            seen.append(weights(self))
            yield from super().losses(batch, clock)

    raw, averaged = Watched(net(False)), CrossEntropy(net(False))
    fit(raw, toy(), Preset(epochs=2, batch_size=16, lr=0.01))
    fit(averaged, toy(), Preset(epochs=2, batch_size=16, lr=0.01, ema=0.9))
    expected = seen[1]  # after the first step
    for after_step in [*seen[2:], weights(raw)]:
        expected = 0.9 * expected + 0.1 * after_step
    assert torch.allclose(weights(averaged), expected, atol=1e-6)
    assert not torch.allclose(weights(raw), expected, atol=1e-3)


def test_gaussian_ramps_follow_the_paper():
    method = CrossEntropy(net())
    preset = Preset(epochs=300, schedule="gaussian_ramps", lr=0.003)
    schedule = GaussianRamps(make_optimizer(method.parameter_groups(), preset), preset, steps_per_epoch=2)
    group = schedule.optimizer.param_groups[0]
    assert group["lr"] == pytest.approx(0.003 * 0.006738, rel=1e-3) and group["betas"] == (0.9, 0.999)
    for _ in range(2 * 275):
        schedule.step()
    assert group["lr"] == pytest.approx(0.003 * 0.043937, rel=1e-3)
    assert group["betas"][0] == pytest.approx(0.9 * 0.043937 + 0.5 * (1 - 0.043937), rel=1e-4)


def test_adam_of_loss_attention_follows_the_paper():
    """Sec. V-B: e^{-(1-T)^2} up to 0.003 over 80 epochs, flat for 40, then 3e-4 and 3e-5; beta_2 0.99, then 0.999."""
    method = CrossEntropy(net())
    preset = Preset(epochs=200, schedule="gaussian_steps", lr=0.003, ramp_up=0.4, milestones=(120, 160))
    schedule, seen = make_schedule(make_optimizer(method.parameter_groups(), preset), preset, steps_per_epoch=1), {}
    for epoch in range(200):
        group = schedule.optimizer.param_groups[0]
        seen[epoch] = (group["lr"], *group["betas"])
        schedule.step()
    assert seen[0] == pytest.approx((0.003 / 2.718281828, 0.9, 0.99)) and seen[79][2] == 0.99
    flat = {seen[epoch] for epoch in range(80, 120)}
    assert len(flat) == 1 and flat.pop() == pytest.approx((0.003, 0.9, 0.999))
    assert seen[120] == seen[159] == pytest.approx((3e-4, 0.9, 0.999))
    assert seen[160] == seen[199] == pytest.approx((3e-5, 0.9, 0.999))
    with pytest.raises(ValueError, match='belongs to optimizer "adam"'):
        Preset(optimizer="sgd", schedule="gaussian_steps", milestones=(2,))


def test_steps_take_a_tenth_after_each_milestone():
    steps = {"schedule": "steps", "milestones": (2, 4)}
    preset = Preset(epochs=6, batch_size=16, optimizer="sgd", lr=0.1, nesterov=True, **steps)
    method = CrossEntropy(net(False))
    rates = [epoch["lr"] for epoch in fit(method, toy(), preset)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert make_optimizer(method.parameter_groups(), preset).param_groups[0]["nesterov"]


WORKER = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from test_train import CrossEntropy, fit, net, toy, weights, Preset
method = CrossEntropy(net(False))
history = fit(method, toy(), Preset(epochs=2, batch_size=16, optimizer="sgd", lr=0.1, clip_norm=1.0))
import torch.distributed as dist
if not dist.is_initialized() or dist.get_rank() == 0:
    torch.save(weights(method), sys.argv[2])
"""


def test_two_processes_over_gloo_take_the_steps_of_one(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    here = os.path.dirname(__file__)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for name, head in (("one.pt", [sys.executable]), ("two.pt", launcher)):
        subprocess.run([*head, str(script), here, str(tmp_path / name)], env=env, check=True, timeout=200)
    assert torch.allclose(torch.load(tmp_path / "one.pt"), torch.load(tmp_path / "two.pt"), atol=1e-6)
