"""Mistakes in the examples of docs/extend, and the message that each gets."""

from __future__ import annotations

MISTAKES = {
    "loss": [
        ("return loss_d, loss_g", "return loss_d", "losses:rahinge returned float32 ()"),
        (
            "relu(1 + under_real).mean()",
            "relu(1 + under_real)",
            "losses:rahinge: the loss of D is float32 (4,)",
        ),
        ("return loss_d, loss_g", "return loss_d, loss_g.detach()", "the loss of G has no gradient"),
        ("return loss_d, loss_g", "return loss_d * float('nan'), loss_g", "the loss of D is nan, or"),
        ("import relu, softplus", "import softplus", "losses:rahinge fails for logits of shape (4,)"),
        (
            "import relu, softplus",
            "import softplus",
            "NameError: name 'relu' is not defined; correct losses.py",
        ),
    ],
    "penalty": [
        (".relu().square().mean()", ".relu().square()", "penalties:lp is float32 (4,)"),
        (", create_graph=True", "", "penalties:lp has no gradient"),
        ("return (", "return float('nan') * (", "penalties:lp is nan, or its gradient is not finite"),
        ("critic(between)", "critic(between[:, :, :2])", "penalties:lp fails"),
    ],
    "network": [
        (
            "return G(config, shape), D(config, shape)",
            "return nn.Linear(1, 1)",
            "pixelshuffle returned Linear",
        ),
        (
            "return torch.tanh(",
            "return 9 + torch.tanh(",
            "networks:pixelshuffle: G's images have values in [",
        ),
        (
            "self.head(features).squeeze(1)",
            "self.head(features)",
            "networks:pixelshuffle: D returned float32 (2,",
        ),
        (
            "shape.size // 4, 2 * config.width_g",
            "4, 2 * config.width_g",
            "networks:pixelshuffle: G returned float32 (2, ",
        ),
        ("return torch.tanh(", "assert z.mean() < 9\n        return torch.tanh(", "G cannot be exported"),
        ("D(config, shape)", "D(shape)", "networks:pixelshuffle fails"),
    ],
    "extractor": [
        (
            "return self.net(",
            "return images.mean() + self.net(",
            "returned other features for the same image",
        ),
        ("return self.net(", "return images.numpy()\n        self.net(", "returned a ndarray, no tensor"),
        ("return self.net((images - self.mean) / self.std)", "return images[:, :, :1, :1]", " for 4 images"),
        (
            "resnet18-f37072fd",
            "resnet19",
            "the extractor features:resnet18 does not work: FileNotFoundError: ",
        ),
    ],
    "sampler": [
        ("optuna.samplers.TPESampler", "object", "samplers:TwoTimescale cannot be made"),
        ("(self, seed)", "(self, depth)", "sampler = samplers:TwoTimescale cannot be made"),
        (
            "class TwoTimescale",
            "def TwoTimescale(): ...\nclass Other",
            "samplers:TwoTimescale is no BaseSampler",
        ),
    ],
    "pruner": [
        ("(optuna.pruners.BasePruner)", "", "pruner = pruners:Plateau is no BasePruner"),
        ("(self, n_warmup_steps)", "(self, depth)", "pruner = pruners:Plateau cannot be made"),
    ],
    "data-source": [
        ("china.jpg", "japan.jpg", "the data source tiles:tiles does not work"),
        (
            "return np.stack(found), np.array(labels)",
            "return 5",
            "it returns an array of images, or (images, labels)",
        ),
        ("np.stack(found), np.array(labels)", "np.stack(found[:9])", "64 images"),
    ],
    "metric": [
        ("/ mean_distance(reals)", "/ 'reals'", "metrics:diversity does not work: TypeError"),
        ("/ mean_distance(reals)", "* float('nan')", "does not work: nan (it returns a finite number)"),
    ],
    "space": [
        ("lr_d = { float = [1e-4, 2e-3]", "lrd = { float = [1e-4, 2e-3]", "fewshot.toml [search]: "),
        ("tick_kimg = 1", "lr_g = 1e-4", "fewshot.toml: lr_g is both fixed and searched"),
        ("[search]", "[[enqueue]]", "fewshot.toml: no parameter is searched"),
    ],
}
"""Page -> (what is replaced in its example, by what, what the error says)."""
