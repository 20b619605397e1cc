"""Readers: what arrives of a data set, and what is said when it cannot be read."""

import numpy as np
import pytest
import torch

from ifa.store.items import DIGEST, collate, item_digest, reading

IMAGE = torch.arange(6, dtype=torch.float32).reshape(2, 3)


# Digests


ITEM = ({"image": IMAGE, "age": torch.tensor([3.0])}, 1, "a")


@pytest.mark.parametrize(
    "other",
    [
        ({**ITEM[0], "image": IMAGE.double()}, 1, "a"),
        ({**ITEM[0], "image": IMAGE.reshape(3, 2)}, 1, "a"),
        ({**ITEM[0], "image": IMAGE.nextafter(IMAGE + 1)}, 1, "a"),
        ({**ITEM[0], "image": IMAGE.view(torch.int32)}, 1, "a"),
        ({"image": IMAGE, "size": torch.tensor([3.0])}, 1, "a"),
        ({**ITEM[0], "more": None}, 1, "a"),
        (ITEM[0], 2, "a"),
        (ITEM[0], 1.0, "a"),
        (ITEM[0], "1", "a"),
        (ITEM[0], np.array(1), "a"),
        (ITEM[0], torch.tensor(1), "a"),
        (ITEM[0], 1, "b"),
    ],
)
def test_a_digest_tells_whatever_differs(other):
    assert len(item_digest(*ITEM)) == DIGEST
    assert item_digest(*ITEM) != item_digest(*other)


@pytest.mark.parametrize(
    ("label", "other"),
    [
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([1, 2]), np.array([1, 2.0])),
        (np.array([1, "a"], object), np.array([1, "b"], object)),
        (np.array(["a"]), np.array(["b"])),
        (np.array(["2020-01-01"], "M8[s]"), np.array(["2020-01-02"], "M8[s]")),
        (torch.tensor([1.0], dtype=torch.bfloat16), torch.tensor([2.0], dtype=torch.bfloat16)),
        ([0.1], [0.2]),
        ({"a": torch.zeros(2000)}, {"a": torch.zeros(2000).index_fill(0, torch.tensor([999]), 1)}),
        (np.zeros(2000, object), np.array([0] * 999 + [1] + [0] * 1000, object)),
        ("é", "\udcff"),
        (np.zeros((0, 2)), np.zeros((2, 0))),
    ],
    ids=lambda value: str(value)[:20].encode(errors="replace").decode(),
)
def test_labels_of_any_kind_are_in_the_digest(label, other):
    assert item_digest(IMAGE, label, "a") == item_digest(IMAGE.clone(), label, "a")
    assert item_digest(IMAGE, label, "a") != item_digest(IMAGE, other, "a")


def test_a_digest_is_of_values_not_of_how_they_lie_in_memory():
    wide = torch.stack([IMAGE, IMAGE + 1], -1)[..., 0]
    assert not wide.is_contiguous()
    assert item_digest(wide, wide.numpy(), "a") == item_digest(IMAGE, IMAGE.numpy(), "a")
    swapped = dict(reversed(ITEM[0].items()))
    assert item_digest(swapped, 1, "a") == item_digest(*ITEM)
    assert item_digest(IMAGE, object(), "a") == item_digest(IMAGE, object(), "a")


@pytest.mark.parametrize("workers", [None, 0, 1])
def test_batches_carry_the_digests_of_their_items_when_asked(workers):
    data = [(IMAGE.numpy() + index, index % 2) for index in range(5)]
    spans = [range(3), range(3, 5)]
    batches = list(reading("ifa.analyze", data, spans, (2, 3), workers, digest=True))
    want = [item_digest(IMAGE + index, index % 2, str(index)) for index in range(5)]
    assert [len(batch.digests) for batch in batches] == [3, 2]
    assert [row.tobytes() for batch in batches for row in batch.digests] == want
    for batch in reading("ifa.analyze", data, spans, (2, 3), workers):
        assert batch.digests.shape == (0, DIGEST)
    assert collate("ifa", data, range(2)).digests.dtype == np.uint8
