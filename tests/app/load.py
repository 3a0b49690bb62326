"""Many clients at once against a running app; prints what came back and the server's memory.

    python tests/app/load.py ADDRESS MODEL PROCESS_ID FOLDER_OF_IMAGES [CLIENTS] [SECONDS]

ADDRESS must be on this machine.
"""

import ipaddress
import json
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import client
import numpy as np
import psutil


def main(address: str, model: str, process: int, folder: str, clients: int, seconds: float) -> dict:
    """Returns the report."""
    host = urllib.parse.urlparse(address).hostname
    if not ipaddress.ip_address(host).is_loopback:
        raise SystemExit(f"{host} is not this machine")
    images = [path.read_bytes() for path in sorted(Path(folder).glob("*.jpg"))[:20]]
    ending = time.monotonic() + seconds
    latencies, errors, memory, lock = [], [], [], threading.Lock()

    def work(number: int) -> None:
        turn = number
        while time.monotonic() < ending:
            begun = time.monotonic()
            try:
                path = client.upload(address, images[turn % len(images)], "photo.jpg")
                overlay = client.segment(address, path, model, timeout=120)[0]
                assert client.fetch(address, overlay["path"])[:4] == b"\x89PNG"
                with lock:
                    latencies.append(time.monotonic() - begun)
            except Exception as error:
                with lock:
                    errors.append(repr(error)[:200])
            turn += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    server = psutil.Process(process)
    while any(thread.is_alive() for thread in threads):
        memory.append(server.memory_info().rss / 2**20)
        time.sleep(1)
    tenth = max(1, len(memory) // 10)
    return {
        "clients": clients,
        "seconds": seconds,
        "answers": len(latencies),
        "errors": len(errors),
        "first_errors": errors[:3],
        "latency_median_s": float(np.median(latencies)) if latencies else None,
        "latency_95_s": float(np.percentile(latencies, 95)) if latencies else None,
        "memory_mib": {
            "start": memory[0],
            "maximum in the first fifth": max(memory[: 2 * tenth]),
            "most": max(memory),
            "end": memory[-1],
        },
    }


if __name__ == "__main__":
    count, duration = int((sys.argv[5:6] or [20])[0]), float((sys.argv[6:7] or [120])[0])
    report = main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], count, duration)
    print(json.dumps(report, indent=1))
    sys.exit(bool(report["errors"]))
