"""Attacks: the printed formula, the ball they stay in, and that the stronger ones are stronger."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from xai_course.data.batch import ArrayData, Splits
from xai_course.maps import class_activation_map
from xai_course.measure import peaks as P
from xai_course.measure import robustness as R
from xai_course.methods.base import CrossEntropy
from xai_course.nets.convnets import small_cnn
from xai_course.nets.resnets import CIFAR, cifar_resnet


@pytest.fixture(scope="module")
def trained():
    """A small network that solves 'which quadrant is bright', and its splits."""
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (160,), generator=g)
    images = 0.3 + 0.1 * torch.rand(160, 1, 8, 8, generator=g)
    for i, c in enumerate(labels.tolist()):
        images[i, 0, 4 * (c // 2) : 4 * (c // 2) + 4, 4 * (c % 2) : 4 * (c % 2) + 4] += 0.15
    parts = [ArrayData(images[s], labels[s]) for s in (slice(0, 80), slice(80, 120), slice(120, 160))]
    method = CrossEntropy(small_cnn(4, channels=1, width=4, seed=0))
    optimizer = torch.optim.Adam(method.parameters(), 0.02)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(method.net(parts[0].images), parts[0].labels).backward()
        optimizer.step()
    return method.eval(), Splits("quadrants", *parts, tuple("abcd"), "0")


def test_fgsm_is_the_printed_formula(trained):
    method, splits = trained
    images, labels = splits.test.images.clone().requires_grad_(), splits.test.labels
    F.cross_entropy(method.net(images), labels).backward()
    printed = (images + 0.05 * images.grad.sign()).clamp(0, 1).detach()
    assert torch.equal(R.fgsm(method.logits, images.detach(), labels, 0.05), printed)
    assert all(p.grad is None or not p.grad.isnan().any() for p in method.parameters())


def test_fgsm_moves_every_pixel_by_epsilon_before_the_clamp(trained):
    method, splits = trained
    images = splits.test.images.double().clamp(0.3, 0.7)  # far from 0 and 1: the clamp does nothing
    moved = R.fgsm(lambda x: method.double().logits(x), images, splits.test.labels, 0.05)
    method.float()
    assert (moved - images).abs().max() == pytest.approx(0.05, abs=1e-15)


@pytest.mark.parametrize("attack", [R.fgsm, R.pgd])
def test_attacks_work_in_inference_mode(trained, attack):
    method, splits = trained
    images, labels = splits.test.images, splits.test.labels
    want = attack(method.logits, images, labels, 0.05)
    with torch.inference_mode():
        torch.testing.assert_close(attack(method.logits, images + 0, labels + 0, 0.05), want)


@pytest.mark.parametrize("objective", R.OBJECTIVES)
def test_pgd_stays_in_the_ball_and_in_the_image(trained, objective):
    method, splits = trained
    images, labels = splits.test.images, splits.test.labels
    g = torch.Generator().manual_seed(1)
    moved = R.pgd(method.logits, images, labels, 0.7, steps=5, objective=objective, generator=g)
    assert (moved - images).abs().max() <= 0.7 + 1e-6 and moved.min() == 0 and moved.max() == 1


def test_one_full_step_of_pgd_is_fgsm(trained):
    method, splits = trained
    images, labels = splits.test.images, splits.test.labels
    one = R.pgd(method.logits, images, labels, 0.05, steps=1, step_size=0.05)
    torch.testing.assert_close(one, R.fgsm(method.logits, images, labels, 0.05))


def test_order_of_strength(trained):
    method, splits = trained
    clean = R.clean_accuracy(method, splits)
    assert clean["accuracy"] > 0.9 and clean["top5"] == 1 and 0 < clean["confidence"] <= 1
    weak = R.fgsm_accuracy(method, splits, epsilons=(0.0, 0.03, 0.1))
    strong = R.pgd_accuracy(method, splits, epsilons=(0.03,), steps=10)
    assert weak["fgsm_0"] == clean["accuracy"] >= weak["fgsm_0.03"] >= weak["fgsm_0.1"]
    assert strong["pgd_0.03"] <= weak["fgsm_0.03"] + 0.05


def test_large_logits_hide_from_cross_entropy_but_not_from_the_margin(trained):
    """Gradient masking: the network times 10,000 is no more robust, yet its cross-entropy gradient is exactly zero."""
    method, splits = trained
    right = method.logits(splits.test.images).argmax(1) == splits.test.labels
    images, labels = splits.test.images[right], splits.test.labels[right]

    def loud(x):
        return 1e4 * method.logits(x)

    assert (R.image_gradient(loud, images, labels) == 0).float().mean() > 0.5
    mine, masked = (R.pgd(s, images, labels, 0.1, steps=10, objective="margin") for s in (method.logits, loud))
    agree = method.logits(mine).argmax(1) == method.logits(masked).argmax(1)
    assert agree.float().mean() > 0.95


def test_transfer_uses_only_the_other_network(trained):
    method, splits = trained
    calls = []

    def source(given):
        calls.append(given)
        return method.net

    own = R.fgsm_accuracy(method, splits, epsilons=(0.05,))["fgsm_0.05"]
    assert R.transfer_accuracy(method, splits, source=source, epsilons=(0.05,)) == {"transfer_0.05": own}
    assert calls == [splits]


def test_memorised_counts_wrong_training_labels_only(trained):
    method, splits = trained
    labels, corrupted = splits.train.labels.clone(), torch.zeros(80, dtype=torch.bool)
    corrupted[:20] = True
    labels[:10] = (labels[:10] + 1) % 4  # ten the network overrules, ten it agrees with
    data = ArrayData(splits.train.images, labels)
    data.corrupted = corrupted
    right = method.logits(splits.train.images).argmax(1) == splits.train.labels
    assert right.all()
    noisy = splits._replace(train=data)
    assert R.memorised(method, noisy) == {"memorised": 0.5}
    assert R.memorised(method, noisy, limit=10) == {"memorised": 0.0}
    data.corrupted = torch.zeros(80, dtype=torch.bool)
    assert R.memorised(method, noisy) == {"memorised": 0.0}


def test_limit_and_modes(trained):
    method, splits = trained
    method.train()
    before = {k: v.clone() for k, v in method.state_dict().items()}
    some = R.fgsm_accuracy(method, splits, epsilons=(0.0,), limit=7)["fgsm_0"]
    assert some * 7 == pytest.approx(round(some * 7))
    assert method.net.body[0].training
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())
    method.eval()


def test_pgd_starts_anywhere_in_the_ball(trained):
    method, splits = trained
    images, labels = splits.test.images.clamp(0.4, 0.6), splits.test.labels
    starts = [
        R.pgd(method.logits, images, labels, 0.3, steps=1, step_size=0.0, generator=torch.Generator().manual_seed(seed))
        - images
        for seed in (0, 1)
    ]
    for moved in starts:  # uniform: both signs alike, a deviation of 0.3 / sqrt(3)
        assert abs(moved.mean()) < 0.02 and moved.std() == pytest.approx(0.3 / 3**0.5, rel=0.03)
    assert not torch.equal(*starts)
    still = images.clone()
    assert torch.equal(R.pgd(method.logits, images, labels, 0.3, steps=1, step_size=0.0), images)
    R.pgd(method.logits, images, labels, 0.3, steps=2)
    assert torch.equal(images, still)


def test_limit_counts_images_over_batches():
    method, sizes = CrossEntropy(small_cnn(3, channels=1, width=2, seed=0)), []
    data = ArrayData(torch.rand(300, 1, 8, 8), torch.zeros(300, dtype=torch.long))

    def attack(scores, images, labels):
        sizes.append(len(images))
        return images

    for limit, want in ((None, [256, 44]), (270, [256, 14]), (256, [256]), (7, [7]), (999, [256, 44])):
        sizes.clear()
        R.accuracy_under(method, data, attack, limit)
        assert sizes == want, limit


def test_multi_label_gradient():
    method = CrossEntropy(small_cnn(3, channels=1, width=2, seed=0)).eval()
    images = torch.rand(2, 1, 8, 8)
    moved = R.fgsm(method.logits, images, torch.tensor([[1.0, 0, 1], [0, 0, 0]]), 0.1)
    assert (moved - images).abs().max() <= 0.1 + 1e-6


def test_epsilon_is_in_pixels_of_networks_that_normalise():
    net = cifar_resnet(8, 3, statistics=CIFAR).eval()
    images = torch.rand(2, 3, 32, 32) * 0.5 + 0.25
    moved = R.fgsm(net, images, torch.tensor([0, 1]), 0.05)
    assert (moved - images).abs().max() == pytest.approx(0.05, abs=1e-6)


def test_map_peaks_by_hand(trained):
    method, splits = trained
    found = P.map_peaks(method, splits, k=2)
    features, head = method.net.features(splits.test.images), method.net.head
    maps = class_activation_map(features, head.weight, head.bias).detach()
    positive, negative = [], []
    for image, label in zip(maps, splits.test.labels.tolist()):
        order = [o for o in image.mean((1, 2)).argsort(descending=True).tolist() if o != label][:2]
        positive.append(float(image[label].max() - image[label].mean()))
        negative.append(sum(float(image[o].max() - image[o].mean()) for o in order) / 2)
    assert found["positive_peak"] == pytest.approx(sum(positive) / len(positive), rel=1e-4)
    assert found["negative_peak"] == pytest.approx(sum(negative) / len(negative), rel=1e-4)


@pytest.mark.parametrize("call", [
    lambda m, x, y: R.fgsm(m, x, y, -0.1),
    lambda m, x, y: R.fgsm(m, x, y, float("nan")),
    lambda m, x, y: R.pgd(m, x, y, 0.1, steps=0),
    lambda m, x, y: R.pgd(m, x, y, 0.1, objective="dlr"),
])  # fmt: skip
def test_bad_input(call):
    with pytest.raises(ValueError, match="must"):
        call(small_cnn(3, channels=1, width=2, seed=0).eval(), torch.rand(2, 1, 8, 8), torch.tensor([0, 1]))


def test_empty_data():
    method = CrossEntropy(small_cnn(3, channels=1, width=2, seed=0))
    empty = ArrayData(torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match="at least one image"):
        R.accuracy_under(method, empty, lambda scores, images, labels: images)
