"""Seconds and host memory of reading a checkpoint of zeros onto eight CPU devices.

    python -m benchmarks.hf_load --preset=llama3.2-1b --files=4 --dtype=bfloat16

The files are sparse: they take no room on the disk. Printed are what the devices hold,
the largest tensor, and the highest memory of the process less what it had before.
"""

import argparse
import itertools
import json
import os
import struct
import tempfile
import threading
import time
from pathlib import Path


def write_zeros(folder: Path, config, num_files: int) -> int:
    """A checkpoint of bfloat16 zeros; returns the bytes of its largest tensor."""
    from jaxrl_surrogate import models
    from jaxrl_surrogate.models import families

    family = families.of_decoder(config)
    (folder / "config.json").write_text(json.dumps(family.hf_config(config)))
    abstract, shapes = models.abstract_params(config), {}
    for path, tensor in family.names(config).items():
        leaf = abstract
        for name in path:
            leaf = leaf[name]
        stacks = leaf.shape[: tensor.num_stacks]
        for position in itertools.product(*map(range, stacks)):
            stored = tensor.stored_shape(leaf.shape[tensor.num_stacks :])
            shapes[tensor.stored_name(position)] = stored
    names, listed, largest = sorted(shapes), {}, 0
    for number in range(num_files):
        file, header, offset = f"model-{number}.safetensors", {}, 0
        for name in names[number::num_files]:
            size = 2
            for axis in shapes[name]:
                size *= axis
            header[name] = {
                "dtype": "BF16",
                "shape": shapes[name],
                "data_offsets": [offset, offset + size],
            }
            offset, largest, listed[name] = offset + size, max(largest, size), file
        text = json.dumps(header).encode()
        with (folder / file).open("wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            out.truncate(8 + len(text) + offset)
    index = {"weight_map": listed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return largest


def memory(kind: str = "RssAnon") -> int:
    """Bytes of this process: its own, without files that it has mapped."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {kind}")


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="llama3.2-1b")
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    given = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    import jax

    from jaxrl_surrogate import models, parallel
    from jaxrl_surrogate.models import hf
    from jaxrl_surrogate.parallel import partition

    def shardings(config):
        mesh = parallel.make_mesh(parallel.MeshConfig(fsdp=4, tensor=2))
        abstract = models.abstract_params(config)
        return partition.param_shardings(mesh, models.logical_axes(config), abstract)

    config = models.presets.get(given.preset)
    shardings(config)  # what JAX itself takes is no part of the reading
    jax.block_until_ready(jax.device_put(1.0))
    with tempfile.TemporaryDirectory() as folder:
        largest = write_zeros(Path(folder), config, given.files)
        before, highest, reading = memory(), [0], threading.Event()

        def watch():
            while not reading.wait(0.005):
                highest[0] = max(highest[0], memory())

        watcher = threading.Thread(target=watch)
        watcher.start()
        start = time.perf_counter()
        _, params = hf.load(folder, dtype=given.dtype, shardings=shardings)
        jax.block_until_ready(params)
        seconds = time.perf_counter() - start
        reading.set()
        watcher.join()
    held = sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves(params)
        for shard in leaf.addressable_shards
    )
    peak = highest[0] - before
    print(
        f"{given.preset} as {given.dtype}, {given.files} files: {seconds:.1f} s, "
        f"held {held / 2**30:.2f} GiB, largest tensor {largest / 2**30:.2f} GiB, "
        f"peak {peak / 2**30:.2f} GiB = {(peak - largest) / held:.2f} x held + largest"
    )


if __name__ == "__main__":
    main()
