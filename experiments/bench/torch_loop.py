"""The same networks as a plain PyTorch loop over time: the yardstick. Needs the extra ``bench``."""

from collections.abc import Callable

import torch
from torch import nn

from experiments.bench.workloads import Workload


class Loop(nn.Module):
    """h_{t+1} = σ(R(h_t) + V x_t + b), batch first; R is a circular convolution or a matrix, W h + b the output."""

    def __init__(self, workload: Workload):
        super().__init__()
        self.workload = workload
        size = workload.channels * workload.neurons
        self.encoder = nn.Linear(workload.inputs, size)
        if workload.taps:
            channels, taps = workload.channels, workload.taps
            self.recurrence = nn.Conv1d(channels, channels, taps, padding=taps // 2, padding_mode="circular")
        else:
            self.recurrence = nn.Linear(size, size)
        self.readout = nn.Linear(size, workload.outputs)
        self.activation = {"relu": torch.relu, "identity": nn.Identity()}[workload.activation]

    def load(self, params: dict) -> None:
        """Take the parameters of the other contenders."""
        cell = params["cell"]
        parts = [(self.encoder, cell["encoder"]), (self.recurrence, cell["recurrence"])]
        parts.append((self.readout, params["readout"]["output"]))
        with torch.no_grad():
            for module, part in parts:
                module.weight.copy_(torch.from_numpy(part["kernel"]).reshape(module.weight.shape))
                module.bias.copy_(torch.from_numpy(part["bias"]).reshape(module.bias.shape))

    def forward(self, xs: torch.Tensor) -> torch.Tensor:
        """xs (B, T, D) -> (B, T, O), or (B, O) of the last step."""
        workload = self.workload
        ring = (workload.channels, workload.neurons) if workload.taps else (workload.neurons,)
        hidden = xs.new_zeros(len(xs), *ring)
        outputs = []
        for x in xs.unbind(1):
            hidden = self.activation(self.recurrence(hidden) + self.encoder(x).view(-1, *ring))
            if workload.read == "all":
                outputs.append(self.readout(hidden.flatten(1)))
        return torch.stack(outputs, 1) if outputs else self.readout(hidden.flatten(1))


class LSTM(nn.Module):
    """``torch.nn.LSTM`` with as many neurons as one ring has, read likewise; cuDNN's on a GPU."""

    def __init__(self, workload: Workload):
        super().__init__()
        self.workload = workload
        self.lstm = nn.LSTM(workload.inputs, workload.neurons, batch_first=True)
        self.readout = nn.Linear(workload.neurons, workload.outputs)

    def forward(self, xs: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.lstm(xs)
        return self.readout(hidden if self.workload.read == "all" else hidden[:, -1])


def loop(workload: Workload, threads: int | None = None) -> Callable[[], float]:
    """A turn is one Adam step of :class:`Loop`, with PyTorch's own number of threads if none is given."""
    if threads is not None:
        torch.set_num_threads(threads)
    module = Loop(workload)
    module.load(workload.params())
    return _trains(module, workload)


def lstm(workload: Workload) -> Callable[[], float]:
    """A turn is one Adam step of :class:`LSTM`."""
    torch.manual_seed(0)
    return _trains(LSTM(workload), workload)


def _trains(module: nn.Module, workload: Workload) -> Callable[[], float]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = module.to(device)
    xs, targets = (torch.from_numpy(array).to(device) for array in workload.data())
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4)
    criterion = nn.MSELoss() if workload.loss == "squared error" else nn.CrossEntropyLoss()

    def turn() -> float:
        optimizer.zero_grad()
        outputs = module(xs)
        if workload.loss == "cross-entropy":
            loss = criterion(outputs.flatten(0, -2), targets.long().flatten())
        else:
            loss = criterion(outputs, targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    return turn
