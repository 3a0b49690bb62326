"""One of the processes of a job, with one device each, that evaluate a split together.

usage: python evaluation_process.py ADDRESS PROCESSES PROCESS
"""

import json
import os
import sys
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from stand_ins import Convolution, random_dataset

from deeplab_jax.evaluation import Evaluator, evaluate
from deeplab_jax.inference import InferenceOptions, Predictor
from deeplab_jax.parallel import Addresses, PreemptionSync, joined_hosts, make_mesh

DATASET = random_dataset([(20, 31)] * 6)


class Dropping(Convolution):
    """Sets a random half of the logits to 0 if dropout is applied."""

    def logits_with_dropout(self, image: jax.Array) -> jax.Array:
        logits = self(image)
        return logits * jax.random.bernoulli(self.make_rng("dropout"), shape=logits.shape)


def validate(mesh: Mesh) -> dict[str, Any]:
    """Returns the confusion matrix of a validation as in training, and its number of batches."""
    model, stops, batches = Dropping(), PreemptionSync(mesh), []

    def stopping() -> bool:
        batches.append(1)
        return stops(False)

    evaluator = Evaluator(model, DATASET, batch_size=1, mesh=mesh)
    counts = evaluator.run(variables_of(model), stopping=stopping).counts
    return {"counts": counts.tolist(), "batches": len(batches)}


def detect_errors(mesh: Mesh) -> dict[str, Any]:
    """Returns how well the variances over dropout masks and over scales detect errors."""
    model, described = Dropping(), DATASET.descriptor
    options = InferenceOptions(scales=(0.5, 1.0), flip=True)
    predictor = Predictor(
        model, variables_of(model), described.class_names, described.palette, options=options
    )
    names = ("dropout", "scales")
    return evaluate(predictor, DATASET, batch_size=2, mesh=mesh, uncertainty=names)["uncertainty"]


def variables_of(model: Convolution) -> Any:
    """Returns random variables."""
    return model.init(jax.random.key(0), jnp.zeros((1, 33, 33, 3), jnp.uint8))


def main(address: str, processes: str, process: str) -> None:
    """Prints the results as JSON."""
    addresses = Addresses(address, int(processes), int(process))
    with joined_hosts(addresses, end=lambda message: (print(message, flush=True), os._exit(3))):
        rows = validate(make_mesh(spatial=jax.process_count()))
        images = detect_errors(make_mesh())
        print(json.dumps({"rows": rows, "images": images}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
