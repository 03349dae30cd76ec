"""Adam whose learning rate and beta2 lie in tensors."""

from __future__ import annotations

import pytest
import torch

from pipeline.training import capturable_adam


@pytest.mark.parametrize("beta1", [0.0, 0.5])
def test_a_step_with_tensor_lr_and_beta2_equals_torch_s(beta1: float) -> None:
    """With changing values: against torch's fused kernel with the same numbers."""
    torch.manual_seed(0)
    nets = [torch.nn.Linear(5, 3) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    ours, theirs = (torch.optim.Adam(net.parameters(), 0.1, (beta1, 0.9), fused=True) for net in nets)
    capturable_adam.make_capturable(ours)
    for step in range(20):
        lr, beta2 = 0.01 / (1 + step), 0.9 + 0.004 * step
        for net in nets:
            net.zero_grad()
            net(torch.full((2, 5), 0.1 * step + 0.1)).square().sum().backward()
        capturable_adam.step_with_tensor_lr(ours, torch.tensor(lr), torch.tensor(beta2))
        theirs.param_groups[0].update(lr=lr, betas=(beta1, beta2))
        theirs.step()
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert [int(s["step"]) for s in ours.state.values()] == [20, 20]


def test_a_prepared_state_equals_torch_s_first_one() -> None:
    nets = [torch.nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last) for _ in range(2)]
    ours, theirs = (torch.optim.Adam(net.parameters(), 0.0, fused=True) for net in nets)
    capturable_adam.make_capturable(ours)
    nets[1](torch.zeros(1, 2, 4, 4)).sum().backward()
    theirs.step()
    for mine, made in zip(ours.state.values(), theirs.state.values(), strict=True):
        assert mine.keys() == made.keys()
        for name in mine:
            assert (mine[name].dtype, mine[name].stride()) == (made[name].dtype, made[name].stride()), name
    before = ours.state[next(nets[0].parameters())]["exp_avg"]
    capturable_adam.make_capturable(ours)
    assert ours.state[next(nets[0].parameters())]["exp_avg"] is before
