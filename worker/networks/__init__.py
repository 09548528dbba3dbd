"""The classifiers: how to build each, where its weights come from, what it wants to see, what it knows.

    network = load_network("vgg16")
    network.module(images)          # (N, 3, H, W) normalised → logits (N, C)
    network.classes[index]          # name of a class

A network is one entry in `catalogue`.
"""

from worker.networks.catalogue import NETWORKS
from worker.networks.entry import Network, NetworkEntry, Preprocessing
from worker.networks.load import find_entry, load_network, resolve_device

__all__ = ["NETWORKS", "Network", "NetworkEntry", "Preprocessing", "find_entry", "load_network", "resolve_device"]
