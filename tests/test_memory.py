"""Memory does not grow with the number of samples, beyond one shard and what quantiles need."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import json, sys, tracemalloc
import psutil, torch
import ifa

samples, options, store = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]

class Data(torch.utils.data.Dataset):
    def __len__(self):
        return samples

    def __getitem__(self, index):
        return torch.randn(1, 64, generator=torch.Generator().manual_seed(index)), index % 3

torch.manual_seed(0)
torch.set_num_threads(1)
net = torch.nn.Sequential(
    torch.nn.Conv1d(1, 64, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64 * 62, 3)
).eval()
process = psutil.Process()
peak = [0]

def look(done, total):
    peak[0] = max(peak[0], process.memory_info().rss)

ifa.analyze(net, Data(), layer="1", progress=look, shard=64, batch_size=32, store=store, **options)
look(0, 0)
resident = peak[0]
tracemalloc.start()
ifa.analyze(net, Data(), layer="1", progress=False, shard=64, batch_size=32, store=store + "2",
    **options)
print(json.dumps([resident, tracemalloc.get_traced_memory()[1]]))
"""


@pytest.mark.parametrize(
    "options",
    [
        {"keep_samples": "full"},
        pytest.param(
            {
                "keep_samples": "summary",
                "reductions": ["covariance", "cooccurrence", "top_samples"],
            },
            marks=pytest.mark.deep,
        ),
        pytest.param({"keep_samples": "none", "targets": [0, 2]}, marks=pytest.mark.deep),
    ],
    ids=str,
)
def test_ten_times_the_samples_take_no_more_memory(options, tmp_path):
    used = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", CODE, str(n), json.dumps(options), str(tmp_path / str(n))],
                capture_output=True,
                text=True,
                check=True,
                cwd=Path(__file__).parent,
            ).stdout
        )
        for n in (256, 2560)
    ]
    (resident, traced), (resident_10, traced_10) = used
    # 2304 samples more: their importances alone are 1.2 MB in float64, their maps 147 MB
    entries = 2304 * len(options.get("targets", [0]))
    assert traced_10 - traced < 2**19 + 40 * entries
    assert resident_10 - resident < 24 * 2**20
