"""An emulator of Google Cloud Storage on this machine, in a process of its own.

`python tests/helpers/bucket_server.py BUCKET` serves a bucket in memory and prints its address.
"""

import contextlib
import http.server
import logging
import subprocess
import sys
from collections.abc import Iterator

BUCKET = "bucket"


@contextlib.contextmanager
def bucket_server() -> Iterator[dict[str, str]]:
    """Serves an empty gs://bucket, and yields the environment of the processes that use it."""
    command = [sys.executable, __file__, BUCKET]
    # It ends when its standard input is closed, as it is when this process is killed.
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes, text=True) as process:
        try:
            assert process.stdout is not None
            yield environment(process.stdout.readline().strip())
        finally:
            process.kill()


def environment(address: str) -> dict[str, str]:
    """Returns the variables by which gcsfs and TensorStore find the emulator."""
    return {
        # By default etils takes TensorFlow's file systems where TensorFlow happens to be installed.
        "EPATH_USE_TF": "false",
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        # TensorStore looks for credentials there, and finds none.
        "GCE_METADATA_ROOT": address.removeprefix("http://"),
        # gcsfs would ask an interface that the emulator lacks for the kind of bucket.
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }


def serve(bucket: str) -> None:
    """Serves until standard input is closed."""
    from gcp_storage_emulator.handlers import objects
    from gcp_storage_emulator.server import create_server

    logging.disable()
    download = objects.download

    def download_with_generation(request, response, storage, *args, **kwargs):
        # TensorStore requires this header, which the service sends and the emulator does not.
        names = request.params["bucket_name"], request.params["object_id"]
        with contextlib.suppress(Exception):
            response["x-goog-generation"] = storage.get_file_obj(*names)["generation"]
        download(request, response, storage, *args, **kwargs)

    objects.download = download_with_generation
    http.server.HTTPServer.request_queue_size = 128
    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket=bucket)
    server.start()
    print(f"http://127.0.0.1:{server._api._httpd.server_port}", flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    serve(sys.argv[1])
