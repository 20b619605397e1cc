"""Runs first in every notebook's kernel while the docs are built: each network is trained once.

The weights are those that the notebook would have trained itself, kept for one build by `conf.py`.
"""


def _remember():
    # inside, so that no notebook finds a name here that it did not import
    import functools
    import os
    from pathlib import Path

    from filelock import FileLock
    from safetensors.torch import load_file, save_file

    import ifa

    train = ifa.nets.train_digits

    @functools.wraps(train)
    def train_digits(*, network=ifa.nets.digits_cnn, **options):
        name = "-".join([network.__name__, *(f"{key}={options[key]}" for key in sorted(options))])
        path = Path(os.environ["IPYTHONDIR"]) / f"{name}.safetensors"
        with FileLock(f"{path}.lock"):
            if not path.exists():
                save_file(train(network=network, **options).state_dict(), path)
        net = network()
        net.load_state_dict(load_file(path))
        return net.eval().requires_grad_(False)

    ifa.nets.train_digits = train_digits


_remember()
del _remember
