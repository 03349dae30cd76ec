"""Your own loss: a hinge with the regulariser of LeCam GAN (Tseng et al. 2021), for few images.

It keeps D's logits of reals near its mean logit of fakes and the other way round, so that D overfits later.
The paper follows these means by a moving average; a loss has no state, so here they are those of the batch.
Run it here:

    gansweep validate space.toml
    gansweep run --space space.toml --data mnist5k --time-budget 5m
"""

from torch.nn.functional import relu

STRENGTH = 0.1


class LeCamHinge:
    """d and g get D's logits, float (N,), and return a scalar to minimise."""

    relative = False  # g does not look at the reals: that saves a pass of D

    def __init__(self, strength):
        self.strength = strength

    def d(self, real, fake):
        hinge = relu(1 - real).mean() + relu(1 + fake).mean()
        real_over = relu(real - fake.mean().detach()).square().mean()
        fake_under = relu(real.mean().detach() - fake).square().mean()
        return hinge + self.strength * (real_over + fake_under)

    def g(self, real, fake):
        return -fake.mean()


lecam = LeCamHinge(STRENGTH)
weak = LeCamHinge(STRENGTH / 10)
