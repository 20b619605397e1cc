"""Train a small ResNet of transformers on the crops: python docs/train_crops.py photos trained."""

import sys

import torch
from transformers import ResNetConfig, ResNetForImageClassification

import ifa


def main(photos: str, folder: str, epochs: int = 40) -> None:
    """Train in some seconds, and save as `save_pretrained` does."""
    data = ifa.data.folder(photos)
    torch.manual_seed(0)
    sizes = {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]}
    config = ResNetConfig(**sizes, layer_type="basic", num_labels=len(data.names))
    net = ResNetForImageClassification(config).train()
    images = torch.stack([image for image, _, _ in data])
    labels = torch.tensor(data.labels)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels)).split(30):
            optimizer.zero_grad()
            net(images[rows], labels=labels[rows]).loss.backward()
            optimizer.step()
        schedule.step()
    net.save_pretrained(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
