"""What the tests of models share: one thread, the same numbers every time, and graphs exported and played."""

import io
import warnings
from importlib.util import find_spec

import pytest

if find_spec("torch"):
    import torch

    # Tensors in tests are small: a second thread costs more than it computes, most of all where the machine has other work.
    torch.set_num_threads(1)

    @pytest.fixture(autouse=True)
    def seed():
        """Random weights and inputs are the same every time, whichever tests ran before."""
        torch.manual_seed(0)


@pytest.fixture
def exported():
    """(net, tensors, names of inputs, of outputs, dynamic axes) -> what plays the graph, from tensors in the inputs' order."""
    import onnxruntime

    def export(net, given, inputs, outputs, axes):
        file = io.BytesIO()
        with warnings.catch_warnings():
            # The tracing exporter is called deprecated, and warns of sizes it fixes: other sizes than these are played.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                net.eval(), given, file, input_names=inputs, output_names=outputs, dynamic_axes=axes, opset_version=18,
                dynamo=False,
            )  # fmt: skip
        session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
        read = {one.name for one in session.get_inputs()}  # what a graph has no use for is no input of it

        def play(tensors):
            fed = {name: tensor.numpy() for name, tensor in zip(inputs, tensors, strict=True) if name in read}
            return [torch.from_numpy(array) for array in session.run(None, fed)]

        return play

    return export
