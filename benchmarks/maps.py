"""Grad-CAM against the peers: CPU-time ratios to a minimal hand-written version, ResNet-50 in eval mode.

Run with ``python benchmarks/maps.py [--rounds 9] [--save "what machine this is"]``; of captum, torchcam and grad-cam it
takes those that are installed.
Maps are compared before anything is timed (pytorch-grad-cam averages and scales its maps, so only one layer compares,
up to scale).
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.interleave import interleave, save, table
from xai_course.maps import grad_cam

PEERS = {"torchcam": "torchcam", "captum": "captum", "pytorch-grad-cam": "pytorch_grad_cam"}  # and their modules
CASES = {"1 layer": ["layer4"], "4 layers": ["layer1", "layer2", "layer3", "layer4"]}
TARGETS = (  # case, faster, slower, wanted
    ("1 layer", "xai_course", "minimal", 1.05),
    ("4 layers", "xai_course", "minimal", 1.05),
    ("1 layer", "xai_course", "pytorch-grad-cam", 1 / 3),
    ("4 layers", "xai_course", "captum", 1 / 3),
)


def minimal(net: nn.Module, images: Tensor, classes: Tensor, layers: list[str]) -> list[Tensor]:
    """What one writes by hand: hooks, one forward, one gradient, a weighted sum. No check, no copy, no clean-up."""
    kept: list[Tensor] = []
    handles = [net.get_submodule(l).register_forward_hook(lambda m, i, o: kept.append(o)) for l in layers]
    logits = net(images)
    gradients = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), kept)
    for handle in handles:
        handle.remove()
    return [(g.mean((2, 3), keepdim=True) * a).sum(1).relu().detach() for g, a in zip(gradients, kept)]


def candidates(net: nn.Module, images: Tensor, classes: Tensor, layers: list[str]) -> dict[str, Callable[[], object]]:
    """Every way to the same maps, hooks and wrappers built beforehand where the peer allows it."""
    modules = [net.get_submodule(layer) for layer in layers]

    def peer_grad_cam():
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        with GradCAM(model=net, target_layers=modules) as extractor:
            return extractor(input_tensor=images, targets=[ClassifierOutputTarget(int(c)) for c in classes])

    def peer_torchcam():
        from torchcam.methods import GradCAM as TorchCam

        with TorchCam(net, target_layer=list(layers)) as extractor:
            return extractor(class_idx=classes.tolist(), scores=net(images), normalized=False)

    def peer_captum():
        from captum.attr import LayerGradCam

        peers = [LayerGradCam(net, module) for module in modules]
        return [peer.attribute(images, classes, relu_attributions=True)[:, 0] for peer in peers]

    ways = {
        "minimal": lambda: minimal(net, images, classes, layers),
        "xai_course": lambda: grad_cam(net, images, classes, layers).maps,
        "torchcam": peer_torchcam,
        "captum": peer_captum,
        "pytorch-grad-cam": peer_grad_cam,
    }
    absent = {name for name, module in PEERS.items() if importlib.util.find_spec(module) is None}
    return {name: way for name, way in ways.items() if name not in absent}


def check(ways: dict[str, Callable[[], object]], images: Tensor) -> None:
    """The same maps, before the same speed means anything."""
    want = ways["minimal"]()
    for name in ways.keys() & {"xai_course", "torchcam", "captum"}:
        for got, exact in zip(ways[name](), want):
            torch.testing.assert_close(got.detach(), exact, rtol=1e-3, atol=1e-3 * float(exact.max()))
    if len(want) == 1 and "pytorch-grad-cam" in ways:
        theirs = torch.as_tensor(ways["pytorch-grad-cam"]())
        ours = torch.nn.functional.interpolate(want[0][:, None], images.shape[-2:], mode="bilinear")[:, 0]
        for own, other in zip(ours.flatten(1), theirs.flatten(1)):
            agree = torch.corrcoef(torch.stack([own, other]))[0, 1]
            assert agree > 0.98 or own.max() == 0, f"pytorch-grad-cam's map differs: correlation {agree:.3f}"


def main() -> None:
    import torchvision

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--save", metavar="MACHINE", help="write data/results/benchmarks/maps.json for this machine")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    net = torchvision.models.resnet50().eval()
    images, classes = torch.randn(arguments.batch, 3, arguments.side, arguments.side), torch.arange(arguments.batch)
    results = {}
    for case, layers in CASES.items():
        ways = candidates(net, images, classes, layers)
        check(ways, images)
        results[case] = interleave(ways, "minimal", rounds=arguments.rounds)
        print(table(f"{case}: CPU time relative to minimal, median [quartiles]", results[case]), flush=True)
    for case, faster, slower, wanted in TARGETS:
        if slower not in results[case]:
            print(f"{case}: {slower} is not installed")
            continue
        ratio = results[case][faster].ratio / results[case][slower].ratio
        verdict = "met" if ratio <= wanted else "MISSED"
        print(f"{case}: {faster} / {slower} = {ratio:.3f}, wanted <= {wanted:.3f}: {verdict}")
    if arguments.save:
        setting = {"network": "ResNet-50, eval, float32", "batch": arguments.batch, "side": arguments.side}
        save("data/results/benchmarks/maps.json", arguments.save, results, setting=setting)


if __name__ == "__main__":
    main()
