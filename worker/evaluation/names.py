"""The other methods by name, and how each was read. No torch here: a wrong name is told before anything loads."""

from __future__ import annotations

_HINDSIGHT = "Its threshold is the one that suits these photos best in hindsight (MaxBoxAcc)."
_BLIND = "It has no class and no score."
_CAM = (
    "The grad-cam package as it comes, in float32, at the last convolution's output (other networks than VGG-16: "
    f"the first of the catalogue's layers). {_HINDSIGHT}"
)

NOTES: dict[str, str] = {
    "centred 70%": f"A box in the middle, 70 % of each side, without looking. {_BLIND}",
    "centred 80%": f"A box in the middle, 80 % of each side, without looking. {_BLIND}",
    "centred 100%": f"The whole photo, without looking. {_BLIND}",
    "paper, no mask": (
        "The paper's pipeline (DeepLIFT and guided backpropagation at the pixels, smoothed, masked, mixed "
        "half and half, one box around all hot cells) in the first of the three settings by which we read its "
        f"figure: a Gaussian of 4 % of the side, no border mask. {_HINDSIGHT}"
    ),
    "paper": (
        "The paper's pipeline in the second setting: a border of 10 % of each side counts nothing, all else "
        f"is the same. {_HINDSIGHT}"
    ),
    "paper, less blur": (
        "The paper's pipeline in the third setting: the mask, but a Gaussian of 2 % of the side. " + _HINDSIGHT
    ),
    "DeepLIFT alone": f"The paper's pipeline with DeepLIFT's map only. {_HINDSIGHT}",
    "guided alone": f"The paper's pipeline with guided backpropagation's map only. {_HINDSIGHT}",
    "GradCAM": _CAM,
    "GradCAMPlusPlus": _CAM,
    "LayerCAM": _CAM,
    "captum DeepLIFT, stock": (
        "captum's DeepLift as it comes, in float32, against the mean colour, with the paper's smoothing and "
        "mask. It loses its own rule for max pooling where a pool follows a ReLU directly (all of VGG's), and "
        f"knows no ReLU6, which gets the plain gradient (EfficientNet-Lite, MobileNet). {_HINDSIGHT}"
    ),
    "predecessor": (
        "Dwaraknath, Menghani and Mongia (2016). The neurons of layer l = 11 (VGG-16: the ReLU of the "
        "eleventh convolution; other networks: the second of the catalogue's layers) are scored by activation "
        "× gradient of the logit; each of the k_max = 10 best is mapped back alone, with guided "
        "backpropagation, which reaches no farther than its receptive field: its sub-image. The text leaves "
        "the DAM heuristic open: we scale every map to its neuron's score, add them up, smooth the sum with a "
        f"Gaussian of 4 % of the side and mask a border of 10 %, as in the paper's pipeline. {_HINDSIGHT}"
    ),
}
"""Name → what it does, and how we read what its text leaves open; in the order in which the methods run."""

OTHERS = tuple(NOTES)
"""Names of all other methods. The last one takes longer than most: ten passes back for each photo."""
