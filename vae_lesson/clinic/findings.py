"""What can be wrong with a VAE and its loss: the faults' names, and what to do about each."""

from typing import NamedTuple

DRAW_Z = "Draw z = mu + exp(½ log_var)·eps"
CURES = {  # of the loss first, then of the model
    (WRONG_SIGN := "wrong sign of the KL"): "Add the KL: −½ sum(1 + log_var − mu² − exp(log_var)).",
    (MEAN_FOR_SUM := "mean for sum"): "Sum over pixels and latent dimensions, then take the same "
    "mean over images of both.",
    (KL_FORMULA := "KL formula"): "Compare it with ½ (mu² + exp(log_var) − 1 − log_var), and its σ "
    "with that of the noise.",
    (OTHER_CODE := "KL of another code"): "Return the mu and log_var that z is drawn from.",
    (KL_WITHOUT_GRADIENT := "KL without gradient"): "Leave .item(), .detach() and no_grad out.",
    (SWAPPED := "swapped arguments"): "First the output: binary_cross_entropy(output, x).",
    (WRONG_TARGET := "wrong target"): "Compare each output with the image that it was made from.",
    (BROADCAST := "shapes broadcast"): "Give both the same shape, x.reshape(output.shape), say: "
    "(B, n) beside (B, 1, n) makes (B, B, n).",
    (LOG_FORGOTTEN := "log σ forgotten"): "Add log σ of each pixel, or σ grows without end.",
    (FAR_BETA := "beta far from 1"): "If you mean it, keep it; else look for a mean or a weight "
    "that is too much.",
    (BITS_TURNED := "free bits turned round"): "Take clamp(min=…): what is *under* the limit is "
    "free.",
    (WRONG_RANGE := "wrong range"): "Bring the images to [0, 1], let the output be what the loss "
    "takes (logits or probabilities) and able to reach the images, and leave mu and log_var free.",
    (SIGMOID_TWICE := "sigmoid twice"): "Take one away: if the loss takes logits, decode's.",
    (LOG_VAR_AS_SIGMA := "log_var used as sigma"): f"{DRAW_Z}.",
    (VARIANCE_AS_SIGMA := "variance used as sigma"): f"{DRAW_Z}.",
    (LOG_VAR_IGNORED := "log_var ignored"): f"{DRAW_Z}.",
    (LOG_VAR_IS_MU := "log_var is mu"): "Give mu and log_var a layer each.",
    (NO_NOISE := "no noise"): f"{DRAW_Z}, with fresh eps at every step.",
    (NOT_STANDARD_NORMAL := "noise that is not N(0, I)"): f"{DRAW_Z}, eps = randn_like(mu).",
    (GRADIENT_CUT := "gradient cut"): "Leave detach, .data and no_grad out; rsample, not sample.",
    (Z_UNUSED := "z unused"): "Let the decoder make the output of z.",
    (PAST_Z := "past z"): "Let the decoder see z alone.",
    (MIXED := "images mixed"): "Look at reshape, transpose, roll and batch_first: the first "
    "dimension is the images'.",
    (NOT_FINITE := "not finite"): "Look at the images and the weights; the logarithm of 0 is "
    "infinite (take logits), and exp(log_var) overflows above 88 (in float16 above 11: take "
    "float32 or bfloat16); roots and quotients want 1e-8 inside.",
    (LOSS_GROWS := "loss grows"): "Take a lower rate, or clip the gradient's norm.",
    (RUNS_AWAY := "runs away"): "Bring the images to [0, 1] and the first weights near 0. If "
    "the loss falls all the same, it asks for this: see what inspect_vae says.",
}
FAULTS = tuple(CURES)


class Finding(NamedTuple):
    """One thing that is wrong: its name (one of FAULTS), and what was measured."""

    fault: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.fault}. {self.evidence} {CURES[self.fault]}"


class Report(list):
    """What is wrong, a list of `Finding`; [] if nothing is.

    `examined` says what was looked at and is right, with what was measured; `not_examined` what
    was not looked at, and why. Each is a dict of strings.
    """

    def __init__(self, *findings: Finding):
        super().__init__(findings)
        self.examined, self.not_examined = {}, {}

    def find(self, fault: str, evidence: str) -> None:
        self.append(Finding(fault, evidence))

    def right(self, what: str, measured: str) -> None:
        self.examined[what] = measured

    def skip(self, what: str, why: str) -> None:
        self.not_examined[what] = why

    def __str__(self) -> str:
        lines = [str(finding) for finding in self] or ["Nothing found."]
        for title, said in [("Right", self.examined), ("Not examined", self.not_examined)]:
            if said:
                said = [f"{what} ({how})" for what, how in said.items()]
                lines.append(f"{title}: {', '.join(said)}.")
        return "\n".join(lines)

    __repr__ = __str__
